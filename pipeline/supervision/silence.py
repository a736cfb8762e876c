"""When a process that gives no sign of life counts as hung. Pure; the caller has the clocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_LOOK_S = 0.2  # that one look stands for at most: whoever looks may have been without a core, too


Wants = Sequence[tuple[bool, float]]
"""Of those on whom it depends: whether one wants a core now, and the CPU time so far in seconds."""


class Silence:
    """Of one thread. On busy cores a healthy one is silent, too: it waits for its turn to run, or for
    another thread of its process that waits for it."""

    def __init__(self) -> None:
        self._last: tuple[float, Wants] = 0.0, ()  # silence and CPU times at the last look
        self._own_s = 0.0  # that it had for itself since it was first doubted, to run or to sleep

    def is_hang(self, silent_s: float, limit_s: float, look: Callable[[], Wants]) -> bool:
        """Whether it was silent for longer than the limit, and not for want of a core.

        silent_s: since its last sign of life. look: always at the same ones; called from half of the
        limit on. Of what is left then it must have had half for itself. To be asked ten times within
        each limit.
        """
        if silent_s < limit_s / 2:
            self._last = 0.0, ()
            return False
        wants = look()
        before_s, before = self._last
        if not 0 < before_s <= silent_s:  # the first look at this silence
            self._own_s = 0.0
        else:
            had_s = [min(_LOOK_S, silent_s - before_s)]
            for (wants_core, cpu_s), (_, cpu_before_s) in zip(wants, before, strict=False):
                if wants_core:
                    had_s.append(cpu_s - cpu_before_s)
            self._own_s += min(had_s)
        self._last = silent_s, wants
        return silent_s > limit_s and self._own_s > limit_s / 4


class Start:
    """Of a process that is not ready. Who works may take long: a large model, or one that is compiled."""

    def __init__(self) -> None:
        self._worked = 0.0, 0.0  # its age and its CPU time when it had last done its share

    def silent_s(self, lived_s: float, cpu_s: float, share_s: float) -> float:
        """For how long it has not worked: since it last used `share_s` of a core.

        lived_s, cpu_s: how old it is, and the CPU time that it had so far. To be asked ten times within
        what counts as a hang.
        """
        if cpu_s - self._worked[1] >= share_s:
            self._worked = lived_s, cpu_s
        return lived_s - self._worked[0]
