"""Who may run a camera, as messages and as the side of those who run. Pure.

An agent reports once a second or so, and gets orders: the cameras that it may run, each with a fencing
number, for `lease_s` seconds *from the moment at which it asked*, by its own clock. The controller counts
from the moment at which it answered, which is later, and adds `GRACE_S`: so an agent that hears nothing any
more has stopped its cameras before another may start them, whatever becomes of messages. Only clocks that
run at different speeds by more than GRACE_S in a lease would break that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GRACE_S = 1.0  # for clocks that differ by 1 % over 100 s, and for a kill -9 on a busy host

PROTOCOL = 1  # of these messages
Fences = Mapping[str, int]  # camera → fencing number


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an agent tells."""

    machine: str
    session: str  # another one each time that an agent starts
    version: str  # of manyeyes
    term: int  # of the last orders that it took
    number: int
    held: Fences  # what may be running there at this moment
    protocol: int = PROTOCOL
    revision: str = ""  # of the tables that it knows
    overloaded: bool = False
    capacity: float | None = (
        None  # in cameras, as it was measured there; None: not yet, or not wanted
    )
    told: Mapping[str, Any] = field(default_factory=dict)  # how its run does, for people


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What it is answered."""

    term: int  # of the controller; a later one has a higher
    number: int  # a later one of the same controller has a higher, or the same cameras
    cameras: Fences  # what it may run
    lease_s: float
    revision: str = ""
    tables: Mapping[str, Any] | None = None  # of the fleet, if it does not know this revision
    refused: str = ""  # why it gets nothing at all


class Tenant:
    """What an agent may run, and what it holds."""

    def __init__(self, machine: str, session: str) -> None:
        self.machine, self.session = machine, session
        self.term = self.number = 0
        self.held: dict[str, int] = {}
        self.until_s = float("-inf")
        self._cameras: Fences = {}

    def take(self, orders: Orders, asked_s: float) -> bool:
        """Orders that were asked for at that moment; False: they are of the past, and change nothing."""
        if orders.refused or (orders.term, orders.number) < (self.term, self.number):
            return False
        self.term, self.number = orders.term, orders.number
        self.until_s = max(self.until_s, asked_s + orders.lease_s)
        self._cameras = dict(orders.cameras)
        return True

    def due(self, now_s: float) -> Fences:
        """What is to run now: nothing, once the lease is over."""
        return self._cameras if now_s < self.until_s else {}

    def begins(self, cameras: Fences) -> None:
        """Called before they may run."""
        self.held |= cameras

    def has_stopped(self, cameras: Fences) -> None:
        """Called when nothing runs them any more; what was begun anew since stays."""
        for camera, fence in cameras.items():
            if self.held.get(camera) == fence:
                del self.held[camera]
