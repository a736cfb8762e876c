"""The counters of a run, in memory that survives every stage. One writer a cell, no locks.

For each camera the ledger knows the fate of every frame on each of its ways: on the paths (detect, view),
and from the end of a path to every sink behind it:

    captured = delivered + Σ dropped{reason} + in flight      of a path
    offered  = taken + Σ lost{reason} + waiting               of a sink

A frame is delivered when every sink that was to have it has it. Who ends a frame on its way marks it in a
ring of the last frames, at frame_id mod RING: delivered (to the path's end, or taken by the sink) in one
array, the reason of a drop in another. Marking the same fate twice changes nothing, and a delivery
overrides the verdict that the frame was lost with a dead process; any other second fate is counted as a
contradiction, but of a frame that is under way `twice`: a process died, and may have passed it on before,
and who fed it has sent it again. What is in flight is counted (no mark yet), never computed as a
remainder. `tally.py` adds up, `audit.py` finds what is in flight in nobody's hands; both are the
supervisor's.

`holder` says which process had the frame last (its incarnation, too), so that the supervisor can tell
what a dead process took with it; `holds_from`, which frames a process has for sure no more.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.accounts.layout import DETECT, EDGES_S, FATE, PATHS, RING, Layout, padded
from pipeline.accounts.states import States
from pipeline.host.memory import shared

REASONS = (
    "none",
    "superseded",  # a newer frame of the camera took its place in a mailbox
    "unwanted",  # nobody asked for it: above max_fps, or above the rate of all viewers
    "no_slot",  # its readers still held all slots of the camera
    "filtered",  # a stage returned None for it
    "error",  # it was unusable, or a stage raised FrameError
    "torn",  # its slot was written while it was read (must stay 0)
    "stage_died",  # it was lost with a process
    "stopped",  # the run ended first
    "overflow",  # results waited for a slow consumer, and the oldest had to go
    "sink",  # it reached the end of its path, and a sink that was to have it lost it
    "forgotten",  # nobody has it and nobody said why: an error of the program
)
REASON = {name: code for code, name in enumerate(REASONS)}
_EDGES_S = EDGES_S.tolist()
_STAGE_DIED = REASON["stage_died"]
_OPEN = (0, _STAGE_DIED)  # what a frame may be before it is delivered, or ended by who has it
# Of one of two that are under way, this says nothing of the other: what may still arrive is _OPEN.
_DISPLACED = tuple(REASON[name] for name in ("superseded", "unwanted", "no_slot", "overflow"))

# What is begun anew when a row gets another owner; `torn` and `garbage` are sums of the run
_OF_CAMERAS = (
    "camera_up", "down_cause", "stream_epoch", "last_frame_ns", "contradicted", "latency_seconds",
    "latency_seconds_sum", *(FATE.names or ()),
)  # fmt: skip
_OF_PROCESSES = (
    "holds_from", "holds_told", "beat_ns", "processed", "stage_seconds", "stage_seconds_sum",
    "wait_seconds", "wait_seconds_sum", "batch_size", "slots",
)  # fmt: skip


class Ledger:
    """The arrays of a layout over shared memory, and the few ways to write them."""

    def __init__(self, fd: int, layout: Layout) -> None:
        memory = shared(fd, layout.nbytes)
        self._arrays: dict[str, npt.NDArray[Any]] = {}
        offset = 0
        for name, (dtype, shape) in layout.fields().items():
            count = int(np.prod(shape))
            raw = memory[offset : offset + count * dtype.itemsize]
            self._arrays[name] = raw.view(dtype).reshape(shape)
            offset += padded(dtype, shape)
        fate = self._arrays.pop("fate")
        for name in FATE.names or ():
            self._arrays[name] = fate[name].swapaxes(1, 2)  # (cameras, ways, RING)
        # single cells through memoryviews: one aligned store, and a tenth of numpy's way to a scalar
        self._cells: dict[str, Any] = {name: memoryview(a.data) for name, a in self._arrays.items()}
        # what is touched for each frame, without a look-up
        self._captured, self._holders = self._cells["captured"], self._cells["holder"]
        self._delivered, self._dropped = self._cells["delivered"], self._cells["dropped"]
        self._histograms = {
            name: (cells, self._cells[f"{name}_sum"])
            for name, cells in self._cells.items()
            if f"{name}_sum" in self._cells
        }
        self._fates: Any = memoryview(fate.reshape(-1).view(np.uint8).data)
        self._fresh = (-1, b"")  # a holder, and the fates of a frame that it has just captured
        self._settled_below: dict[tuple[int, int], int] = {}
        self.know(layout)

    def know(self, layout: Layout) -> None:
        """Go by these names from now on, for rows of the same memory. Other threads may read meanwhile."""
        self.layout = layout
        self.camera_index, self.process_index = layout.cameras, layout.processes

    def admit(self, camera: str, row: int) -> None:
        """Know one camera more."""
        self.know(replace(self.layout, cameras={**self.layout.cameras, camera: row}))

    def dismiss(self, camera: str, process: int) -> None:
        """Know one camera less: this process has none of its frames, and will have none."""
        row = self.camera_index[camera]
        self._cells["holds_from"][process, row] = self._captured[row]
        for path in range(self.layout.ways):
            self._settled_below.pop((row, path), None)
        left = {name: r for name, r in self.layout.cameras.items() if name != camera}
        self.know(replace(self.layout, cameras=left))

    @classmethod
    def local(cls, layout: Layout) -> Ledger:
        """A ledger in memory of its own."""
        fd = os.memfd_create("manyeyes-ledger", os.MFD_CLOEXEC)
        os.ftruncate(fd, layout.nbytes)
        ledger = cls(fd, layout)
        os.close(fd)
        return ledger

    def put(self, name: str, place: int | tuple[int, ...], value: int) -> None:
        """Set one cell that this process owns."""
        self._cells[name][place] = value

    def add(self, name: str, place: int | tuple[int, ...], n: int = 1) -> None:
        """Add to one cell that this process owns."""
        self._cells[name][place] += n

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._arrays[name]

    def capture(self, camera: int, holder: int) -> int:
        """A frame came from the source: its id, in flight on all paths. The camera's process only."""
        if holder != self._fresh[0]:
            fates = np.zeros(self.layout.ways, FATE)  # of sinks that may come, too
            fates["holder"][: len(PATHS)] = holder
            self._fresh = holder, fates.tobytes()
        fresh = self._fresh[1]
        frame_id: int = self._captured[camera]
        first = (camera * RING + frame_id % RING) * len(fresh)
        self._fates[first : first + len(fresh)] = fresh
        self._captured[camera] = frame_id + 1
        return frame_id

    def has_place(self, camera: int) -> bool:
        """Whether one more frame can be captured without overwriting one that was not added up yet.

        False only for a source of thousands of frames a second, or where the supervisor stands still.
        """
        captured: int = self._captured[camera]
        return captured - self._cells["counted_below"][camera] < RING  # type: ignore[no-any-return]

    def offer(self, camera: int, way: int, frame_id: int, holder: int) -> None:
        """The frame came to the end of its path, in the hands of `holder`; a sink is to have it."""
        place = camera, way, frame_id % RING
        if self._recent(camera, frame_id) and not self._cells["offered"][place]:
            self._holders[place] = holder
            self._cells["offered"][place] = 1

    def is_on(self, camera: int, way: int, frame_id: int) -> bool:
        """Whether the frame is on this way: on every path, and on that of a sink which is to have it."""
        return way < len(PATHS) or bool(self._cells["offered"][camera, way, frame_id % RING])

    def deliver(self, camera: int, path: int, frame_id: int) -> None:
        """The frame reached the end of its path, or its sink has it."""
        if self._recent(camera, frame_id):
            place = camera, path, frame_id % RING
            if self._dropped[place] not in _OPEN and not self._cells["twice"][place]:
                self._cells["contradicted"][camera, path] += 1
            self._delivered[place] = 1

    def drop(self, camera: int, path: int, frame_id: int, reason: str) -> None:
        """The frame ended before the end of its way. Whoever is late with `stage_died` says nothing new."""
        if not self._recent(camera, frame_id):
            return
        place, code = (camera, path, frame_id % RING), REASON[reason]
        before, is_twice = self._dropped[place], self._cells["twice"][place]
        if is_twice and code in _DISPLACED:
            code = _STAGE_DIED
        if self._delivered[place] or before not in (*_OPEN, code):
            if code == _STAGE_DIED or is_twice:
                return
            self._cells["contradicted"][camera, path] += 1
        self._dropped[place] = code

    def send_again(self, camera: int, frame_id: int) -> None:
        """The frame sets out a second time, from who fed a process that died: it may meet two fates."""
        if self._recent(camera, frame_id):
            for way in range(self.layout.ways):
                self._cells["twice"][camera, way, frame_id % RING] = 1

    def hold(self, camera: int, path: int, frame_id: int, holder: int) -> None:
        """This process (`holder_code`) has the frame now."""
        if 0 < self._captured[camera] - frame_id < RING:  # as in _recent
            self._holders[camera, path, frame_id % RING] = holder

    def settled(self, camera: int, path: int, frame_id: int) -> bool:
        """Whether the frame has met its fate."""
        place = (camera, path, frame_id % RING)
        return bool(self._delivered[place] or self._dropped[place])

    def dropped(self, camera: int, path: int, frame_id: int) -> bool:
        """Whether the frame was dropped, so that no result of it will come."""
        place = (camera, path, frame_id % RING)
        return bool(self._dropped[place] and not self._delivered[place])

    def oldest_unsettled(self, camera: int, path: int, below: int) -> int:
        """The smallest id of a frame that is in flight, or `below` if that is smaller."""
        first: int = max(self._cells["began_at"][camera], below - RING // 2)
        low = self._settled_below.get((camera, path), first)
        while low < below and self.settled(camera, path, low):
            low += 1
        self._settled_below[camera, path] = low
        return low

    def is_through(self, camera: int, below: int) -> bool:
        """Whether every frame below this id has met its fate on the detect path, and at each sink of
        results that it came to."""
        if self.oldest_unsettled(camera, DETECT, below) < below:
            return False
        first = max(int(self._cells["began_at"][camera]), below - RING // 2)
        places = np.arange(first, below) % RING
        fates = (self[name][camera][:, places] > 0 for name in ("offered", "delivered", "dropped"))
        offered, delivered, dropped = fates
        ways = [way for way, path in self.layout.sinks.values() if path == DETECT]
        return not (offered & ~(delivered | dropped))[ways].any()

    def fates(self, camera: int, path: int, since: int) -> tuple[int, int, dict[str, int]]:
        """Of the frames from `since` to the first that is in flight: that one's id, how many were
        delivered, and how many dropped, by reason. Of older frames than the ring has nothing is known."""
        below = self.oldest_unsettled(camera, path, int(self._captured[camera]))
        first = max(since, below - RING // 2, int(self._cells["began_at"][camera]))
        places = np.arange(first, below) % RING
        delivered = self["delivered"][camera, path, places] > 0
        codes = np.bincount(self["dropped"][camera, path, places][~delivered], minlength=1)
        dropped = {REASONS[code]: int(codes[code]) for code in np.flatnonzero(codes).tolist()}
        return max(since, below), int(delivered.sum()), dropped

    def tell_held(self, process: int, oldest: Mapping[int, int]) -> None:
        """This process has no frames of a camera (its row) below this id."""
        for camera, frame_id in oldest.items():
            self._cells["holds_from"][process, camera] = frame_id
        self._cells["holds_told"][process] += 1

    def count(self, process: str, name: str, camera: str, n: int = 1) -> None:
        """Add to a counter that the layout knows."""
        self.add("counters", self._counter(process, name, camera), n)

    def counted(self, process: str, name: str, camera: str) -> int:
        """What `count` has added up."""
        n: int = self._cells["counters"][self._counter(process, name, camera)]
        return n

    def counters_of(self, process: str, camera: str) -> npt.NDArray[np.uint64]:
        """All counters of a process for a camera, in their order: uint64 (N,)."""
        rows = list(self.layout.counters[process].values())
        counters: npt.NDArray[np.uint64] = self._arrays["counters"][rows, self.camera_index[camera]]
        return counters

    def set_counters(self, process: str, camera: str, counters: bytes) -> None:
        """To what `counters_of` was. Raises ValueError for another number of them."""
        rows = list(self.layout.counters[process].values())
        column = self._arrays["counters"][:, self.camera_index[camera]]
        column[rows] = np.frombuffer(counters, np.uint64)

    def counted_in_all(self, process: str, name: str) -> int:
        """What `count` has added up for all cameras of the run, those among them that have left."""
        return int(self._arrays["counters"][self.layout.counters[process][name]].sum())

    def begin(self, row: int, frames: int) -> None:
        """The row is that of a camera that joins, after `frames` of it in this run. The supervisor only,
        when no process knows the row."""
        counters = self._arrays["counters"]
        counters[:, -1] += counters[:, row]
        for name in _OF_CAMERAS:
            self._arrays[name][row] = 0
        for name in ("holds_from", "processed", "counters", "states"):
            self._arrays[name][:, row] = 0
        for name in ("captured", "began_at", "counted_below"):
            self._arrays[name][row] = frames

    def begin_process(self, process: str) -> None:
        """Its rows are those of a process that is new, and known here. The supervisor only."""
        layout = self.layout
        for name in _OF_PROCESSES:
            self._arrays[name][layout.processes[process]] = 0
        counters, durations = layout.counters[process], layout.histograms[process]
        self.clear([*counters.values()], [*durations.values()])
        if process in layout.states:
            self._arrays["states"][layout.states[process]] = 0
        if process in layout.sinks:
            way, _ = layout.sinks[process]
            for name in ("contradicted", *(FATE.names or ())):
                self._arrays[name][:, way] = 0

    def clear(self, counters: Sequence[int], histograms: Sequence[int]) -> None:
        """These rows are of new counters and histograms. The supervisor only, when nobody knows them."""
        self._arrays["counters"][counters] = 0
        self._arrays["durations"][histograms] = 0
        self._arrays["durations_sum"][histograms] = 0

    def states(self, process: str) -> States:
        """What a process that the layout has among its `states` remembers."""
        return States(self._arrays["states"][self.layout.states[process]])

    def _counter(self, process: str, name: str, camera: str) -> tuple[int, int]:
        return self.layout.counters[process][name], self.camera_index[camera]

    def observe(self, name: str, row: int, seconds: float) -> None:
        """Put a duration into the histogram `name` of a process or camera."""
        cells, sums = self._histograms[name]
        cells[row, bisect_left(_EDGES_S, seconds)] += 1
        sums[row] += seconds

    def measure(self, process: str, name: str, seconds: float) -> None:
        """Put a duration into a histogram of a process that the layout knows."""
        self.observe("durations", self.layout.histograms[process][name], seconds)

    def histogram(self, process: str, name: str) -> tuple[npt.NDArray[np.uint64], float]:
        """What `measure` has put there: cells of EDGES_S, and the sum in seconds."""
        row = self.layout.histograms[process][name]
        return self._arrays["durations"][row], float(self._arrays["durations_sum"][row])

    def _recent(self, camera: int, frame_id: int) -> bool:
        # a process that was stopped for a minute must not mark a newer frame with an old one's fate, nor
        # may what is of no frame (happenings.NO_FRAME) mark any
        captured: int = self._captured[camera]
        return 0 < captured - frame_id < RING


def holder_code(process: int, incarnation: int) -> int:
    """What a process writes into `holder`; another one after each restart."""
    return (process + 1) << 16 | incarnation & 0xFFFF


def quantile_s(cells: npt.NDArray[Any], q: float) -> float | None:
    """The q-quantile (0..1) of a histogram of EDGES_S in seconds; None if it is empty.

    Interpolated inside the cell, so within 10 % of the exact value.
    """
    total = int(cells.sum())
    if total == 0:
        return None
    cumulative = np.cumsum(cells)
    cell = int(np.searchsorted(cumulative, q * total, side="left"))
    high = float(EDGES_S[min(cell, len(EDGES_S) - 1)])
    low = float(EDGES_S[cell - 1]) if 0 < cell <= len(EDGES_S) else 0.0
    below = float(cumulative[cell - 1]) if cell else 0.0
    share = (q * total - below) / max(1.0, float(cells[cell]))
    return low + (high - low) * min(1.0, max(0.0, share))
