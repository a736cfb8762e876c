"""What makes one plan of another while it runs, and what can't be done so. Pure.

Cameras join and leave; one that is another by now (its source, its limits) leaves and joins. One that is
read as before, and goes another way from there on, by way of another model or stage or to other sinks,
goes over to that between two frames. With them come and go the processes that nobody else needs. A stage
or sink with other settings is replaced: its name, its place in the graph and its accounts stay. All else
has to stay as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, replace
from graphlib import CycleError
from typing import Any, TypeVar

from pipeline.accounts.layout import VIEW
from pipeline.errors import ConfigError
from pipeline.plan.graph import UNDELIVERED, EdgeSpec, Plan, ProcessSpec
from pipeline.plan.offers import like

_T = TypeVar("_T")

# What follows from the cameras of a process
_OF_CAMERAS = ("cameras", "outputs", "reads", "slots", "slot_bytes", "memory_bytes")
# What a process learns at its start, and nobody else has to know
_SETTINGS = ("config", "options", "counters", "histograms", "files", "secrets")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Cameras and processes by name."""

    joins: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()  # cameras that leave and join as something else
    moves: tuple[str, ...] = ()  # cameras that go another way, to another model or in another order
    starts: tuple[str, ...] = ()  # processes
    stops: tuple[str, ...] = ()
    renews: tuple[str, ...] = ()  # those that get other settings, and so are replaced

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in dataclasses.fields(self))

    def lines(self) -> list[str]:
        """For a person; none if there is no difference."""
        said = {
            "leaves": self.leaves,
            "joins": self.joins,
            "is read anew, as it is configured now": self.changes,
            "goes over to other processes": self.moves,
        }
        lines = [f"camera {name!r} {does}" for does, names in said.items() for name in names]
        for does, names in (
            ("started", self.starts),
            ("ended", self.stops),
            ("started anew, with other settings", self.renews),
        ):
            if names:
                lines.append(f"{does}: {', '.join(names)}")
        return lines


def between(old: Plan, new: Plan) -> Difference:
    """What makes `new` of `old`. Raises ConfigError for what only a new start can do."""
    if old.policy != new.policy:
        raise _refusal(f"the policy would be {new.policy!r} and not {old.policy!r}")
    both = (camera for camera in new.cameras if camera in old.cameras)
    others = [camera for camera in both if differs(old, new, camera)]
    common = old.by_name.keys() & new.by_name.keys()
    busy = {n for n in common if old.by_name[n].cameras and new.by_name[n].cameras}
    for name, spec in old.by_name.items():
        if name in common and spec.role != "source":  # that is its camera's own; see _part
            _check_same(spec, new.by_name[name], busy)
    starts = tuple(name for name in new.by_name if name not in old.by_name)
    stops = tuple(name for name in old.by_name if name not in new.by_name)
    moves = (camera for camera in others if may_move(old, new, camera))
    return Difference(
        joins=tuple(camera for camera in new.cameras if camera not in old.cameras),
        leaves=tuple(camera for camera in old.cameras if camera not in new.cameras),
        changes=tuple(camera for camera in others if not may_move(old, new, camera)),
        moves=tuple(
            camera
            for camera in moves
            if not (starts or stops) or _models(old, camera) != _models(new, camera)
        ),
        starts=starts,
        stops=stops,
        renews=tuple(
            name
            for name, spec in old.by_name.items()
            if name in common and spec.role != "source" and not is_set(spec, new.by_name[name])
        ),
    )


def differs(old: Plan, new: Plan, camera: str) -> bool:
    """Whether a camera of both plans is not the same in both."""
    return _part(old, camera) != _part(new, camera)


def may_move(old: Plan, new: Plan, camera: str) -> bool:
    """Whether it is read in the same way in both plans, so that it can go over between two frames."""
    name = old.sources[camera]
    if new.sources[camera] != name:
        return False
    at_old, at_new = (
        {spec.name for spec in plan.processes if camera in spec.cameras} for plan in (old, new)
    )
    before, after = (_facts(p.by_name[name], camera, at_old & at_new) for p in (old, new))
    return before == after


def is_same(old: ProcessSpec, new: ProcessSpec) -> bool:
    """Whether one process can be both, whatever their cameras, and to whom it sends."""
    return _facts(old, edges_to=frozenset()) == _facts(new, edges_to=frozenset())


def with_settings(old: ProcessSpec, new: ProcessSpec) -> ProcessSpec:
    """A process with the settings of another of its name, for the cameras and edges that it has."""
    fields = (*_SETTINGS, "slot_bytes", "memory_bytes")
    return replace(old, **{name: getattr(new, name) for name in fields})


def renewed(running: Plan, wanted: ProcessSpec) -> Plan:
    """`running` when the process of that name has got these settings."""
    processes = (
        with_settings(spec, wanted) if spec.name == wanted.name else spec
        for spec in running.processes
    )
    return replace(running, processes=tuple(processes))


def is_set(old: ProcessSpec, new: ProcessSpec) -> bool:
    """Whether one process has the settings of the other."""
    before, after = _facts(old), _facts(new)
    return all(before[name] == after[name] for name in _SETTINGS)


