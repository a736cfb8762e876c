"""The own clock of a recording, and when each of its pictures is due."""

from __future__ import annotations

import time

MAX_LAG_S = 1.0  # behind by more than this, play on from here instead of catching up in a burst
MAX_WAIT_S = 2.0  # a jump ahead by more than this is not waited for


class RecordingClock:
    """Time of the pictures of a recording, growing over laps, on the monotonic clock.

    Every due time is counted from one anchor and not from the picture before, so that late sleeps
    never add up.

    >>> clock = RecordingClock()
    >>> clock.start_lap(step_ns=40)
    >>> [clock.tick(own_ns) and clock.pts_ns for own_ns in (1000, 1040, None)]
    [0, 40, 80]
    >>> clock.start_lap(step_ns=40)
    >>> clock.tick(1000) and clock.pts_ns
    120
    """

    def __init__(self) -> None:
        self.pts_ns: int | None = None
        self._anchor: tuple[float, int] | None = None  # monotonic s, pts ns
        self._step_ns = self._lap_ns = 0
        self._first_ns: int | None = None

    def start_lap(self, step_ns: int) -> None:
        """The recording begins (again); `step_ns`: from one picture to the next, where not told."""
        self._step_ns = step_ns
        self._first_ns = None
        self._lap_ns = 0 if self.pts_ns is None else self.pts_ns + step_ns

    def tick(self, own_ns: int | None) -> float:
        """Take over the next picture's time; returns when it is due, in monotonic seconds."""
        now_s = time.monotonic()
        if own_ns is None:
            self.pts_ns = self._lap_ns if self.pts_ns is None else self.pts_ns + self._step_ns
        else:
            self._first_ns = own_ns if self._first_ns is None else self._first_ns
            self.pts_ns = own_ns - self._first_ns + self._lap_ns
        if self._anchor is not None:
            due_s = self._anchor[0] + (self.pts_ns - self._anchor[1]) / 1e9
            if now_s - MAX_LAG_S <= due_s <= now_s + MAX_WAIT_S:
                return due_s
        self._anchor = (now_s, self.pts_ns)
        return now_s

    def wait(self, own_ns: int | None) -> None:
        """`tick`, then sleep until the picture is due."""
        due_s = self.tick(own_ns)
        time.sleep(max(0.0, due_s - time.monotonic()))
