"""Adding up: where all frames of a camera are, on a path or on their way to a sink.

Only the supervisor adds up for good. The ledger keeps the last RING frames; what has met its last fate
is counted once and then known, so that a look costs what is new since the last one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.accounts.layout import PATHS, RING
from pipeline.accounts.ledger import REASON, REASONS, Ledger

# A fate as one byte: a reason of the ledger, 0 while there is none, or one of these
_IN_FLIGHT, _DELIVERED, _NOT_OFFERED = 0, 255, 254
_DIED, _FORGOTTEN = REASON["stage_died"], REASON["forgotten"]

# What its fate at one of its sinks makes of a frame that has come to the end of its path: of several
# sinks the last of these says it. Any other reason means that the sink lost it.
_RANKS = (
    (_NOT_OFFERED, _DELIVERED),  # no sink is behind this path for it
    (REASON["filtered"], REASON["filtered"]),
    (REASON["unwanted"], REASON["unwanted"]),
    (_DELIVERED, _DELIVERED),
    (_IN_FLIGHT, _IN_FLIGHT),
    (REASON["superseded"], REASON["superseded"]),
    (REASON["stopped"], REASON["stopped"]),
)
_NOT_LOST = {REASONS[code] for code, _ in _RANKS if code < len(REASONS)}
_RANK = np.full(256, len(_RANKS), np.uint8)
_RANK[[at_sink for at_sink, _ in _RANKS]] = range(len(_RANKS))
_FATE_OF_RANK = np.array([*(fate for _, fate in _RANKS), REASON["sink"]], np.uint8)

Fates = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """One account of one camera: of a path, or of a sink."""

    captured: int  # of a sink: offered, what came to the end of its path while it was to have it
    delivered: int  # to every sink that was to have it; of a sink: taken
    dropped: dict[str, int]  # by reason
    in_flight: int
    error: (
        int  # frames that nobody has and nobody ended, or that two ended differently: 0, or a bug
    )

    @property
    def lost(self) -> int:
        """Of a sink: what it should have and has not, through nobody's wish."""
        return self.error + sum(n for why, n in self.dropped.items() if why not in _NOT_LOST)

    def __add__(self, other: Totals) -> Totals:
        """Of two accounts together."""
        return Totals(
            captured=self.captured + other.captured,
            delivered=self.delivered + other.delivered,
            dropped={why: n + other.dropped[why] for why, n in self.dropped.items()},
            in_flight=self.in_flight + other.in_flight,
            error=self.error + other.error,
        )


