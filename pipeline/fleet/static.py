"""A fleet without an engine: a file says which machine runs what, and each machine is started by itself.

There is nothing between the machines, so nothing moves by itself: `plan --write` says who runs what, the
file is copied to the machines with `fleet.toml`, and each runs its part.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.fleet import placement, scraping
from pipeline.fleet.config import Fleet
from pipeline.fleet.placement import MachineStatus, Placed, Told
from pipeline.plan.loading import load

_AT_ONCE = 32  # machines that are asked


class StaticPlacement:
    """See `Placement`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def placed(self) -> Placed:
        """What the file says."""
        return placement.recall(self._fleet)

    def apply(self, fleet: Fleet, placed: Placed) -> str:
        """Write the file."""
        before = self.placed()
        placement.remember(fleet, placed)
        changed = {
            machine
            for camera in {*before.where, *placed.where}
            if before.where.get(camera) != placed.where.get(camera)
            for machine in (before.where.get(camera), placed.where.get(camera))
            if machine in fleet.names
        }
        if not changed:
            return ""
        where = ", ".join(machine for machine in fleet.names if machine in changed)
        file = placement.file_of(fleet).name
        return f"copy {file} to the machines, and start `fleet up` again on: {where}"

    def capacities(self, fleet: Fleet) -> dict[str, float]:
        """Of all: the file holds also for a machine that is not there."""
        return {machine.name: machine.capacity for machine in fleet.machines}

    def notes(self, fleet: Fleet) -> list[str]:
        """Nothing."""
        return []

    def status(self, fleet: Fleet) -> list[MachineStatus]:
        """As their metrics say, asked at the same time."""
        placed = self.placed()
        with ThreadPoolExecutor(_AT_ONCE) as asking:
            return list(asking.map(lambda name: _status(fleet, placed, name), fleet.names))

    def events(self, fleet: Fleet, *, each: bool, wanted: Told) -> Iterator[Told]:
        """Of the stores that can be read from here. Raises ConfigError if none can."""
        stores = {machine: path for machine in fleet.names for path in stores_of(fleet, machine)}
        if not stores:
            raise ConfigError(
                f"{fleet.file.name}: there is no store; add a [[sink]] with type = 'store'"
            )
        here = {machine: path for machine, path in stores.items() if path.exists()}
        if not here:
            paths = ", ".join(map(str, dict.fromkeys(stores.values())))
            raise ConfigError(
                f"{fleet.file.name}: no store can be read from here ({paths}); put them on a shared folder "
                "as '{machine}.db', or let placement = 'ray' ask the machines"
            )
        for machine, path in here.items():
            yield from events_in(path, machine, each=each, wanted=wanted)


def stores_of(fleet: Fleet, machine: str) -> Iterator[Path]:
    """The files of the stores of a machine."""
    for sink in fleet.run_of(machine, ()).get("sink", []):
        if sink["type"] == "store":
            yield fleet.file.parent / sink["path"]


def events_in(path: Path, machine: str, *, each: bool, wanted: Told) -> Iterator[Told]:
    """What a store has, each with the name of the machine. Raises ResourceError, ConfigError."""
    query = "happenings" if each else "incidents"
    for row in load(f"stages.sinks.store.query:{query}")(str(path), **wanted):
        yield {"machine": machine, **row}


def _status(fleet: Fleet, placed: Placed, name: str) -> MachineStatus:
    machine, mine = fleet.machine(name), [c for c, m in placed.where.items() if m == name]
    weight = sum(camera.weight for camera in fleet.cameras if camera.name in mine)
    state, cameras = "drained" if name in placed.drained else "idle", {}
    if mine:
        try:
            cameras = scraping.scrape(fleet.addresses[name])
            state = "serving" if cameras else "starting"
        except (OSError, ValueError) as error:
            state = f"does not answer at {fleet.addresses[name]}: {getattr(error, 'reason', error)}"
    rows = {camera: cameras.get(camera, {"state": "not served"}) for camera in mine}
    strange = {camera: row for camera, row in cameras.items() if camera not in mine}
    return MachineStatus(
        name=name, state=state, capacity=machine.capacity, share=weight / machine.capacity,
        cameras=rows | strange,
    )  # fmt: skip
