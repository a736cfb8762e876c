"""The own clock of a recording, and when each of its pictures is due."""

from __future__ import annotations

import time

MAX_LAG_S = 1.0  # behind by more than this, play on from here instead of catching up in a burst
MAX_WAIT_S = 60.0  # a jump ahead by more than this is not waited for
MAX_STEP_NS = 30 * 3600 * 10**9  # of a clock that does not jump: a time-lapse has long steps
MAX_BROKEN_STEP_NS = 10 * 10**9  # of one that jumps where a stream was cut, as in MPEG-TS
TURN_S = 1.0  # that one call waits at most


class RecordingClock:
    """Time of the pictures of a recording, growing over laps, on the monotonic clock.

    Every due time is counted from one anchor and not from the picture before, so that late sleeps
    never add up. Where the recording's own clock goes back, or jumps, one step goes by.

    >>> clock = RecordingClock()
    >>> clock.start_lap(step_ns=40)
    >>> [clock.tick(own_ns) and clock.pts_ns for own_ns in (1000, 1040, None, 900, 950)]
    [0, 40, 80, 120, 170]
    >>> clock.start_lap(step_ns=40)
    >>> clock.tick(1000) and clock.pts_ns
    210
    """

    def __init__(self) -> None:
        self.pts_ns: int | None = None
        self._anchor: tuple[float, int] | None = None  # monotonic s, pts ns
        self._step_ns = self._lap_ns = 0
        self._max_step_ns = MAX_STEP_NS
        self._own_ns: int | None = None  # of the picture before, in this lap

    def start_lap(self, step_ns: int, *, jumps: bool = False) -> None:
        """The recording begins (again).

        step_ns: from one picture to the next, where it does not say; jumps: its clock may.
        """
        self._step_ns = step_ns
        self._max_step_ns = MAX_BROKEN_STEP_NS if jumps else MAX_STEP_NS
        self._own_ns = None
        self._lap_ns = 0 if self.pts_ns is None else self.pts_ns + step_ns

    def forget_anchor(self) -> None:
        """What was passed over took no time of the recording's; the next picture is due at once."""
        self._anchor = None

    def tick(self, own_ns: int | None) -> float:
        """Take over the next picture's time; returns when it is due, in monotonic seconds."""
        now_s = time.monotonic()
        self.pts_ns = self._next_ns(own_ns)
        if self._anchor is not None:
            due_s = self._anchor[0] + (self.pts_ns - self._anchor[1]) / 1e9
            if now_s - MAX_LAG_S <= due_s <= now_s + MAX_WAIT_S:
                return due_s
        self._anchor = (now_s, self.pts_ns)
        return now_s

    def _next_ns(self, own_ns: int | None) -> int:
        before_ns, self._own_ns = self._own_ns, own_ns
        if self._lap_ns >= 0:  # the first of this lap
            first_ns, self._lap_ns = self._lap_ns, -1
            return first_ns
        step_ns = self._step_ns
        if own_ns is not None and before_ns is not None:
            own_step_ns = own_ns - before_ns
            step_ns = own_step_ns if 0 <= own_step_ns <= self._max_step_ns else step_ns
        return (self.pts_ns or 0) + step_ns


def wait_until(due_s: float) -> bool:
    """Sleep until then, in monotonic seconds, but for TURN_S at most; whether it is due now."""
    early_s = due_s - time.monotonic()
    if early_s > 0:  # a sleep of no time is a change of threads, too
        time.sleep(min(early_s, TURN_S))
    return due_s <= time.monotonic()
