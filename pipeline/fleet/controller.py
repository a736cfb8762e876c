"""Who runs which camera, decided while machines come, go, and are overloaded. Pure.

Nothing here waits, reads a clock or talks to anybody: agents report, and each call says what time it is, in
seconds of one clock that never goes back. A camera belongs to one machine until that has said that it does
not run it any more, or until its lease is over; only then another gets it.

A controller that begins, for the first time or again, moves nothing until every machine that may run
something has said what it runs, or its lease is over.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, replace

from pipeline.errors import ManyeyesError
from pipeline.fleet.config import Fleet
from pipeline.fleet.leases import GRACE_S, PROTOCOL, Orders, Report
from pipeline.fleet.placement import Placed
from pipeline.fleet.planner import Machine, Move, place

CALM_S = 3.0  # so long nobody must have come or gone before a camera moves that could stay
RELIEF_S = 600.0  # so long an overloaded machine is taken to bear less than its certificate says
_FENCES = 1 << 32  # of one term


class Superseded(ManyeyesError):
    """An agent has obeyed a later controller than this one, which has to end."""


@dataclass(slots=True)
class _Member:
    """A machine whose agent has a lease."""

    session: str
    until_s: float = math.inf  # of our clock: from then on it runs nothing
    number: int = 0  # of its last orders
    cameras: dict[str, int] = field(default_factory=dict)  # → fence
    leaving: dict[str, tuple[int, int]] = field(
        default_factory=dict
    )  # → fence, number of the orders
    report: Report | None = None


class Controller:
    """Of one fleet."""

    def __init__(self, fleet: Fleet, placed: Placed, *, term: int, now_s: float) -> None:
        """placed: what is known of before; term: higher than that of any controller before."""
        self.fleet, self.term = fleet, term
        self.drained = set(placed.drained)
        self.unplaced: dict[str, str] = {}
        self._refused: dict[str, tuple[str, float]] = {}  # session of an agent → why, until when
        self.moves: deque[Move] = deque(maxlen=1000)  # the last ones
        self._where = dict(placed.where)  # where each camera is to be
        self._owner: dict[str, str] = {}  # who runs it, or has not said that it has stopped
        self._members: dict[str, _Member] = {}
        self._known = {*fleet.names, *placed.machines}  # who may run something
        self._relief: dict[str, tuple[float, float]] = {}  # machine → capacity, until when
        self._fence = term * _FENCES
        self._number = 0  # of the last orders that were others than before
        self._is_open = False  # somebody has what another is to have, or nobody has it
        self._begin(now_s)

    def _begin(self, now_s: float) -> None:
        self._awaited = set(self._known)
        self._gather_until_s = now_s + self.fleet.settings.lease_s + GRACE_S
        self._change(now_s)

    def _change(self, now_s: float) -> None:
        """Somebody came or went, or something else is wanted."""
        self._must_plan, self._may_improve_s = True, now_s + CALM_S

    # -- what is asked of it -----------------------------------------------------------------------

    def apply(self, fleet: Fleet, drained: set[str], now_s: float) -> None:
        """Another fleet from now on."""
        self.fleet, self.drained = fleet, drained
        self._known |= set(fleet.names)
        self._change(now_s)
        self.turn(now_s)

    def report(self, report: Report, now_s: float) -> Orders:
        """An agent's report, and what it is answered. Raises Superseded."""
        if (report.term, report.number) > (self.term, self._number):
            if not self._is_gathering(now_s):
                raise Superseded(f"{report.machine} has obeyed a later controller")
            self.term = report.term + 1  # what was kept of those before was lost
            self._fence = self.term * _FENCES
            self._begin(now_s)
        self.turn(now_s)
        if why := self._refusal(report):
            self._refused[report.session] = why, now_s + self.fleet.settings.lease_s
            return Orders(term=self.term, number=0, cameras={}, lease_s=0.0, refused=why)
        member = self._members.get(report.machine)
        if member is None:
            member = self._members[report.machine] = _Member(report.session)
            self._renumber(member)
            self._known.add(report.machine)
            self._change(now_s)
        self._refused.pop(report.session, None)
        self._hear(member, report, now_s)
        self.turn(now_s)
        return self._orders(member, report.revision)

    def turn(self, now_s: float) -> None:
        """Let go of who is late, and plan; to be called once a second or so, if nobody reports."""
        for name, member in list(self._members.items()):
            if member.until_s <= now_s:
                del self._members[name]
                self._owner = {c: m for c, m in self._owner.items() if m != name}
                self._change(now_s)
        self._refused = {who: it for who, it in self._refused.items() if it[1] > now_s}
        if self._is_gathering(now_s):
            return
        if self._must_plan:  # who must move does at once, who could stay when it has been calm
            self._plan(now_s, improve=False)
        elif self._may_improve_s <= now_s:
            self._may_improve_s = math.inf
            self._plan(now_s, improve=True)
        if self._is_open:
            self._hand_over()

    # -- who is there ------------------------------------------------------------------------------

    def _is_gathering(self, now_s: float) -> bool:
        if self._awaited and now_s >= self._gather_until_s:
            self._awaited.clear()
            self._known = {*self._members, *self.fleet.names}
        return bool(self._awaited)

    def _refusal(self, report: Report) -> str:
        if report.machine not in self.fleet.names and report.machine not in self._members:
            return (
                f"{self.fleet.file.name}: a machine {report.machine!r} has come that is not in it, so its "
                "capacity is unknown; add a [[machine]] with cameras or certificate"
            )
        if report.protocol != PROTOCOL:
            return (
                f"machine {report.machine!r} has manyeyes {report.version}, which this controller does not "
                "understand; install the same version on both"
            )
        member = self._members.get(report.machine)
        if member is not None and member.session != report.session:
            return f"machine {report.machine!r} is still held by another agent; it is tried again"
        return ""

    def _hear(self, member: _Member, report: Report, now_s: float) -> None:
        member.until_s = now_s + self.fleet.settings.lease_s + GRACE_S
        if member.report is None or member.report.capacity != report.capacity:
            self._change(now_s)
        member.report = report
        if self._is_gathering(now_s):
            self._awaited.discard(report.machine)
            for camera, fence in report.held.items():
                if camera not in self._owner:
                    member.cameras[camera] = fence
                    self._owner[camera] = self._where[camera] = report.machine
        taken = report.number if report.term == self.term else -1
        for camera, (_, number) in list(member.leaving.items()):
            if taken >= number and camera not in report.held:
                del member.leaving[camera], self._owner[camera]
                self._is_open = True
        if report.overloaded:
            self._relieve(report.machine, now_s)

    def _orders(self, member: _Member, revision: str) -> Orders:
        known = revision == self.fleet.revision
        return Orders(
            term=self.term, number=member.number, cameras=dict(member.cameras),
            lease_s=self.fleet.settings.lease_s, revision=self.fleet.revision,
            tables=None if known else self.fleet.raw,
        )  # fmt: skip

    # -- the plan ----------------------------------------------------------------------------------

    def _plan(self, now_s: float, *, improve: bool) -> None:
        found = place(self.fleet.cameras, self._machines(now_s), self._where, improve=improve)
        if found.unplaced and self._relief:  # better served late than not at all
            self._relief.clear()
            found = place(self.fleet.cameras, self._machines(now_s), self._where, improve=improve)
        self.moves.extend(found.moves)
        self._where, self.unplaced = dict(found.where), dict(found.unplaced)
        self._must_plan, self._is_open = False, True

    def _machines(self, now_s: float) -> list[Machine]:
        """Those that are there, as they are now."""
        self._relief = {name: it for name, it in self._relief.items() if it[1] > now_s}
        capacities = {**self.capacities, **{name: c for name, (c, _) in self._relief.items()}}
        return [
            replace(
                machine, capacity=capacities[machine.name], drained=machine.name in self.drained
            )
            for machine in self.fleet.machines
            if machine.name in capacities and machine.name in self._members
        ]

    def _relieve(self, name: str, now_s: float) -> None:
        """Let the lightest camera of an overloaded machine go, if another has room for it."""
        weights = [c.weight for c in self.fleet.cameras if self._where.get(c.name) == name]
        if name in self._relief or len(weights) < 2 or self._is_gathering(now_s):
            return
        self._relief[name] = sum(weights) - min(weights), now_s + RELIEF_S
        found = place(self.fleet.cameras, self._machines(now_s), self._where, improve=False)
        if len(found.unplaced) > len(self.unplaced):
            del self._relief[name]
        else:
            self._change(now_s)

    # -- handing over ------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        """Take cameras from those who are not to have them, give those that nobody has."""
        for camera, owner in list(self._owner.items()):
            member, stays = self._members[owner], self._where.get(camera) == owner
            if stays and camera in member.leaving:
                member.cameras[camera] = member.leaving.pop(camera)[0]
                self._renumber(member)
            elif not stays and camera in member.cameras:
                self._renumber(member)
                member.leaving[camera] = member.cameras.pop(camera), member.number
        for camera, wanted in self._where.items():
            if camera not in self._owner and wanted in self._members:
                self._fence += 1
                self._owner[camera] = wanted
                self._members[wanted].cameras[camera] = self._fence
                self._renumber(self._members[wanted])
        self._is_open = False

    def _renumber(self, member: _Member) -> None:
        self._number += 1
        member.number = self._number

    # -- what is known -----------------------------------------------------------------------------

    @property
    def placed(self) -> Placed:
        """To be kept for the next controller, before an answer of `report` goes out."""
        return Placed(
            where=dict(self._where),
            drained=tuple(sorted(self.drained)),
            machines=tuple(sorted(self._known)),
        )

    @property
    def reports(self) -> dict[str, Report]:
        """The last one of each machine that is there."""
        return {name: m.report for name, m in self._members.items() if m.report is not None}

    @property
    def refused(self) -> list[str]:
        """Why agents that have asked lately get nothing."""
        return sorted({why for why, _ in self._refused.values()})

    @property
    def capacities(self) -> dict[str, float]:
        """Machine → cameras; without those that are measured when they join, and were not yet."""
        known = {
            m.name: m.capacity for m in self.fleet.machines if m.name not in self.fleet.measured_hz
        }
        told = {name: report.capacity for name, report in self.reports.items()}
        return known | {n: c for n in self.fleet.measured_hz if (c := told.get(n)) is not None}

    @property
    def owners(self) -> dict[str, str]:
        """Camera → the machine that runs it, or has not said that it has stopped."""
        return dict(self._owner)
