"""Whether somebody new is an object that was lost a moment ago: told by size, place and time. Pure.

A tracker that compares overlap begins a new track for an object that comes back, after it was hidden or
no picture was taken, where it did not expect it. To join such pieces by time and place alone is what
AFLink does (Du et al.: StrongSORT, 2023), learned and afterwards; here it is a gate at once, which opens
with the time, as the uncertainty of whoever went on at a constant velocity does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

# Chosen by benchmarks/tracking.py and looked at with other scenes: less of a reach joins fewer pieces,
# more of a difference in height more objects.
_REACH = 1.0  # of the box's longer side, since what is long is fast: how far from where it would be by now
_REACH_A_SECOND = 0.75  # and so much more, since who is hidden may halt or hurry
_NEW_A_SECOND = 1.5  # and so much more for who was hardly seen, whose speed nobody knows
_NEW_STEPS = 5
_ALIKE = 1.1  # at most so many times as high or as low
_SMOOTH_S = 0.4  # over which velocity and size are averaged, so that they are the same at all rates


class Place(NamedTuple):
    """Where a box is, px."""

    x: float  # of its middle
    y: float
    height: float
    width: float


@dataclass(slots=True)
class Course:
    """Where an object was seen last, how large it has been of late, and where it went."""

    at: Place
    seen_ns: int
    vx: float = 0.0  # px a second
    vy: float = 0.0
    steps: int = 0

    def see(self, at: Place, t_ns: int) -> None:
        """It is here now; not earlier than the last time."""
        seconds = (t_ns - self.seen_ns) / 1e9
        if seconds > 0:
            self.steps += 1
            weight = max(1 - math.exp(-seconds / _SMOOTH_S), 1 / self.steps)
            self.vx += weight * ((at.x - self.at.x) / seconds - self.vx)
            self.vy += weight * ((at.y - self.at.y) / seconds - self.vy)
            at = Place(
                at.x,
                at.y,
                self.at.height + weight * (at.height - self.at.height),
                self.at.width + weight * (at.width - self.at.width),
            )
        self.at, self.seen_ns = at, t_ns

    def distance(self, other: Place, t_ns: int, size_wh_px: tuple[int, int]) -> float:
        """How far from where this object would be by now; 1: as far as it may be, inf: it is no heir.

        Whoever would have left the picture by now has left, and is not who comes in there.
        """
        lost_s = (t_ns - self.seen_ns) / 1e9
        high, low = max(other.height, self.at.height), min(other.height, self.at.height)
        x, y = self.at.x + lost_s * self.vx, self.at.y + lost_s * self.vy
        has_left = not (0 <= x < size_wh_px[0] and 0 <= y < size_wh_px[1])
        if lost_s <= 0 or high > _ALIKE * low or has_left:
            return math.inf
        a_second = _REACH_A_SECOND + (_NEW_A_SECOND if self.steps < _NEW_STEPS else 0)
        reach_px = (_REACH + a_second * lost_s) * max(high, other.width, self.at.width, 1.0)
        return math.hypot(other.x - x, other.y - y) / reach_px
