"""The accounts of a run: the ledger's memory, what it adds up to, and the audit of what nobody has."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pipeline.accounts.arrivals import Arrivals
from pipeline.accounts.audit import Audit
from pipeline.accounts.layout import DETECT, PATHS, VIEW, Layout
from pipeline.accounts.ledger import Ledger
from pipeline.accounts.rows import Rows
from pipeline.accounts.tally import Tally, Totals
from pipeline.errors import CAUSES
from pipeline.host import memory

_COUNT_S = 0.25  # between two counts of all frames; nobody looks more often
_COUNT_SHARE = 0.02  # of the time, at most, goes into counting

Key = tuple[str, str]  # camera, and path or sink
Count = tuple[str, str, str]  # process, counter, camera


class Accounts:
    """Of one run. Only the supervisor has them: it owns the memory and adds up.

    A camera that has left keeps its sums; they go on if it comes back, and so do the ids of its frames.
    """

    def __init__(self, layout: Layout) -> None:
        """Makes the memory of the ledger (`fd`). Raises ResourceError if it is not to be had."""
        self.fd = memory.create("ledger", layout.nbytes)
        self.ledger = Ledger(self.fd, layout)
        self._rows = Rows(layout)
        self._tallies: dict[Key, Tally] = {}
        self._closed: dict[Key, Totals] = {}  # of accounts that are closed
        # what stages have counted, of processes and cameras that have left; replaced and never changed,
        # since others read it meanwhile
        self.counted_before: Counter[Count] = Counter()
        self._leaving: set[str] = set()  # cameras that no process has any more, not settled yet
        self._arrivals: dict[str, Arrivals] = {}
        self.audit = Audit(self.ledger)
        # as of the last count, by camera and path, by camera and sink
        self.totals: dict[Key, Totals] = {}
        self.sink_totals: dict[Key, Totals] = {}
        self._due = 0.0
        for camera, row in layout.cameras.items():
            self._open(camera, row, 0, is_viewed=layout.has_view)

    @property
    def layout(self) -> Layout:
        """Who has which row of the ledger now."""
        return self._rows.layout

    @property
    def rows_left(self) -> int:
        """How many more cameras there is room for now."""
        return self._rows.cameras_left

    def has_account(self, camera: str) -> bool:
        """Whether the account of a camera is open; it is for a moment after the camera has left."""
        return camera in self.layout.cameras

    def join(self, camera: str, *, is_viewed: bool) -> int:
        """Open the account of a camera that has none; returns its row. Raises ResourceError.

        is_viewed: its frames are on the view path, too.
        """
        row = self._rows.add_camera(camera)
        before = self._closed.get((camera, PATHS[DETECT]))
        frames = 0 if before is None else before.captured
        self.ledger.begin(row, frames)
        self.ledger.know(self.layout)
        self._open(camera, row, frames, is_viewed=is_viewed)
        return row

    def leave(self, camera: str) -> None:
        """No process has frames of this camera; its account is closed when the last is settled."""
        self._leaving.add(camera)

    def went_with_its_process(self, camera: str) -> None:
        """Nobody reads it: who wrote whether it is up is dead, so it is written here."""
        row = self.ledger.camera_index[camera]
        self.ledger.put("down_cause", row, CAUSES.index("process"))
        self.ledger.put("camera_up", row, 0)

    def admit(
        self,
        process: str,
        counters: Sequence[str] = (),
        histograms: Sequence[str] = (),
        *,
        sink: tuple[int, int] | None = None,
        remembers: bool = False,
    ) -> None:
        """Rows for a process that is new, as `Rows.add_process`; and the accounts of a sink.

        Raises ResourceError.
        """
        self._rows.add_process(process, counters, histograms, sink=sink, remembers=remembers)
        self.ledger.know(self.layout)
        self.ledger.begin_process(process)
        if sink is not None:
            way, path = sink
            for camera, row in self.layout.cameras.items():
                if (of_path := self._tallies.get((camera, PATHS[path]))) is not None:
                    tally = Tally(self.ledger, row, way, final_below=of_path.final_below)
                    self._tallies[camera, process] = tally
            self.audit.watch(self._tallies.values())

    def change(self, process: str, counters: Sequence[str], histograms: Sequence[str]) -> None:
        """Other counters and histograms for a process that does not live now. Raises ResourceError."""
        counted = self._counted([process], self.layout.cameras)
        self.ledger.clear(*self._rows.change_process(process, counters, histograms))
        self.ledger.know(self.layout)
        gone = {key: n for key, n in counted.items() if key[1] not in counters}
        self.counted_before = self.counted_before + Counter(gone)

    def dismiss(self, process: str) -> None:
        """A process is gone for good; what it counted is kept. Of a sink's frames none may wait for it."""
        counted = self._counted([process], self.layout.cameras)
        if process in self.layout.sinks:
            self._close_sink(process)
        self._rows.remove_process(process)
        self.ledger.know(self.layout)
        self.counted_before = self.counted_before + counted

    def counted(self) -> Counter[Count]:
        """What stages have counted, of processes and cameras that are here; also what is 0."""
        return self._counted(self.layout.counters, self.layout.cameras)

    def waits_for(self, sink: str) -> bool:
        """Whether a frame that this sink was offered is not settled."""
        mine = (tally for (_, name), tally in self._tallies.items() if name == sink)
        return any(len(tally.unsettled()) for tally in mine)

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
            begun_s = time.thread_time()  # a core that others keep busy makes no count late
            self.audit.look(now_s, living)
            self._count()
            for camera, arrivals in self._arrivals.items():
                arrivals.update(now_s, self.totals[camera, PATHS[DETECT]])
            for camera in [*self._leaving]:
                self._close_if_settled(camera)
            spent_s = time.thread_time() - begun_s
            self._due = now_s + max(_COUNT_S, spent_s / _COUNT_SHARE)

    def close(self) -> None:
        """The run is over, nobody lives: the last count. The ledger stays readable."""
        self.audit.close(time.monotonic())
        self._count()
        os.close(self.fd)

    def _open(self, camera: str, row: int, frames: int, *, is_viewed: bool) -> None:
        paths = (DETECT, VIEW) if is_viewed else (DETECT,)
        ways = {PATHS[path]: path for path in paths}
        ways |= {sink: way for sink, (way, path) in self.layout.sinks.items() if path in paths}
        for name, way in ways.items():
            self._tallies[camera, name] = Tally(self.ledger, row, way, final_below=frames)
        self._arrivals = {**self._arrivals, camera: Arrivals()}  # others read it meanwhile
        self.audit.watch(self._tallies.values())

    def _close_sink(self, sink: str) -> None:
        way, path = self.layout.sinks[sink]
        for camera, name in [key for key in self._tallies if key[1] == sink]:
            tally = self._tallies.pop((camera, name))
            if tally.totals().captured:
                self._keep((camera, name), tally)
            self._tallies[camera, PATHS[path]].sink_left(way)
        self.audit.watch(self._tallies.values())

    def _keep(self, key: Key, tally: Tally) -> None:
        """The sums of an account that is closed."""
        totals = tally.totals()
        self._closed[key] = totals + self._closed[key] if key in self._closed else totals

    def _close_if_settled(self, camera: str) -> None:
        mine = {key: tally for key, tally in self._tallies.items() if key[0] == camera}
        if any(len(tally.unsettled()) for tally in mine.values()):
            return
        for key, tally in mine.items():
            self._keep(key, tally)
            del self._tallies[key]
        counted = self._counted(self.layout.counters, [camera])
        self._arrivals = {name: a for name, a in self._arrivals.items() if name != camera}
        self.audit.watch(self._tallies.values())
        self._leaving.remove(camera)
        self._rows.remove_camera(camera)
        self.ledger.know(self.layout)
        self.counted_before = self.counted_before + counted

    def _counted(self, processes: Iterable[str], cameras: Iterable[str]) -> Counter[Count]:
        layout, cells = self.layout, self.ledger["counters"]  # of this moment: others ask, too
        columns = {name: layout.cameras[name] for name in cameras if name in layout.cameras}
        return Counter({
            (process, name, camera): int(cells[row, column])
            for process in processes
            for name, row in layout.counters.get(process, {}).items()
            for camera, column in columns.items()
        })  # fmt: skip

    def _count(self) -> None:
        counted: dict[Key, Totals] = {}
        below: dict[int, int] = {}
        for key, tally in self._tallies.items():
            totals = tally.totals()
            counted[key] = totals + self._closed[key] if key in self._closed else totals
            below[tally.camera] = min(tally.final_below, below.get(tally.camera, tally.final_below))
        counted = counted | {k: t for k, t in self._closed.items() if k not in counted}
        self.totals = {key: totals for key, totals in counted.items() if key[1] in PATHS}
        self.sink_totals = {key: totals for key, totals in counted.items() if key[1] not in PATHS}
        for camera, frame_id in below.items():
            self.ledger.put("counted_below", camera, frame_id)
