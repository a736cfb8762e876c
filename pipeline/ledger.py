"""The counters of a run, in memory that survives every stage. One writer a cell, no locks.

For each camera and path (detect, view) the ledger knows the fate of every frame:

    captured = delivered + Σ dropped{reason} + in flight        at any time, across kill -9

`captured` is one number a camera. Who ends a frame marks it in a ring of the last frames, at
frame_id mod RING: delivered in one array, the reason of a drop in another. So marking twice changes
nothing, and a delivery overrides a verdict that the frame was lost with a dead process. What is in
flight is counted (no mark yet), never computed as a remainder. Only the supervisor adds up (`Tally`).

`holder` says which process had the frame last (its incarnation, too), so that the supervisor can tell
what a dead process took with it.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.memory import shared

RING = 4096  # frames a camera and path; far more than can be in flight
PATHS = ("detect", "view")
DETECT, VIEW = 0, 1

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
)
REASON = {name: code for code, name in enumerate(REASONS)}

# Upper limits of histogram cells, in seconds: 0.1 ms to 100 s, 12 a decade (ratio 1.21)
EDGES_S = np.logspace(-4, 2, 73)
_EDGES_S = EDGES_S.tolist()
MAX_BATCH = 256

# Of a frame on a path: one word, so that a frame begins with one store, and a reader finds all in one line.
_FATE = np.dtype(
    {
        "names": ["delivered", "dropped", "holder"],  # by who delivers it, ends it, has it
        "formats": ["u1", "u1", "u4"],
        "offsets": [0, 1, 4],
        "itemsize": 8,
    }
)
_HOLDER_BIT = 32  # of the word, on the little-endian machines that there are


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the ledger of a run has room for, and the rows that one knows by name.

    The supervisor knows them all (`of`). A process is told its own (`part`), so that its first message
    does not grow with the cameras, classes and processes that it has nothing to do with.
    """

    room: tuple[int, int, int]  # rows for cameras, processes and counters
    cameras: dict[str, int]  # name → row
    processes: dict[str, int]
    counters: dict[str, dict[str, int]]  # process → name → row, which has a cell for every camera
    has_view: bool = True

    @classmethod
    def of(
        cls,
        cameras: Sequence[str],
        processes: Sequence[str],
        counters: Mapping[str, Sequence[str]] = MappingProxyType({}),
        *,
        has_view: bool = True,
    ) -> Layout:
        """Rows in this order; counters: the names of those of each process that has any."""
        free = count()
        rows = {p: {name: next(free) for name in names} for p, names in counters.items()}
        return cls(
            room=(len(cameras), len(processes), sum(map(len, rows.values()))),
            cameras={name: row for row, name in enumerate(cameras)},
            processes={name: row for row, name in enumerate(processes)},
            counters=rows,
            has_view=has_view,
        )

    def part(self, process: str, cameras: Sequence[str]) -> Layout:
        """As one process of these cameras has to know it: the same memory, its own names."""
        return replace(
            self,
            cameras={camera: self.cameras[camera] for camera in cameras},
            processes={process: self.processes[process]},
            counters={process: self.counters.get(process, {})},
        )

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Layout:
        """Back from `dataclasses.asdict` and JSON, which knows no tuples."""
        cameras, processes, counters = fields["room"]
        return cls(**{**fields, "room": (cameras, processes, counters)})

    def fields(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Name → dtype and shape of every array."""
        (c, p, n), cells = self.room, len(EDGES_S) + 1
        u1, u8, f8 = (np.dtype(kind) for kind in ("u1", "u8", "f8"))
        return {
            "captured": (u8, (c,)),  # by the camera's process
            "camera_up": (u1, (c,)),
            "stream_epoch": (u8, (c,)),
            "last_frame_ns": (u8, (c,)),
            "fate": (_FATE, (c, RING, 2)),
            "beat_ns": (u8, (p, 2)),  # last turn of the main loop, of the camera's reader thread
            "processed": (u8, (p, c)),
            "torn": (u8, (p,)),
            "garbage": (u8, (p,)),
            "stage_seconds": (u8, (p, cells)),
            "stage_seconds_sum": (f8, (p,)),
            "wait_seconds": (u8, (p, cells)),
            "wait_seconds_sum": (f8, (p,)),
            "batch_size": (u8, (p, MAX_BATCH + 1)),
            "latency_seconds": (u8, (c, cells)),  # by postprocess
            "latency_seconds_sum": (f8, (c,)),
            "slots": (u8, (p, 2)),  # free, leased
            "counters": (u8, (max(1, n), c)),  # by their process
        }

    @property
    def nbytes(self) -> int:
        """Bytes of memory that a ledger of this layout takes."""
        return sum(_padded(dtype, shape) for dtype, shape in self.fields().values())


def _padded(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    return -(-int(np.prod(shape)) * dtype.itemsize // 64) * 64


class Ledger:
    """The arrays of a layout over shared memory, and the few ways to write them."""

    def __init__(self, fd: int, layout: Layout) -> None:
        self.layout = layout
        memory = shared(fd, layout.nbytes)
        self._arrays: dict[str, npt.NDArray[Any]] = {}
        offset = 0
        for name, (dtype, shape) in layout.fields().items():
            count = int(np.prod(shape))
            raw = memory[offset : offset + count * dtype.itemsize]
            self._arrays[name] = raw.view(dtype).reshape(shape)
            offset += _padded(dtype, shape)
        fate = self._arrays.pop("fate")
        for name in _FATE.names or ():
            self._arrays[name] = fate[name].swapaxes(1, 2)  # (cameras, 2, RING)
        # single cells through memoryviews: one aligned store, and a tenth of numpy's way to a scalar
        self._cells: dict[str, Any] = {name: memoryview(a.data) for name, a in self._arrays.items()}
        self._fates: Any = memoryview(fate.view(np.uint64).data)
        self.camera_index, self.process_index = layout.cameras, layout.processes
        self._settled_below: dict[tuple[int, int], int] = {}

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
        frame_id: int = self._cells["captured"][camera]
        place = frame_id % RING
        self._fates[camera, place, DETECT] = self._fates[camera, place, VIEW] = (
            holder << _HOLDER_BIT
        )
        self._cells["captured"][camera] = frame_id + 1
        return frame_id

    def deliver(self, camera: int, path: int, frame_id: int) -> None:
        """The frame reached the end of its path."""
        if self._recent(camera, frame_id):
            self._cells["delivered"][camera, path, frame_id % RING] = 1

    def drop(self, camera: int, path: int, frame_id: int, reason: str) -> None:
        """The frame ended before the end of its path."""
        if self._recent(camera, frame_id):
            self._cells["dropped"][camera, path, frame_id % RING] = REASON[reason]

    def hold(self, camera: int, path: int, frame_id: int, holder: int) -> None:
        """This process (`holder_code`) has the frame now."""
        if self._cells["captured"][camera] - frame_id < RING:  # as in _recent
            self._cells["holder"][camera, path, frame_id % RING] = holder

    def settled(self, camera: int, path: int, frame_id: int) -> bool:
        """Whether the frame has met its fate."""
        place = (camera, path, frame_id % RING)
        return bool(self._cells["delivered"][place] or self._cells["dropped"][place])

    def dropped(self, camera: int, path: int, frame_id: int) -> bool:
        """Whether the frame was dropped, so that no result of it will come."""
        place = (camera, path, frame_id % RING)
        return bool(self._cells["dropped"][place] and not self._cells["delivered"][place])

    def oldest_unsettled(self, camera: int, path: int, below: int) -> int:
        """The smallest id of a frame that is in flight, or `below` if that is smaller."""
        low = self._settled_below.get((camera, path), max(0, below - RING // 2))
        while low < below and self.settled(camera, path, low):
            low += 1
        self._settled_below[camera, path] = low
        return low

    def count(self, process: str, name: str, camera: str, n: int = 1) -> None:
        """Add to a counter that the layout knows."""
        self.add("counters", self._counter(process, name, camera), n)

    def counted(self, process: str, name: str, camera: str) -> int:
        """What `count` has added up."""
        n: int = self._cells["counters"][self._counter(process, name, camera)]
        return n

    def _counter(self, process: str, name: str, camera: str) -> tuple[int, int]:
        return self.layout.counters[process][name], self.camera_index[camera]

    def observe(self, name: str, row: int, seconds: float) -> None:
        """Put a duration into the histogram `name` of a process or camera."""
        self.add(name, (row, bisect_left(_EDGES_S, seconds)))
        self._cells[name + "_sum"][row] += seconds

    def _recent(self, camera: int, frame_id: int) -> bool:
        # a process that was stopped for a minute must not mark a newer frame with an old one's fate
        captured: int = self._cells["captured"][camera]
        return captured - frame_id < RING


def holder_code(process: int, incarnation: int) -> int:
    """What a process writes into `holder`; another one after each restart."""
    return (process + 1) << 16 | incarnation & 0xFFFF


@dataclass
class Tally:
    """The totals of one camera and path. Only the supervisor adds up.

    Frames older than half a ring are final; the rest is counted anew each time.
    """

    ledger: Ledger
    camera: int
    path: int
    final_below: int = 0  # frame ids below are in `final`
    final: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(REASONS), np.int64))
    final_delivered: int = 0

    def totals(self) -> Totals:
        """The sum as of now; never waits."""
        captured = int(self.ledger["captured"][self.camera])
        keep_from = max(self.final_below, captured - RING // 2)
        reasons, delivered, lost = self._count(self.final_below, keep_from)
        self.final += reasons
        self.final[REASON["none"]] += lost  # in flight for half a ring: nobody has it, a bug
        self.final_delivered += delivered
        self.final_below = keep_from
        reasons, delivered, in_flight = self._count(keep_from, captured)
        dropped = self.final + reasons
        return Totals(
            captured=captured,
            delivered=self.final_delivered + delivered,
            dropped={name: int(dropped[code]) for name, code in REASON.items() if code},
            in_flight=in_flight,
        )

    def unsettled(self) -> npt.NDArray[np.int64]:
        """The ids of the frames that are in flight now."""
        ids = np.arange(self.final_below, int(self.ledger["captured"][self.camera]))
        place = ids % RING
        rows = (
            self.ledger["delivered"][self.camera, self.path],
            self.ledger["dropped"][self.camera, self.path],
        )
        in_flight: npt.NDArray[np.int64] = ids[(rows[0][place] | rows[1][place]) == 0]
        return in_flight

    def bury(self, holders: Sequence[int], reason: str = "stage_died") -> int:
        """Drop what is in flight in the hands of these dead processes; returns how many frames."""
        ids = self.unsettled()
        held = self.ledger["holder"][self.camera, self.path, ids % RING]
        lost = ids[np.isin(held, holders)]
        for frame_id in lost:
            self.ledger.drop(self.camera, self.path, int(frame_id), reason)
        return len(lost)

    def _count(self, low: int, high: int) -> tuple[npt.NDArray[np.int64], int, int]:
        delivered = _stretch(self.ledger["delivered"][self.camera, self.path], low, high) != 0
        dropped = _stretch(self.ledger["dropped"][self.camera, self.path], low, high)
        counts = np.bincount(dropped[~delivered], minlength=len(REASONS)).astype(np.int64)
        in_flight = int(counts[0])
        counts[0] = 0
        return counts, int(delivered.sum()), in_flight


def _stretch(ring: npt.NDArray[Any], low: int, high: int) -> npt.NDArray[Any]:
    """The cells of the frames low..high-1. Slices, which cost a tenth of what an index array does."""
    first, end = low % RING, low % RING + high - low
    return (ring if end <= RING else np.concatenate([ring] * -(-end // RING)))[first:end]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """One line of the ledger."""

    captured: int
    delivered: int
    dropped: dict[str, int]
    in_flight: int

    @property
    def error(self) -> int:
        """captured − (delivered + dropped + in flight): 0, or frames are lost without a reason."""
        return self.captured - self.delivered - sum(self.dropped.values()) - self.in_flight


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