class Tally:
    """The account of one camera on one of the ledger's ways: a path, or what is behind it to a sink."""

    def __init__(self, ledger: Ledger, camera: int, way: int, *, final_below: int = 0) -> None:
        """final_below: frames before it are none of this account's business."""
        self.camera, self.way = camera, way
        self.final_below = final_below  # frames with smaller ids have met their last fate
        self._began_at = final_below
        self._ledger = ledger
        self._counts = np.zeros(256, np.int64)  # of those, by fate
        self._path = dict(ledger.layout.sinks.values()).get(way, way)
        self._is_sink = way != self._path
        # of a path: what is marked at sinks that have left, from which frame on
        self._gone: list[tuple[int, Fates]] = []

    def totals(self) -> Totals:
        """The sum as of now; never waits."""
        captured = int(self._ledger["captured"][self.camera])
        fates, may_change = self._fates(self.final_below, captured)
        final = int(may_change.argmax()) if may_change.any() else len(fates)
        self._counts += np.bincount(fates[:final], minlength=256)
        self.final_below += final
        self._gone = [(at, old) for at, old in self._gone if at + len(old) > self.final_below]
        counts = self._counts + np.bincount(fates[final:], minlength=256)
        contradicted = int(self._ledger["contradicted"][self.camera, self.way])
        offered = int(counts.sum() - counts[_NOT_OFFERED])
        return Totals(
            captured=offered if self._is_sink else captured - self._began_at,
            delivered=int(counts[_DELIVERED]),
            dropped={
                name: int(counts[code]) for name, code in REASON.items() if 0 < code < _FORGOTTEN
            },
            in_flight=int(counts[_IN_FLIGHT]),
            error=int(counts[_FORGOTTEN]) + contradicted,
        )

    def unsettled(self) -> Ids:
        """The ids of the frames that are in flight on this very way."""
        captured = int(self._ledger["captured"][self.camera])
        fates = self._marks(self.way, self.final_below, captured)
        for marks in self._at_sinks(self.final_below, captured):
            fates[marks != _NOT_OFFERED] = _DELIVERED  # it has come to the end of its path
        return self.final_below + np.flatnonzero(fates == _IN_FLIGHT)

    def sink_left(self, way: int) -> None:
        """This sink of the path is gone: what it has made of frames stays so, whatever its way is then."""
        captured = int(self._ledger["captured"][self.camera])
        self._gone.append((self.final_below, self._marks(way, self.final_below, captured)))

    def holders(self, ids: Ids) -> npt.NDArray[np.uint32]:
        """The `holder_code` of who had each of these frames last."""
        held: npt.NDArray[np.uint32] = self._ledger["holder"][self.camera, self.way, ids % RING]
        return held

    def end(self, ids: Ids, reason: str) -> None:
        """Give these frames a fate."""
        for frame_id in ids.tolist():
            self._ledger.drop(self.camera, self.way, frame_id, reason)

    def _fates(self, low: int, high: int) -> tuple[Fates, Mask]:
        """The fates of the frames low..high-1, and which of them may still become another one.

        The path is read before its sinks: it ends after they were offered the frame, so what has ended
        there is offered by then or never will be. A frame that was lost with a dead process may still be
        delivered, since its result was on the way; not for ever.
        """
        of_path = self._marks(self._path, low, high)
        is_young = np.arange(low, high) >= high - RING // 2
        may_change = (of_path == _IN_FLIGHT) | (is_young & (of_path == _DIED))
        if self._is_sink:
            fates = self._marks(self.way, low, high)
            may_change &= fates == _NOT_OFFERED
            return fates, may_change | (fates == _IN_FLIGHT) | (is_young & (fates == _DIED))
        if not (marks := self._at_sinks(low, high)):
            return of_path, may_change
        at_sinks = np.stack(marks)  # (sinks, n)
        ended = (of_path == _DELIVERED) | (at_sinks != _NOT_OFFERED).any(0)
        may_change &= ~ended
        may_change |= ((at_sinks == _IN_FLIGHT) | (is_young & (at_sinks == _DIED))).any(0)
        return np.where(ended, _FATE_OF_RANK[_RANK[at_sinks].max(0)], of_path), may_change

    def _at_sinks(self, low: int, high: int) -> list[Fates]:
        """What is marked for the frames low..high-1 at each sink of a path, those that left among them."""
        if self._is_sink:
            return []
        ways = [way for way, path in self._ledger.layout.sinks.values() if path == self.way]
        marks = [self._marks(way, low, high) for way in ways]
        for at, old in self._gone:
            of_gone = np.full(high - low, _NOT_OFFERED, np.uint8)
            left = old[low - at :][: high - low]
            of_gone[: len(left)] = left
            marks.append(of_gone)
        return marks

    def _marks(self, way: int, low: int, high: int) -> Fates:
        """What is marked on one way for the frames low..high-1."""
        place = self.camera, way
        marks = _stretch(self._ledger["dropped"][place], low, high).copy()
        marks[_stretch(self._ledger["delivered"][place], low, high) != 0] = _DELIVERED
        if way >= len(PATHS):
            marks[_stretch(self._ledger["offered"][place], low, high) == 0] = _NOT_OFFERED
        return marks


def _stretch(ring: Fates, low: int, high: int) -> Fates:
    """The cells of the frames low..high-1. Slices, which cost a tenth of what an index array does."""
    first, end = low % RING, low % RING + high - low
    return (ring if end <= RING else np.concatenate([ring] * -(-end // RING)))[first:end]
