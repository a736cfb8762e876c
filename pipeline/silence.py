"""When a thread that gives no sign of life counts as hung. Pure; the caller has the clocks."""

from __future__ import annotations

from collections.abc import Callable


class Silence:
    """Of one thread. On busy cores a healthy one is silent, too: it waits for its turn to run."""

    def __init__(self) -> None:
        self._since: tuple[float, float] | None = None  # silence and wait when it was first doubted

    def is_hang(self, silent_s: float, limit_s: float, waited_s: Callable[[], float]) -> bool:
        """Whether it was silent for longer than the limit, and not for want of a core.

        silent_s: since its last sign of life. waited_s: how long it has waited for a core in all its
        life; asked from half of the limit on. Of what is left then it must have had half for itself,
        to run or to sleep. To be asked some times within each limit.
        """
        if silent_s < limit_s / 2:
            self._since = None
            return False
        now = silent_s, waited_s()
        if self._since is None or silent_s < self._since[0]:  # it gave a sign in between
            self._since = now
        own_s = (now[0] - self._since[0]) - (now[1] - self._since[1])
        return silent_s > limit_s and own_s > limit_s / 4
