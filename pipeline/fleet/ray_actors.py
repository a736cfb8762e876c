"""The controller and the agents as actors of Ray. They carry messages and keep time; what is decided, and
that no camera has two owners, lies in `controller`, `agent` and `leases`, which know no Ray.

One detached controller on the head node, which alone knows what is a node; one detached agent on each node
that is a machine of the fleet. A camera's pictures never come here.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
import threading
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.errors import ConfigError, ManyeyesError
from pipeline.fleet import keeping, targets
from pipeline.fleet.agent import Agent
from pipeline.fleet.child import RunChild
from pipeline.fleet.config import Fleet, checked
from pipeline.fleet.controller import Controller, Superseded
from pipeline.fleet.guard import now_s
from pipeline.fleet.keeping import Kept
from pipeline.fleet.leases import PROTOCOL, Orders, Report, Tenant
from pipeline.fleet.measuring import Measuring
from pipeline.fleet.placement import Placed
from pipeline.fleet.static import events_in, stores_of

log = logging.getLogger("manyeyes")

NAMESPACE = "manyeyes"
CONTROLLER = "controller"
LABEL = "machine"  # of a node: the name of its machine
_REPORT_S, _PATIENCE_S = 1.0, 2.0
_TURN_S = 0.2
_HEAD = "node:__internal_head__"  # a resource that the head node alone has

Node = Mapping[str, Any]


def nodes_alive() -> list[Node]:
    """As Ray has them."""
    nodes: Any = ray.nodes  # it has no annotations
    return [node for node in nodes() if node["Alive"]]


def machine_of(node: Node, fleet: Fleet) -> str | None:
    """Which machine of the fleet a node is: by its label, its host name, or its address."""
    named = node["Labels"].get(LABEL) or node["NodeManagerHostname"]
    if named in fleet.names:
        return str(named)
    hosts = {address.rpartition(":")[0]: name for name, address in fleet.addresses.items()}
    return None if LABEL in node["Labels"] else hosts.get(node["NodeManagerAddress"])


def check_token(nodes: list[Node]) -> None:
    """Raises ConfigError for a cluster that others can reach, and that asks nobody for a token."""
    reachable = [
        address
        for node in nodes
        if not ipaddress.ip_address(address := node["NodeManagerAddress"]).is_loopback
    ]
    if reachable and os.environ.get("RAY_AUTH_MODE") != "token":
        raise ConfigError(
            f"ray: {reachable[0]} can be reached from other hosts, and whoever reaches it may run programs "
            "on it: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with the token, for "
            "`ray start` on every node and here"
        )


class ControllerActor:
    """Detached, on the head node, started again whenever it dies."""

    def __init__(self, raw: dict[str, Any], path: str) -> None:
        """Of the fleet in these tables, unless there was a later one."""
        check_token(nodes_alive())
        self._lock = threading.Lock()
        self._path = Path(path)
        self._file = keeping.file_of(self._path)
        kept = keeping.recall(self._file) or Kept(term=0, tables=raw, placed=Placed())
        self._kept = replace(kept, term=kept.term + 1)
        keeping.remember(self._file, self._kept)
        fleet = checked(self._kept.tables, self._path)
        self._controller = Controller(fleet, kept.placed, term=self._kept.term, now_s=now_s())
        self._agents: dict[str, tuple[str, Any]] = {}  # node → its machine, its agent
        self._strangers: set[str] = set()
        self._is_over = threading.Event()
        self._ticking = threading.Thread(target=self._tick, daemon=True)
        self._ticking.start()

    def report(self, told: dict[str, Any]) -> dict[str, Any]:
        """What an agent tells, and what it is answered."""
        if told.get("protocol") != PROTOCOL:  # its fields may be others, too
            known = {name: told.get(name, "") for name in ("machine", "session", "version")}
            told = {
                **known,
                "term": 0,
                "number": 0,
                "held": {},
                "protocol": told.get("protocol", 0),
            }
        with self._lock:
            try:
                orders = self._controller.report(Report(**told), now_s())
            except Superseded as error:
                log.error("%s: this one ends", error)
                os._exit(1)
            self._keep()  # before anybody obeys
        return asdict(orders)

    def apply(self, raw: dict[str, Any], drained: list[str]) -> None:
        """Another fleet from now on."""
        with self._lock:
            self._controller.apply(checked(raw, self._path), set(drained), now_s())
            self._keep()

    def placed(self) -> dict[str, Any]:
        """Who runs what."""
        with self._lock:
            return asdict(self._controller.placed)

    def status(self) -> dict[str, Any]:
        """All that is known."""
        with self._lock:
            controller = self._controller
            return {
                "term": controller.term,
                "reports": {name: asdict(report) for name, report in controller.reports.items()},
                "owners": controller.owners,
                "unplaced": controller.unplaced,
                "capacities": controller.capacities,
                "refused": controller.refused,
                "moves": [asdict(move) for move in controller.moves],
                "strangers": sorted(self._strangers),
            }

    def agents(self) -> dict[str, Any]:
        """Machine → its agent."""
        return dict(self._agents.values())

    def end(self) -> None:
        """No more agents are started, and what is kept says that nobody runs anything."""
        self._is_over.set()
        self._ticking.join()
        self._kept = replace(self._kept, placed=replace(self._kept.placed, machines=()))
        keeping.remember(self._file, self._kept)

    def _tick(self) -> None:
        while not self._is_over.wait(1.0):
            try:
                self._follow_nodes()
            except (RayError, ManyeyesError) as error:
                log.warning("controller: %s", error)
            with self._lock:
                self._controller.turn(now_s())
                self._keep()

    def _follow_nodes(self) -> None:
        """An agent on every node that is a machine."""
        fleet = self._controller.fleet
        living = {node["NodeID"]: node for node in nodes_alive()}
        self._agents = {node: agent for node, agent in self._agents.items() if node in living}
        self._strangers = set()
        for node_id, node in living.items():
            machine = machine_of(node, fleet)
            if machine is None:
                self._strangers.add(f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})")
            elif node_id not in self._agents:
                self._agents[node_id] = machine, _agent_on(node_id, machine, self._path)

    def _keep(self) -> None:
        controller = self._controller
        kept = Kept(term=controller.term, tables=controller.fleet.raw, placed=controller.placed)
        if kept != self._kept:
            keeping.remember(self._file, kept)
            self._kept = kept
        targets.write(controller.fleet, kept.placed)


def controller_of(raw: dict[str, Any], path: Path) -> Any:
    """A new one, on the head node, with a name."""
    (head,) = (node["NodeID"] for node in nodes_alive() if _HEAD in node["Resources"])
    return _actor(ControllerActor, CONTROLLER, head).remote(raw, str(path))


def _agent_on(node_id: str, machine: str, path: Path) -> Any:
    name = f"agent-{machine}-{node_id[:12]}"
    return _actor(AgentActor, name, node_id).remote(machine, str(path))


def _actor(cls: type, name: str, node_id: str) -> Any:
    return ray.remote(cls).options(
        name=name, namespace=NAMESPACE, lifetime="detached", get_if_exists=True, num_cpus=0,
        max_restarts=-1, scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
    )  # fmt: skip


class AgentActor:
    """Detached, on a node; runs what the controller lets it run, as a child."""

    def __init__(self, machine: str, path: str) -> None:
        check_token(nodes_alive())
        self._machine, self._path = machine, Path(path)
        self._run = RunChild(self._path, machine)
        tenant = Tenant(machine, secrets.token_hex(8))
        self._agent = Agent(tenant, self._run, version("manyeyes"))
        self._is_over = threading.Event()
        self._measuring: Measuring | None = None
        self._is_known = False  # whether its capacity is to be measured
        self._asked_s = -_REPORT_S
        self._working = threading.Thread(target=self._work, daemon=True)
        self._working.start()

    def events(
        self, raw: dict[str, Any], each: bool, wanted: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Of the stores here."""
        fleet = checked(raw, self._path)
        return [
            row
            for path in stores_of(fleet, self._machine)
            if path.exists()
            for row in events_in(path, self._machine, each=each, wanted=wanted)
        ]

    def end(self) -> None:
        """The run ends in order; returns when it has."""
        self._is_over.set()
        self._working.join()

    def _work(self) -> None:
        asked: tuple[Any, float] | None = None
        while not self._is_over.wait(_TURN_S):
            now = now_s()
            self._measure()
            self._agent.turn(now)
            if asked is not None:
                asked = self._hear(*asked, now)
            elif now - self._asked_s >= _REPORT_S:
                self._asked_s = now
                asked = self._ask(now)
        self._agent.leave()
        while not self._agent.is_idle:
            self._agent.turn(now_s())
            threading.Event().wait(_TURN_S)

    def _measure(self) -> None:
        """Its capacity, if that is wanted; the model is known with the first orders."""
        if self._measuring is not None:
            self._agent.capacity = self._measuring.cameras
            self._agent.trouble = self._measuring.failure
        elif self._agent.tables and not self._is_known:
            self._is_known = True
            fleet = checked(dict(self._agent.tables), self._path)
            if (rate_hz := fleet.measured_hz.get(self._machine)) is not None:
                self._measuring = Measuring(fleet.model, rate_hz)

    def _ask(self, now: float) -> tuple[Any, float] | None:
        report = asdict(self._agent.report(now))
        try:
            controller = ray.get_actor(CONTROLLER, NAMESPACE)
            return controller.report.remote(report), now
        except (ValueError, RayError):  # there is none at the moment
            return None

    def _hear(self, answer: Any, asked_s: float, now: float) -> tuple[Any, float] | None:
        """None: it has been answered, or takes too long, and is never heard."""
        try:
            ready, _ = ray.wait([answer], timeout=0)
            if not ready:
                return (answer, asked_s) if now - asked_s < _PATIENCE_S else None
            self._agent.take(Orders(**ray.get(answer)), asked_s)
        except RayError:
            pass
        return None
