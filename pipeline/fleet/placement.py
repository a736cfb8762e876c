"""What a fleet is asked and told, whoever carries it out; and who runs what, as a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import ConfigError
from pipeline.fleet.config import Fleet, known, replace_file
from pipeline.fleet.planner import Assignment, place

Told = dict[str, Any]
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Who runs what."""

    where: Mapping[str, str] = field(default_factory=dict)  # camera → machine
    drained: tuple[str, ...] = ()  # machines that are to run nothing
    machines: tuple[str, ...] = ()  # who may run something, where an engine knows that

    def drain(self, machine: str, *, drained: bool) -> Placed:
        """With a machine drained, or no more."""
        others = {name for name in self.drained if name != machine}
        return replace(self, drained=tuple(sorted(others | ({machine} if drained else set()))))


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineStatus:
    """How a machine does."""

    name: str
    state: str  # serving, starting, idle, drained, gone, or what is wrong with it in words
    capacity: float
    share: float  # of it that its cameras take
    cameras: dict[str, Told]  # name → state, captured, delivered, dropped


class Placement(Protocol):
    """What carries a fleet out: a file, or an engine. Each call takes seconds at most."""

    def placed(self) -> Placed:
        """Who runs what now. Raises ManyeyesError if it can't be known."""

    def apply(self, fleet: Fleet, placed: Placed) -> str:
        """Let it be so from now on; returns what is to be done for it by hand, or nothing."""

    def capacities(self, fleet: Fleet) -> dict[str, float]:
        """Machine → cameras, of those that something can be placed on, as far as that is known."""

    def status(self, fleet: Fleet) -> list[MachineStatus]:
        """Every machine of the fleet."""

    def notes(self, fleet: Fleet) -> list[str]:
        """What else a person has to know, a sentence each."""

    def events(self, fleet: Fleet, *, each: bool, wanted: Told) -> Iterator[Told]:
        """Incidents (each: happenings) of all machines, each with its `machine`; no order."""


def planned(fleet: Fleet, placed: Placed, capacities: Mapping[str, float]) -> Assignment:
    """What should be, with as few moves as it takes; capacities: as `Placement` has it."""
    machines = [
        replace(m, capacity=capacities[m.name], drained=m.name in placed.drained)
        for m in fleet.machines
        if m.name in capacities
    ]
    return place(fleet.cameras, machines, placed.where)


def refuse_unplaced(fleet: Fleet, assignment: Assignment) -> None:
    """Raises ConfigError for the first camera that no machine takes."""
    for camera, why in assignment.unplaced.items():
        more = len(assignment.unplaced) - 1
        others = f" ({more} more have no machine either)" if more else ""
        raise ConfigError(f"{fleet.file.name}: camera {camera!r}: {why}{others}")


def parted(fleet: Fleet, assignment: Assignment) -> Iterator[str]:
    """The names of overlaps whose cameras are not all on one machine."""
    for overlap in fleet.tables.get("overlap", []):
        cameras = {zone.partition("/")[0] for zone in overlap["zones"]}
        if len({assignment.where.get(camera) for camera in cameras}) > 1:
            yield overlap["name"]


# -- the file ------------------------------------------------------------------------------------------


def file_of(fleet: Fleet) -> Path:
    """Where it is written: beside `fleet.toml`, to be copied and kept with it."""
    return fleet.file.with_suffix(".placed.json")


def recall(fleet: Fleet) -> Placed:
    """What the file says; nothing, if there is none. Raises ConfigError for what is no such file."""
    path = file_of(fleet)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Placed()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: can't be read: {error}; remove it, and plan anew") from error
    try:
        if document["version"] != _VERSION:
            raise ValueError(f"version {document['version']}")
        where, drained = document["where"], tuple(document["drained"])
        machines = tuple(document["machines"])
        names = (*where.keys(), *where.values(), *drained, *machines)
        if not all(isinstance(name, str) for name in names):
            raise ValueError("a name that is no text")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{path}: is not what `manyeyes fleet plan --write` writes: {error}; remove it, and plan anew"
        ) from error
    return Placed(where=where, drained=drained, machines=machines)


def remember(fleet: Fleet, placed: Placed) -> None:
    """Write the file. Raises ResourceError."""
    document = {"version": _VERSION, **asdict(placed)}
    replace_file(file_of(fleet), json.dumps(document, indent=1, sort_keys=True) + "\n")


def cameras_of(fleet: Fleet, placed: Placed, machine: str) -> tuple[str, ...]:
    """What a machine is to run. Raises ConfigError if the file and the fleet do not fit."""
    known(fleet.file.name, "machine", machine, fleet.names)
    for camera in fleet.cameras:
        if placed.where.get(camera.name) not in fleet.names:
            raise ConfigError(
                f"{fleet.file.name}: camera {camera.name!r}: no machine is said for it yet; "
                f"`manyeyes fleet plan {fleet.file.name} --write` does"
            )
    return tuple(c.name for c in fleet.cameras if placed.where[c.name] == machine)
