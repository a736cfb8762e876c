"""When a dead process starts again: back-off and breaker. Pure; the caller has the clock."""

from __future__ import annotations

import random
from collections import deque

MAX_DELAY_S = 30.0
_FIRST_DELAY_S = 0.25
_FAILURES = 5  # before the first frame …
_WINDOW_S = 60.0  # … within this time open the breaker


class Restarts:
    """The restart policy of one process."""

    def __init__(self) -> None:
        self.count = 0
        self.breaker_open = False  # it keeps failing, and is tried only every 30 s
        self._failures: deque[float] = deque(maxlen=_FAILURES)
        self._delay_s = 0.0

    def delay_s(self, now_s: float, *, worked: bool) -> float:
        """How long to wait after a death at `now_s`.

        worked: it had processed a frame since its start; then it comes back at once. One that dies
        before its first frame waits 0.25 s, twice as long each time up to 30 s, ±25 %; five such
        deaths within a minute open the breaker.
        """
        self.count += 1
        if worked:
            self.worked()
            return 0.0
        self._failures.append(now_s)
        if len(self._failures) == _FAILURES and now_s - self._failures[0] <= _WINDOW_S:
            self.breaker_open = True
        self._delay_s = min(MAX_DELAY_S, max(_FIRST_DELAY_S, 2 * self._delay_s))
        if self.breaker_open:
            self._delay_s = MAX_DELAY_S
        return self._delay_s * random.uniform(0.75, 1.25)

    def worked(self) -> None:
        """It has processed a frame: all is forgiven."""
        self.breaker_open = False
        self._failures.clear()
        self._delay_s = 0.0
