"""When a thread that gives no sign of life counts as hung. Pure; the caller has the clocks."""

from __future__ import annotations

from collections.abc import Callable

_LOOK_S = 0.2  # that one look stands for at most: whoever looks may have been without a core, too


class Silence:
    """Of one thread. On busy cores a healthy one is silent, too: it waits for its turn to run."""

    def __init__(self) -> None:
        self._last = 0.0, 0.0  # silence and CPU time at the last look
        self._own_s = 0.0  # that it had for itself since it was first doubted, to run or to sleep

    def is_hang(
        self, silent_s: float, limit_s: float, look: Callable[[], tuple[bool, float]]
    ) -> bool:
        """Whether it was silent for longer than the limit, and not for want of a core.

        silent_s: since its last sign of life. look: whether it wants a core now, and its CPU time so
        far in seconds; called from half of the limit on. Of what is left then it must have had half
        for itself. To be asked ten times within each limit.
        """
        if silent_s < limit_s / 2:
            self._last = 0.0, 0.0
            return False
        wants_core, cpu_s = look()
        before_s, cpu_before_s = self._last
        if not 0 < before_s <= silent_s:  # the first look at this silence
            self._own_s = 0.0
        else:
            passed_s = min(_LOOK_S, silent_s - before_s)
            self._own_s += min(passed_s, cpu_s - cpu_before_s) if wants_core else passed_s
        self._last = silent_s, cpu_s
        return silent_s > limit_s and self._own_s > limit_s / 4
