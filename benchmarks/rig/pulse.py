"""How fast are the cores now? The CPU time of a fixed piece of work, ten times a second, beside a trial.

    with Pulse() as pulse:
        …                                   what is measured
    pulse.core_ms                           the median; a core that is slower by a fifth takes a fifth more
    pulse.slowest_ms                        the same of the slowest second

A host that other guests share has cores that are slower for seconds or minutes at a time. Waiting for a
core does not count, only what the work takes once it has one; it is done twice each time, and the first,
which finds cold caches, is not looked at. All of it takes a hundredth of a core.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType

import numpy as np

PERIOD_S = 0.1
_VALUES = np.linspace(0.0, 1.0, 1 << 13, dtype=np.float32)  # 32 KiB, of a core's own caches
_ROUNDS = 20


class Pulse:
    """Measures from `with` to its end, in a thread of its own."""

    def __init__(self) -> None:
        self._took_ms: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._measure, daemon=True)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    @property
    def core_ms(self) -> float:
        """CPU time of the work, the median so far; there is at least one when the `with` has ended."""
        return float(np.median(self._took_ms))

    @property
    def slowest_ms(self) -> float:
        """The largest of the medians of ten in a row, or of all if there are fewer."""
        n = min(len(self._took_ms), round(1 / PERIOD_S))
        rows = np.lib.stride_tricks.sliding_window_view(np.array(self._took_ms), n)
        return float(np.median(rows, axis=1).max())

    def _measure(self) -> None:
        while True:
            _work()
            begun_ns = time.thread_time_ns()
            _work()
            self._took_ms.append((time.thread_time_ns() - begun_ns) / 1e6)
            if self._over.wait(PERIOD_S):
                return


def _work() -> float:
    total = 0.0
    for _ in range(_ROUNDS):
        total += float(np.sqrt(_VALUES * _VALUES + 1.0).sum())
    return total