def joined(running: Plan, target: Plan, cameras: Set[str]) -> Plan:
    """`running`, and these cameras as `target` has them, and the processes that it wants beside them."""
    processes: dict[str, ProcessSpec] = dict(running.by_name)
    for spec in target.processes:
        mine = spec.of(cameras)
        if spec.role == "source" and not mine.cameras:
            here = [c for c in spec.cameras if c in running.cameras and c in target.cameras]
            if spec.name not in processes or not all(may_move(running, target, c) for c in here):
                continue  # its camera is here already as another one, or joins later
        if spec.name in processes:
            processes[spec.name] = _merged(processes[spec.name], mine)
        else:
            processes[spec.name] = like(running, mine)
    there = processes.keys()
    specs = (replace(s, reads=tuple(r for r in s.reads if r in there)) for s in processes.values())
    new = (camera for camera in target.cameras if camera in cameras)
    return replace(running, cameras=(*running.cameras, *new), processes=tuple(specs))


def beside(running: Plan, target: Plan) -> Plan:
    """What runs, and all processes and edges of `target`. Raises ConfigError if these are a circle."""
    everything = joined(running, target, set())
    try:
        everything.order()
    except CycleError as error:
        names = ", ".join(sorted({*error.args[1]}))
        raise _refusal(f"{names} would be in another order") from error
    return everything


def without(running: Plan, camera: str | None = None, processes: Iterable[str] = ()) -> Plan:
    """`running` when a camera has left, and these processes have ended."""
    gone = [running.by_name[name] for name in processes]
    kept = tuple(c for c in running.cameras if c != camera)
    specs = (spec.of({*kept}) for spec in running.processes if spec not in gone)
    return replace(running, cameras=kept, processes=tuple(apart(spec, gone) for spec in specs))


