"""Whether the results of a camera arrive. Pure; the caller has the clock."""

from __future__ import annotations

from statistics import median

from pipeline.accounts.tally import Totals

_PATIENCE_S = 5.0
_PERIODS = 3  # of its results: one that is served every 20 s may take a minute
_RECENT = 5  # results that tell how often they come; one pause is not the rule


class Arrivals:
    """Of one camera: frames that are wanted are followed by results, as often as they were of late.

    What nobody wants (above a limit of frames a second) is not waited for, and a frame that a stage of
    the user has filtered is answered. So a camera of one frame an hour is as well as its last frame.
    """

    def __init__(self) -> None:
        self._served = self._wanted = 0
        self._served_at: float | None = None
        self._waiting_since: float | None = None
        self._periods_s: tuple[float, ...] = ()  # never changed, since another thread may read it

    def update(self, now_s: float, totals: Totals) -> None:
        """To be called some times a second with the camera's account of the detect path."""
        served = totals.delivered + totals.dropped["filtered"]
        wanted = totals.captured - totals.dropped["unwanted"]
        if served > self._served:
            if self._served_at is not None:
                period_s = now_s - self._served_at
                self._periods_s = (*self._periods_s, period_s)[-_RECENT:]
            self._served, self._wanted, self._served_at = served, wanted, now_s
            self._waiting_since = None
        elif wanted > self._wanted and self._waiting_since is None:
            self._waiting_since = now_s

    def missing(self, now_s: float) -> bool:
        """There was no result yet, or wanted frames have come for too long without one."""
        if self._served_at is None:
            return True
        usual_s = median(self._periods_s) if self._periods_s else 0.0
        limit_s = max(_PATIENCE_S, _PERIODS * usual_s)
        return self._waiting_since is not None and now_s - self._waiting_since > limit_s
