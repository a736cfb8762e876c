"""A fleet that Ray carries: machines come and go, and cameras follow."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayError

from pipeline.errors import ConfigError, ManyeyesError
from pipeline.fleet.config import Fleet
from pipeline.fleet.placement import MachineStatus, Placed, Told
from pipeline.fleet.ray_actors import CONTROLLER, NAMESPACE, check_token, controller_of, nodes_alive

_ANSWER_S = 20.0
_END_S = 30.0  # a run ends in order within ten
_CONNECT_S = 3.0


class RayPlacement:
    """See `Placement`. Connects when it is made; this host is a node of the cluster."""

    def __init__(self, fleet: Fleet) -> None:
        """Raises ConfigError if there is no cluster, or one that is open to others."""
        self._fleet = fleet
        _connect(fleet.settings.address)
        check_token(nodes_alive())

    def up(self, fleet: Fleet) -> str:
        """Begin, or go on with a file that has changed; returns what is now so."""
        controller = self._controller() or controller_of(fleet.raw, fleet.file)
        placed = _answer(controller.placed.remote())
        _answer(controller.apply.remote(fleet.raw, list(placed["drained"])))
        name = fleet.file.name
        return f"the controller has {name}; `manyeyes fleet status {name}` tells how it does"

    def down(self) -> None:
        """All runs end in order, then the agents and the controller. Takes seconds."""
        controller = self._there()
        agents = _answer(controller.agents.remote())
        _answer(controller.end.remote())
        waiting = [agent.end.remote() for agent in agents.values()]
        ray.wait(waiting, num_returns=len(waiting), timeout=_END_S) if waiting else None
        for actor in (*agents.values(), controller):
            ray.kill(actor)

    def placed(self) -> Placed:
        """What the controller says; nothing, before `up`."""
        if (controller := self._controller()) is None:
            return Placed()
        told = _answer(controller.placed.remote())
        return Placed(
            where=told["where"], drained=tuple(told["drained"]), machines=tuple(told["machines"])
        )

    def apply(self, fleet: Fleet, placed: Placed) -> str:
        """It plans by itself, with those machines that are there; it is told the file and the drains."""
        controller = self._controller()
        if controller is None:
            return f"nothing runs yet; `manyeyes fleet up {fleet.file.name}` begins"
        _answer(controller.apply.remote(fleet.raw, list(placed.drained)))
        return ""

    def capacities(self, fleet: Fleet) -> dict[str, float]:
        """Of those whose agents report; before `up`, of all."""
        if (controller := self._controller()) is None:
            return {machine.name: machine.capacity for machine in fleet.machines}
        told = _answer(controller.status.remote())
        return {
            name: told["capacities"][name] for name in told["reports"].keys() & told["capacities"]
        }

    def notes(self, fleet: Fleet) -> list[str]:
        """Cameras without a machine, and nodes and agents that are no machine."""
        told = _answer(self._there().status.remote())
        without = [f"camera {camera!r}: {why}" for camera, why in told["unplaced"].items()]
        strangers = [
            f"node {node} is no machine of {fleet.file.name}, so its capacity is unknown; add a "
            "[[machine]], or give it the label machine=NAME"
            for node in told["strangers"]
        ]
        return [*without, *strangers, *told["refused"]]

    def status(self, fleet: Fleet) -> list[MachineStatus]:
        """What the agents have reported in the last second."""
        told = _answer(self._there().status.remote())
        return [_status(fleet, told, name) for name in fleet.names]

    def events(self, fleet: Fleet, *, each: bool, wanted: Told) -> Iterator[Told]:
        """Each agent asks its store."""
        agents = _answer(self._there().agents.remote())
        for rows in [agent.events.remote(fleet.raw, each, wanted) for agent in agents.values()]:
            yield from _answer(rows)

    def _controller(self) -> Any:
        """None: there is none."""
        with contextlib.suppress(ValueError):
            return ray.get_actor(CONTROLLER, NAMESPACE)
        return None

    def _there(self) -> Any:
        if (controller := self._controller()) is None:
            raise ManyeyesError(
                f"{self._fleet.file.name}: it is not up; `manyeyes fleet up {self._fleet.file.name}` begins"
            )
        return controller


def _connect(address: str) -> None:
    """Raises ConfigError, in seconds."""
    host, _, port = address.rpartition(":")
    failures: list[Exception] = []
    joining = threading.Thread(target=_join, args=(address, failures), daemon=True)
    try:
        if host:
            socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
        joining.start()
        joining.join(_ANSWER_S)  # Ray itself goes on trying for minutes
        if failures:
            raise failures[0]
        if joining.is_alive():
            raise TimeoutError(f"nothing in {_ANSWER_S:g} s")
    except (OSError, ValueError, RuntimeError, RayError) as error:  # ConnectionError is an OSError
        why = str(error).partition("\n")[0].rstrip(".")
        raise ConfigError(
            f"[fleet]: address {address!r} does not answer as a cluster of Ray: {why}; start one with "
            "`ray start --head`, and this host as a node of it"
        ) from error


def _join(address: str, failures: list[Exception]) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.CRITICAL,
            ignore_reinit_error=True,
        )  # fmt: skip
    except Exception as error:  # of whatever kind; the one who waits tells them apart
        failures.append(error)


def _answer(reference: Any) -> Any:
    """Raises ManyeyesError: what the actor raised of ours, or that it does not answer."""
    try:
        return ray.get(reference, timeout=_ANSWER_S)
    except ManyeyesError:
        raise
    except RayError as error:
        if isinstance(cause := getattr(error, "cause", None), ManyeyesError):
            raise cause from None
        raise ManyeyesError(
            f"ray: the fleet does not answer: {str(error).splitlines()[-1]}"
        ) from error


def _status(fleet: Fleet, told: Told, name: str) -> MachineStatus:
    capacity, report = told["capacities"].get(name, 0.0), told["reports"].get(name)
    mine = [camera for camera, owner in told["owners"].items() if owner == name]
    weight = sum(camera.weight for camera in fleet.cameras if camera.name in mine)
    rows = dict((report or {}).get("told", {}).get("cameras", {}))
    failure = (report or {}).get("told", {}).get("failure", "")
    if report is None:
        state = "gone"
    elif failure:
        state = failure
    elif name not in told["capacities"]:
        state = "its capacity is being measured"
    else:
        state = "serving" if rows else "starting" if mine else "idle"
    rows = {camera: row for camera, row in rows.items() if row["state"] != "left"}
    for camera in mine:
        rows.setdefault(camera, {"state": "not served"})
    return MachineStatus(
        name=name, state=state, capacity=capacity, share=weight / capacity if capacity else 0.0,
        cameras=rows,
    )  # fmt: skip