def apart(spec: ProcessSpec, gone: Iterable[ProcessSpec]) -> ProcessSpec:
    """A process when these have ended, and with the sinks among them their ways."""
    names = {other.name for other in gone}
    ways = {way for other in gone if other.role == "sink" for way in other.paths}

    def left(paths: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(path for path in paths if path not in ways)

    outputs = (edge for edge in spec.outputs if edge.consumer not in names)
    return replace(
        spec,
        outputs=tuple(replace(edge, paths=left(edge.paths)) for edge in outputs),
        reads=tuple(name for name in spec.reads if name not in names),
        paths=left(spec.paths),
    )


def wired(plan: Plan, names: Set[str]) -> list[set[str]]:
    """These processes in groups, those together that feed one another, also by way of others of them."""
    groups: list[set[str]] = []
    for name in names:
        near = {name} | (names & {*plan.producers(name)})
        near.update(*(group for group in groups if group & near))
        groups = [group for group in groups if not group & near] + [near]
    return groups


def rearranged(running: Plan, target: Plan, camera: str) -> frozenset[str]:
    """Those of `turns` whose next frames could overtake earlier ones, to somebody who had these, too."""
    now, wanted = running.by_name, target.by_name

    def is_it(name: str) -> bool:
        before, after = ({c for c, _ in _consumers(p[name], camera)} for p in (now, wanted))
        stays = {c for c in before ^ after if c in now and c in wanted and camera in now[c].cameras}
        between = {c for c in after - before if wanted[c].role != "sink" and _is_behind(wanted[c])}
        return bool(stays | between)

    return frozenset(
        name
        for name in turns(running, target, camera)
        if (now[name].delivers or _is_behind(now[name])) and is_it(name)
    )


def turns(running: Plan, target: Plan, camera: str) -> frozenset[str]:
    """The processes that send frames of a camera to others than before when it goes over."""
    return frozenset(
        spec.name
        for spec in target.processes
        if camera in spec.cameras
        and (now := running.by_name.get(spec.name)) is not None
        and camera in now.cameras
        and _consumers(now, camera) != _consumers(spec, camera)
    )


def moving(running: Plan, target: Plan, camera: str) -> Plan:
    """`running` while a camera goes over to what `target` has for it: it still is at the old, too."""
    processes = dict(running.by_name)
    for spec in target.processes:
        if camera in spec.cameras:
            now = processes[spec.name]
            is_new = camera not in now.cameras
            processes[spec.name] = (
                _merged(now, spec.of({camera})) if is_new else _turned(now, spec, camera)
            )
    return replace(running, processes=tuple(processes.values()))


def moved(running: Plan, target: Plan, camera: str) -> Plan:
    """`running` when nothing of a camera is left where `target` does not have it."""
    here = {spec.name for spec in target.processes if camera in spec.cameras}
    specs = (s if s.name in here else s.of({*s.cameras} - {camera}) for s in running.processes)
    return replace(running, processes=tuple(specs))


def _turned(spec: ProcessSpec, wanted: ProcessSpec, camera: str) -> ProcessSpec:
    """A process that sends the frames of a camera where `wanted` does, and nowhere else."""
    to = dict(_consumers(wanted, camera))

    def of(edge: EdgeSpec) -> EdgeSpec:
        if edge.consumer in to:
            cameras = _both(edge.cameras, (camera,))
            return replace(edge, cameras=cameras, max_hz=to[edge.consumer])
        return replace(edge, cameras=tuple(c for c in edge.cameras if c != camera))

    return _resized(spec, tuple(map(of, spec.outputs)))


def _consumers(spec: ProcessSpec, camera: str) -> set[tuple[str, float | None]]:
    """Who gets its frames of a camera, and how many a second at most."""
    return {(edge.consumer, edge.max_hz) for edge in spec.outputs if camera in edge.cameras}


def _merged(old: ProcessSpec, more: ProcessSpec) -> ProcessSpec:
    """A process that gets the cameras and edges of `more`, which is the same one for other cameras."""
    added = {edge.consumer: edge for edge in more.outputs}

    def both(edge: EdgeSpec) -> EdgeSpec:
        if (other := added.pop(edge.consumer, None)) is None:
            return edge
        # who is behind the end of a path has to know all ways before a frame is offered on them
        paths = edge.paths if old.delivers else _both(edge.paths, other.paths)
        return replace(edge, cameras=_both(edge.cameras, other.cameras), paths=paths)

    outputs = [*map(both, old.outputs)]
    merged = replace(
        old,
        paths=_both(old.paths, more.paths),
        counters=_both(old.counters, more.counters),
        cameras=_both(old.cameras, more.cameras),
        reads=_both(old.reads, more.reads),
        slot_bytes=max(old.slot_bytes, more.slot_bytes),
    )
    return _resized(merged, (*outputs, *added.values()))


def _both(first: tuple[_T, ...], second: tuple[_T, ...]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys((*first, *second)))


def _resized(spec: ProcessSpec, outputs: tuple[EdgeSpec, ...]) -> ProcessSpec:
    """With other edges, and the slots for them."""
    beside_edges = spec.slots - sum(edge.slots for edge in spec.outputs)
    slots = beside_edges + sum(edge.slots for edge in outputs) if spec.slots else 0
    return replace(spec, outputs=outputs, slots=slots)


def _part(plan: Plan, camera: str) -> list[Any]:
    """All that a plan says of one camera: how it is read, and who gets its frames."""
    parts: list[Any] = []
    for spec in plan.processes:
        if camera not in spec.cameras:
            continue
        parts.append((spec.name, sorted(_consumers(spec, camera), key=str)))
        if spec.role == "source":
            parts.append(_facts(spec, camera))
    return sorted(parts, key=str)


def _check_same(old: ProcessSpec, new: ProcessSpec, both: Set[str]) -> None:
    """But for settings, which may be others.

    both: processes that work in both plans; to others it may send as it likes.
    """
    before, after = _facts(old, edges_to=both), _facts(new, edges_to=both)
    changed = [key for key in before if before[key] != after[key]]
    may_change = _SETTINGS if old.role in ("stage", "join", "sink") else ()
    if old.delivers or _is_behind(old):
        may_change = (*may_change, "edges")
    if not {*may_change}.issuperset(changed):
        keys = _keys(changed, before, after)
        raise _refusal(f"{old.name!r} would be another one ({', '.join(keys)})")


def _keys(changed: list[str], before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    for key in changed:
        if not (isinstance(before[key], dict) and isinstance(after[key], dict)):
            yield key
            continue
        keys = before[key].keys() | after[key].keys()
        yield from sorted(k for k in keys if before[key].get(k) != after[key].get(k))


def _facts(
    spec: ProcessSpec, camera: str | None = None, edges_to: Set[str] | None = None
) -> dict[str, Any]:
    """What a process is, whatever its cameras; camera, edges_to: of its edges those for it, to them."""
    fields = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec)}
    facts = {name: value for name, value in fields.items() if name not in _OF_CAMERAS}
    if spec.role != "sink":
        facts["paths"] = _of_frames(spec.paths)
    # what is counted of an edge comes and goes with it
    facts["counters"] = tuple(c for c in spec.counters if not c.startswith(UNDELIVERED))
    edges = (
        edge
        for edge in spec.outputs
        if (camera is None or camera in edge.cameras)
        and (edges_to is None or edge.consumer in edges_to)
    )
    return facts | {"edges": sorted(map(_bare, edges), key=str)}


def _bare(edge: EdgeSpec) -> EdgeSpec:
    return replace(edge, cameras=(), paths=_of_frames(edge.paths), max_hz=None)


def _of_frames(ways: tuple[int, ...]) -> tuple[int, ...]:
    """The paths among them; sinks come and go."""
    return tuple(way for way in ways if way <= VIEW)


def _is_behind(spec: ProcessSpec) -> bool:
    """Whether it comes after the end of a path, or beside all paths."""
    return not _of_frames(spec.paths)


def _models(plan: Plan, camera: str) -> set[str]:
    """The processes of the models that look at a camera."""
    return {s.name for s in plan.processes if s.role == "batch" and camera in s.cameras}


def _refusal(what: str) -> ConfigError:
    return ConfigError(
        f"{what}: while a run goes on its cameras, models, stages and sinks can come and go, stages and "
        "sinks get other settings, and nothing else; stop it and start it again"
    )
