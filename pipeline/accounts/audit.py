"""Which frames are in flight in nobody's hands: lost with a dead process, or forgotten by a living one.

Every process writes its mark on a frame when it takes it in (`holder`), and tells once a second which
frames it has for sure no more (`holds_from`). So a frame without a fate is in good hands as long as its
holder lives and has not said so. This is what makes the account a check that can fail: a frame that was
lost without a reason is an error, and not for ever in flight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np

from pipeline.accounts.ledger import Ledger
from pipeline.accounts.tally import Tally

_GRACE_S = 1.0  # for what a dead process had sent already to arrive and be marked
_KEPT = 1000  # ends of processes; nobody hears so late of one that so many ended behind it
_TOLD = 2  # one look at all that it has may be under way, so the second from now on counts


class Audit:
    """Gives a fate to the frames that will get none from anybody else. The caller has the clock."""

    def __init__(self, ledger: Ledger, tallies: Iterable[Tally] = ()) -> None:
        self._ledger, self._tallies = ledger, tuple(tallies)
        self._dead: dict[int, float] = {}  # holder code: when what it held is lost
        # codes of those that ended well, with nothing in hand
        self._gone: deque[int] = deque(maxlen=_KEPT)
        # (tally, frame): (holder code, how often it had spoken when it was suspected)
        self._suspects: dict[tuple[Tally, int], tuple[int, int]] = {}

    def watch(self, tallies: Iterable[Tally]) -> None:
        """These are the accounts now."""
        self._tallies = tuple(tallies)

    def died(self, code: int, now_s: float) -> None:
        """This incarnation of a process was killed or failed: what it has is lost with it."""
        self._dead[code] = now_s + _GRACE_S
        if len(self._dead) > _KEPT:
            del self._dead[next(iter(self._dead))]

    def ended(self, code: int) -> None:
        """This incarnation ended in order, so it has nothing any more."""
        self._gone.append(code)

    def look(self, now_s: float, living: Mapping[int, int]) -> None:
        """Mark what is lost (`stage_died`) and what nobody has (`forgotten`).

        living: holder code of every process that runs → its place in the ledger.
        """
        lost = [code for code, when in self._dead.items() if now_s >= when]
        gone = [*self._gone]
        before, self._suspects = self._suspects, {}
        for tally in self._tallies:
            ids = tally.unsettled()
            if not len(ids):
                continue
            held = tally.holders(ids)
            tally.end(ids[np.isin(held, lost)], "stage_died")
            tally.end(ids[np.isin(held, gone)], "forgotten")
            for frame_id, code in zip(ids.tolist(), held.tolist(), strict=True):
                index = living.get(code)
                if index is None or frame_id >= self._ledger["holds_from"][index, tally.camera]:
                    continue
                told = int(self._ledger["holds_told"][index])
                since = before.get((tally, frame_id), (code, told))
                if since[0] != code:  # it went on: a new suspicion
                    since = code, told
                self._suspects[tally, frame_id] = since
                if told >= since[1] + _TOLD:
                    tally.end(np.array([frame_id]), "forgotten")

    def close(self, now_s: float) -> None:
        """The run is over, and nobody lives: what is in flight was stopped with it."""
        self.look(now_s + _GRACE_S, {})
        for tally in self._tallies:
            tally.end(tally.unsettled(), "stopped")
