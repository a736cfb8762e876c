"""When a dead process starts again: back-off and breaker. Pure; the caller has the clock."""

from __future__ import annotations

import math
import random
from collections import deque

MAX_DELAY_S = 30.0
_FIRST_DELAY_S = 0.25
_GOOD_LIFE_S = 10.0
_FREE_SHORT_LIVES = 20  # in a row: bad luck comes in series, a crash loop goes on
_FAILURES = 5  # before the first frame …
_WINDOW_S = 60.0  # … within this time open the breaker


class Restarts:
    """The restart policy of one process."""

    def __init__(self) -> None:
        self.count = 0
        self.breaker_open = False  # it keeps failing, and is tried only every 30 s
        self._failures: deque[float] = deque(maxlen=_FAILURES)  # deaths before the first frame
        self._failed = 0  # of these in a row
        self._short_lives = 0  # deaths soon after the first frame, in a row

    def delay_s(self, now_s: float, *, worked: bool, lived_s: float = math.inf) -> float:
        """How long to wait after a death at `now_s`.

        worked: it had processed a frame since its start; then it comes back at once, unless it died
        soon (`lived_s`) the last 20 times, too. Otherwise it waits 0.25 s, twice as long each time up to
        30 s, ±25 %. Five deaths before the first frame within a minute open the breaker.
        """
        self.count += 1
        if worked:
            self.worked()
            self._short_lives = 0 if lived_s >= _GOOD_LIFE_S else self._short_lives + 1
            doublings = self._short_lives - _FREE_SHORT_LIVES - 1
        else:
            self._failures.append(now_s)
            if len(self._failures) == _FAILURES and now_s - self._failures[0] <= _WINDOW_S:
                self.breaker_open = True
            self._failed += 1
            doublings = self._failed - 1
        if doublings < 0:
            return 0.0
        delay_s = min(MAX_DELAY_S, _FIRST_DELAY_S * float(2 ** min(doublings, 16)))
        return (MAX_DELAY_S if self.breaker_open else delay_s) * random.uniform(0.75, 1.25)

    def worked(self) -> None:
        """It has processed a frame: the breaker closes."""
        self.breaker_open = False
        self._failures.clear()
        self._failed = 0
