"""Which rows and cells the ledger of a run has: what it has room for, and whose each row is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from types import MappingProxyType
from typing import Any

import numpy as np

from pipeline.accounts.states import PAGE_BYTES

RING = 4096  # frames of a camera; far more than can be in flight
PATHS = ("detect", "view")
DETECT, VIEW = 0, 1  # as places in the ledger; each sink that keeps an account has one behind them

# Upper limits of histogram cells, in seconds: 0.1 ms to 100 s, 12 a decade (ratio 1.21)
EDGES_S = np.logspace(-4, 2, 73)
MAX_BATCH = 256
_SPARE_PROCESSES = 12  # of models that come with a camera
_SPARE_COUNTERS = 2048  # of these, and of zones and lines that come: a line has some for each class
_SPARE_HISTOGRAMS = 32
_SPARE_SINKS = 4
_SPARE_STATES = 2  # each of 128 KiB a camera
COUNTERS_OF_A_CAMERA = 8  # of the process of one that comes later, at most

# Of a frame on a path: one word, so that a frame begins with one store, and a reader finds all in one line.
FATE = np.dtype(
    {
        "names": [
            "delivered",
            "dropped",
            "offered",
            "twice",
            "holder",
        ],  # by who delivers, ends, offers, sends it again, has it
        "formats": ["u1", "u1", "u1", "u1", "u4"],
        "offsets": [0, 1, 2, 3, 4],
        "itemsize": 8,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the ledger of a run has room for, and the rows that one knows by name.

    The supervisor knows them all (`of`). A process is told its own (`part`), so that its first message
    does not grow with the cameras, classes and processes that it has nothing to do with.
    """

    # rows for cameras, processes, counters, histograms, sinks and states
    room: tuple[int, int, int, int, int, int]
    cameras: dict[str, int]  # name → row
    processes: dict[str, int]
    counters: dict[str, dict[str, int]]  # process → name → row, which has a cell for every camera
    has_view: bool = True
    # those with an account: process → its way, and the path behind whose end that is
    sinks: dict[str, tuple[int, int]] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)  # processes that remember something → row
    histograms: dict[str, dict[str, int]] = field(default_factory=dict)  # process → name → row

    @classmethod
    def of(
        cls,
        cameras: Sequence[str],
        processes: Sequence[str],
        counters: Mapping[str, Sequence[str]] = MappingProxyType({}),
        *,
        has_view: bool = True,
        sinks: Mapping[str, tuple[int, int]] = MappingProxyType({}),
        states: Sequence[str] = (),
        histograms: Mapping[str, Sequence[str]] = MappingProxyType({}),
        spare: int = 0,
    ) -> Layout:
        """Rows in this order; counters, histograms: names of those of each process that has any.

        sinks: as in the layout. spare: cameras that may come later, each with a process of its own.
        """
        rows, durations = _rows(counters), _rows(histograms)
        n = sum(map(len, rows.values()))
        ways = 1 + max((way for way, _ in sinks.values()), default=len(PATHS) - 1)
        return cls(
            room=(
                len(cameras) + spare,
                len(processes) + spare + (_SPARE_PROCESSES if spare else 0),
                n + spare * COUNTERS_OF_A_CAMERA + (_SPARE_COUNTERS if spare else 0),
                sum(map(len, durations.values())) + (_SPARE_HISTOGRAMS if spare else 0),
                ways - len(PATHS) + (_SPARE_SINKS if spare else 0),
                len(states) + (_SPARE_STATES if spare else 0),
            ),
            cameras={name: row for row, name in enumerate(cameras)},
            processes={name: row for row, name in enumerate(processes)},
            counters=rows,
            has_view=has_view,
            sinks=dict(sinks),
            states={name: row for row, name in enumerate(states)},
            histograms=durations,
        )

    def part(self, process: str, cameras: Sequence[str]) -> Layout:
        """As one process of these cameras has to know it: the same memory, its own names."""
        return replace(
            self,
            cameras={camera: self.cameras[camera] for camera in cameras},
            processes={process: self.processes[process]},
            counters={process: self.counters.get(process, {})},
            histograms={process: self.histograms.get(process, {})},
        )

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Layout:
        """Back from `dataclasses.asdict` and JSON, which knows no tuples."""
        sinks = {process: (way, path) for process, (way, path) in fields["sinks"].items()}
        return cls(**{**fields, "room": tuple(fields["room"]), "sinks": sinks})

    @property
    def ways(self) -> int:
        """Fates of a frame that are kept apart: of two paths, and of each sink that there is room for."""
        return len(PATHS) + self.room[4]

    def fields(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Name → dtype and shape of every array."""
        (c, p, n, h, _, s), cells = self.room, len(EDGES_S) + 1
        u1, u8, f8 = (np.dtype(kind) for kind in ("u1", "u8", "f8"))
        return {
            "captured": (u8, (c,)),  # by the camera's process
            "began_at": (u8, (c,)),  # by the supervisor: what was captured before the camera joined
            "camera_up": (u1, (c,)),
            "down_cause": (u1, (c,)),  # of errors.CAUSES, where it is not up
            "stream_epoch": (u8, (c,)),
            "last_frame_ns": (u8, (c,)),
            "fate": (FATE, (c, RING, self.ways)),
            "contradicted": (u8, (c, self.ways)),  # by who sees it: a lost increment leaves it > 0
            "counted_below": (u8, (c,)),  # by the supervisor: frames that are added up for good
            "holds_from": (u8, (p, c)),  # the process has no frame of the camera with a smaller id
            "holds_told": (u8, (p,)),  # how often it has said so
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
            # by their process; the last cell is the supervisor's, for all cameras that have left
            "counters": (u8, (max(1, n), c + 1)),
            "durations": (u8, (max(1, h), cells)),  # by their process
            "durations_sum": (f8, (max(1, h),)),
            "states": (u1, (max(1, s), c, 2, PAGE_BYTES if s else 1)),
        }

    @property
    def nbytes(self) -> int:
        """Bytes of memory that a ledger of this layout takes."""
        return sum(padded(dtype, shape) for dtype, shape in self.fields().values())


def _rows(names: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    free = count()
    return {process: {name: next(free) for name in own} for process, own in names.items()}


def padded(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Bytes of an array, up to the end of its last cache line."""
    return -(-int(np.prod(shape)) * dtype.itemsize // 64) * 64
