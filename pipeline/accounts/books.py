"""The accounts of a run: the ledger's memory, what it adds up to, and the audit of what nobody has."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from pipeline.accounts.arrivals import Arrivals
from pipeline.accounts.audit import Audit
from pipeline.accounts.ledger import DETECT, PATHS, VIEW, Layout, Ledger
from pipeline.accounts.tally import Tally, Totals
from pipeline.host import memory

_COUNT_S = 0.25  # between two counts of all frames; nobody looks more often
_COUNT_SHARE = 0.02  # of the time, at most, goes into counting


class Accounts:
    """Of one run. Only the supervisor has them: it owns the memory and adds up."""

    def __init__(self, layout: Layout) -> None:
        """Makes the memory of the ledger (`fd`). Raises ResourceError if it is not to be had."""
        self.fd = memory.create("ledger", layout.nbytes)
        self.ledger = Ledger(self.fd, layout)
        names = [*PATHS, *(sink for sink, _ in layout.sinks)]
        self._tallies = {
            (camera, names[way]): Tally(self.ledger, row, way)
            for camera, row in layout.cameras.items()
            for way in range(layout.ways)
            if way != VIEW or layout.has_view
        }
        self.audit = Audit(self.ledger, tuple(self._tallies.values()))
        # as of the last count, by camera and path, by camera and sink
        self.totals: dict[tuple[str, str], Totals] = {}
        self.sink_totals: dict[tuple[str, str], Totals] = {}
        self._arrivals = {camera: Arrivals() for camera in layout.cameras}
        self._due = 0.0

    def of_sinks(self) -> dict[str, list[Totals]]:
        """Name of each sink, as in the configuration → its accounts of all cameras."""
        accounts: dict[str, list[Totals]] = {}
        for (_, process), totals in self.sink_totals.items():
            accounts.setdefault(process.removeprefix("sink."), []).append(totals)
        return accounts

    def missed(self, now_s: float) -> set[str]:
        """Cameras whose results do not arrive, or not yet."""
        return {name for name, arrivals in self._arrivals.items() if arrivals.missing(now_s)}

    def count_if_due(self, now_s: float, living: Mapping[int, int]) -> None:
        """Several times a second; living: as for `Audit.look`."""
        if now_s >= self._due:
            self.audit.look(now_s, living)
            self._count()
            for camera, arrivals in self._arrivals.items():
                arrivals.update(now_s, self.totals[camera, PATHS[DETECT]])
            self._due = now_s + max(_COUNT_S, (time.monotonic() - now_s) / _COUNT_SHARE)

    def close(self) -> None:
        """The run is over, nobody lives: the last count. The ledger stays readable."""
        self.audit.close(time.monotonic())
        self._count()
        os.close(self.fd)

    def _count(self) -> None:
        counted = {key: tally.totals() for key, tally in self._tallies.items()}
        self.totals = {key: totals for key, totals in counted.items() if key[1] in PATHS}
        self.sink_totals = {key: totals for key, totals in counted.items() if key[1] not in PATHS}
        below: dict[int, int] = {}
        for tally in self._tallies.values():
            below[tally.camera] = min(tally.final_below, below.get(tally.camera, tally.final_below))
        for camera, frame_id in below.items():
            self.ledger.put("counted_below", camera, frame_id)
