"""How long a camera may be silent before it is lost: learned from the camera itself."""

from __future__ import annotations

from collections import deque

FIRST_S = 2.0  # before anything is known; a camera that falls silent is noticed within 3 s
LONGEST_S = 30.0
_GAPS = 20  # pictures to learn from


class Patience:
    """Three times the longest of the last gaps between pictures, 2 to 30 s.

    A camera of one picture in ten seconds is lost two or three times, each time it is given twice as
    long; then it is known. One of 25 Hz that hung once is back at 2 s after 20 pictures.

    >>> patience = Patience()
    >>> patience.seconds, patience.lost() or patience.seconds
    (2.0, 4.0)
    >>> for _ in range(20):
    ...     patience.picture(5.0)
    >>> patience.seconds
    15.0
    """

    def __init__(self, fixed_s: float | None = None) -> None:
        """fixed_s: what somebody has set; then nothing is learned."""
        self.seconds = FIRST_S if fixed_s is None else fixed_s
        self._least_s = FIRST_S
        self._fixed = fixed_s is not None
        self._gaps_s: deque[float] = deque(maxlen=_GAPS)

    def at_least(self, seconds: float) -> None:
        """It is of a kind that is known to be slow."""
        self._least_s = max(self._least_s, seconds)
        self.seconds = max(self.seconds, seconds)

    def picture(self, gap_s: float) -> None:
        """One came, so long after the one before."""
        self._gaps_s.append(gap_s)
        if self._fixed:
            return
        wanted_s = 3 * max(self._gaps_s)
        if len(self._gaps_s) < _GAPS:  # too early to ask for less than silence has taught
            wanted_s = max(wanted_s, self.seconds)
        self.seconds = min(LONGEST_S, max(self._least_s, wanted_s))

    def lost(self) -> None:
        """It was silent for too long."""
        self._gaps_s.clear()
        if not self._fixed:
            self.seconds = min(LONGEST_S, 2 * self.seconds)
