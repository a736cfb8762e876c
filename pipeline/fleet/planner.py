"""Cameras on machines: which machine runs which camera, with few moves. Pure.

What is in its place stays there. A camera that has none gets a machine that has what it needs and room,
by this order: near to it, with those that it is compared with and without those that see the same, the
emptiest. If all of those are full, others make room (a shortest chain of moves: with cameras of equal
weight one is found if there is any). Then what is far from its place, or on a machine much fuller than
another, may move; in a plan in which somebody had to move, only those.

Cameras come in the order of importance: where there is not room for all, the last go without.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

EVEN_GAP = 0.25  # a share of capacity: what differs less is not worth a camera's pause
_EPS = 1e-9  # weights are sums of decimal fractions


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """What has to be placed."""

    name: str
    weight: float = 1.0  # in cameras of the machines' capacity
    needs: frozenset[str] = frozenset()  # labels that a machine must have
    near: str | None = None  # where it hangs
    overlaps: frozenset[str] = frozenset()  # cameras that see some of the same: rather apart
    together: frozenset[str] = (
        frozenset()
    )  # cameras whose objects are compared: rather on one machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where it can be placed."""

    name: str
    capacity: float  # in cameras
    labels: frozenset[str] = frozenset()
    near: str | None = None  # where it stands
    drained: bool = False  # runs nothing, and takes nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A camera that is to change its machine."""

    camera: str
    source: str | None  # None: it has none yet
    target: str | None  # None: there is none for it
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Who runs what, and what is different from before."""

    where: Mapping[str, str]  # camera → machine
    moves: tuple[Move, ...]
    unplaced: Mapping[str, str]  # camera → why, and what would help

    def on(self, machine: str) -> tuple[str, ...]:
        """The cameras of a machine."""
        return tuple(camera for camera, where in self.where.items() if where == machine)


def place(
    cameras: Sequence[Camera],
    machines: Sequence[Machine],
    before: Mapping[str, str] | None = None,
    *,
    improve: bool = True,
) -> Assignment:
    """A machine for every camera, as far as there is room.

    before: camera → machine, as it is now; may name what is no more. improve: also move what could stay.
    Names are unique, weights and capacities >= 0. The same arguments give the same result.
    """
    board = _Board(cameras, machines)
    pending = board.keep(before or {})
    for camera in board.cameras.values():
        if camera.name in pending:
            board.find_place(camera, pending[camera.name])
    if improve:
        moved = [name for name in board.why if name in board.where]
        board.improve(
            [board.cameras[name] for name in moved] if pending else board.cameras.values()
        )
    return board.assignment(before or {})


@dataclass(slots=True)
class _Load:
    """What a machine has."""

    machine: Machine
    cameras: dict[str, Camera] = field(default_factory=dict)
    weight: float = 0.0

    @property
    def room(self) -> float:
        return self.machine.capacity - self.weight + _EPS

    @property
    def share(self) -> float:
        return self.share_with(0.0)

    def share_with(self, weight: float) -> float:
        """Of its capacity, with so much more."""
        return (self.weight + weight) / max(self.machine.capacity, _EPS)


class _Board:
    """A placement in the making."""

    def __init__(self, cameras: Sequence[Camera], machines: Sequence[Machine]) -> None:
        self.cameras = {camera.name: camera for camera in cameras}
        self.where: dict[str, str] = {}
        self.why: dict[str, str] = {}
        self.unplaced: dict[str, str] = {}
        self._apart = _mutual({camera.name: camera.overlaps for camera in cameras})
        self._together = _mutual({camera.name: camera.together for camera in cameras})
        self._machines = {machine.name: machine for machine in machines}
        self._loads = {m.name: _Load(m) for m in machines if not m.drained}
        self._wanted = frozenset[str]().union(*(camera.needs for camera in cameras))
        self._able: dict[frozenset[str], list[_Load]] = {}
        self._full: dict[frozenset[str], float] = {}  # needs → the least weight that found no room

    # -- what stays ----------------------------------------------------------------------------------

    def keep(self, before: Mapping[str, str]) -> dict[str, str]:
        """Put everything where it was; returns what can't stay: camera → why."""
        pending: dict[str, str] = {}
        for camera in self.cameras.values():
            if (name := before.get(camera.name)) is None:
                pending[camera.name] = "it is new"
            elif why := self._unfit(camera, name):
                pending[camera.name] = why
            else:
                self._put(camera, self._loads[name])
        for load in self._loads.values():
            while load.room < 0:
                out = _least_missed(load)
                self._take(out)
                pending[out.name] = (
                    f"{load.machine.name} takes {load.machine.capacity:g} cameras, and has more"
                )
        return pending

    def _unfit(self, camera: Camera, name: str) -> str:
        if name not in self._machines:
            return f"{name} is gone"
        machine = self._machines[name]
        if machine.drained:
            return f"{name} is drained"
        if missing := sorted(camera.needs - machine.labels):
            return f"{name} has no {missing[0]!r}"
        return ""

    # -- a place for one -------------------------------------------------------------------------------

    def find_place(self, camera: Camera, why: str) -> None:
        """The best machine with room, or one where others make room."""
        able = self._able_for(camera)
        free = [load for load in able if load.room >= camera.weight]
        if free:
            self._put(camera, min(free, key=lambda load: self._rank(camera, load)))
        elif not self._make_room(camera, able):
            self.unplaced[camera.name] = self._why_not(camera, able)
            return
        self.why[camera.name] = why

    def _able_for(self, camera: Camera) -> list[_Load]:
        if camera.needs not in self._able:
            self._able[camera.needs] = [
                load for load in self._loads.values() if camera.needs <= load.machine.labels
            ]
        return self._able[camera.needs]

    def _rank(self, camera: Camera, load: _Load) -> tuple[bool, int, float, str]:
        company = sum(other in load.cameras for other in self._apart[camera.name])
        company -= sum(other in load.cameras for other in self._together[camera.name])
        share = load.share_with(camera.weight) + EVEN_GAP * self._spoiled(camera, load)
        return _is_far(camera, load), company, share, load.machine.name

    def _spoiled(self, camera: Camera, load: _Load) -> int:
        """How many labels that it does not need it would take from those who do."""
        return len((load.machine.labels & self._wanted) - camera.needs)

    def _make_room(self, camera: Camera, able: list[_Load]) -> bool:
        """A shortest chain: it goes where another leaves for where there is room, or another leaves …"""
        if camera.weight >= self._full.get(camera.needs, float("inf")):
            return False  # nobody has gone since
        start: dict[str, tuple[Camera, Camera] | None] = {load.machine.name: None for load in able}
        came = dict(start)  # machine → (who leaves another for it, in favour of whom)
        queue = deque((load, camera) for load in able)
        while queue:
            load, comer = queue.popleft()
            for leaver in sorted(load.cameras.values(), key=lambda c: (c.weight, c.name)):
                if load.room + leaver.weight < comer.weight or leaver is comer:
                    continue
                for target in self._able_for(leaver):
                    name = target.machine.name
                    if name in came:
                        continue
                    came[name] = leaver, comer
                    if target.room >= leaver.weight:
                        self._shift(camera, target, came)
                        return True
                    queue.append((target, leaver))
        self._full[camera.needs] = camera.weight
        return False

    def _shift(
        self, camera: Camera, target: _Load, came: Mapping[str, tuple[Camera, Camera] | None]
    ) -> None:
        """Carry out a chain, from its end: who leaves goes to `target`, then who wanted its place."""
        while (step := came[target.machine.name]) is not None:
            leaver, comer = step
            left = self._loads[self.where[leaver.name]]
            self._take(leaver)
            self._put(leaver, target)
            self.why.setdefault(leaver.name, f"it makes room for {camera.name!r}")
            target = left
            if comer is camera:
                break
        self._put(camera, target)

    def _why_not(self, camera: Camera, able: list[_Load]) -> str:
        needs = " and ".join(map(repr, sorted(camera.needs)))
        if not self._loads:
            return "there is no machine that takes cameras; add a [[machine]], or end a drain"
        if not able:
            return f"no machine has {needs}; add it to the labels of one, or take it out of needs"
        names = ", ".join(load.machine.name for load in able)
        who = f"the machines with {needs} ({names})" if needs else f"all machines ({names})"
        most = max(load.machine.capacity for load in able)
        if most + _EPS < camera.weight:
            return (
                f"it weighs {camera.weight:g}, and {who} take {most:g} at most; name a larger one"
            )
        used, total = (
            sum(x) for x in zip(*((o.weight, o.machine.capacity) for o in able), strict=True)
        )
        return (
            f"{who} are full, with {used:g} of {total:g} cameras, and it weighs {camera.weight:g}; "
            "add a machine, or measure their capacity again"
        )

    # -- what could be better --------------------------------------------------------------------------

    def improve(self, movable: Iterable[Camera]) -> None:
        """Bring cameras near, then even out; each step makes it better, so it ends."""
        movable = [camera for camera in movable if camera.name in self.where]
        for camera in movable:
            if not _is_far(camera, self._loads[self.where[camera.name]]):
                continue
            near = [
                load
                for load in self._able_for(camera)
                if not _is_far(camera, load) and load.room >= camera.weight
            ]
            if near:
                load = min(near, key=lambda load: self._rank(camera, load))
                self._move(camera, load, f"{load.machine.name} is near {camera.near}")
        names = {camera.name for camera in movable}
        while (step := self._evener(names)) is not None:
            camera, load = step
            full = self._loads[self.where[camera.name]]
            shares = f"{full.share:.0%} and {load.share:.0%}"
            self._move(camera, load, f"{full.machine.name} and {load.machine.name} have {shares}")

    def _evener(self, movable: set[str]) -> tuple[Camera, _Load] | None:
        """The next step from a full machine to an empty one; None: all is even, or nobody may move."""
        by_share = sorted(self._loads.values(), key=lambda load: (load.share, load.machine.name))
        for full in reversed(by_share):
            for empty in by_share:
                if full.share - empty.share <= EVEN_GAP:
                    break
                found = [
                    (gain, camera.name)
                    for camera in full.cameras.values()
                    if camera.name in movable and (gain := self._gain(camera, full, empty)) > _EPS
                ]
                if found:
                    return self.cameras[max(found)[1]], empty
        return None

    def _gain(self, camera: Camera, full: _Load, empty: _Load) -> float:
        """By how much the sum of load² / capacity falls; 0: it must not go there."""
        w = camera.weight
        left = w * (2 * full.weight - w) / full.machine.capacity
        gain = left - w * (2 * empty.weight + w) / max(empty.machine.capacity, _EPS)
        if gain <= 0 or empty.room < w or not camera.needs <= empty.machine.labels:
            return 0.0
        spoils = self._spoiled(camera, empty) > self._spoiled(camera, full)
        worse = self._rank(camera, empty)[:2] > self._rank(camera, full)[:2]
        return 0.0 if spoils or worse else gain

    # -- the board ---------------------------------------------------------------------------------------

    def _put(self, camera: Camera, load: _Load) -> None:
        load.cameras[camera.name] = camera
        load.weight += camera.weight
        self.where[camera.name] = load.machine.name

    def _take(self, camera: Camera) -> None:
        load = self._loads[self.where.pop(camera.name)]
        del load.cameras[camera.name]
        load.weight = sum(c.weight for c in load.cameras.values())  # not less and less exact

    def _move(self, camera: Camera, load: _Load, why: str) -> None:
        self._take(camera)
        self._put(camera, load)
        self.why.setdefault(camera.name, why)

    def assignment(self, before: Mapping[str, str]) -> Assignment:
        """What came of it, in the order of the cameras."""
        return Assignment(
            where={name: self.where[name] for name in self.cameras if name in self.where},
            moves=tuple(self._moves(before)),
            unplaced=self.unplaced,
        )

    def _moves(self, before: Mapping[str, str]) -> Iterator[Move]:
        for name in self.cameras:
            source, target = before.get(name), self.where.get(name)
            if source != target:
                why = self.unplaced.get(name) or self.why[name]
                yield Move(camera=name, source=source, target=target, why=why)


def _is_far(camera: Camera, load: _Load) -> bool:
    return camera.near is not None and camera.near != load.machine.near


def _least_missed(load: _Load) -> Camera:
    """Who has to leave a machine that is too full, so that few do: the lightest that suffices, or the
    heaviest; of equals the least important, which came last.
    """
    cameras = list(load.cameras.values())[::-1]
    enough = [camera for camera in cameras if load.room + camera.weight >= 0]
    if enough:
        return min(enough, key=lambda camera: camera.weight)
    return max(cameras, key=lambda camera: camera.weight)


def _mutual(told: Mapping[str, frozenset[str]]) -> dict[str, set[str]]:
    """Who belongs to whom, both ways, whoever of the two says so."""
    known: dict[str, set[str]] = {name: set() for name in told}
    for name, others in told.items():
        for other in others & known.keys() - {name}:
            known[name].add(other)
            known[other].add(name)
    return known
