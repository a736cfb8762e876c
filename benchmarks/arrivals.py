"""When which frame came to a sink: the sinks of the recovery benchmark and what they write into."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.messages import Frame, Result
from pipeline.stage import Sink

RING = 8192  # frames a camera


class Arrivals:
    """The first arrival of each frame of each camera at one sink, in a file that outlives the sink."""

    def __init__(self, path: Path | str, cameras: int) -> None:
        mode = "r+" if os.path.exists(path) else "w+"
        # (cameras, RING, 2): frame_id + 1, monotonic ns
        self._cells: Any = np.asarray(np.memmap(path, np.int64, mode, shape=(cameras, RING, 2)))

    def note(self, camera: int, frame_id: int) -> None:
        """It is here."""
        cell = self._cells[camera, frame_id % RING]
        if cell[0] != frame_id + 1:
            cell[1] = time.monotonic_ns()
            cell[0] = frame_id + 1

    def first_from(self, camera: int, frame_id: int, since_ns: int) -> int | None:
        """When the first frame with at least this number came; None: none did yet."""
        ids, times = self._cells[camera].T
        newer = times[(ids > frame_id) & (times >= since_ns)]
        return int(newer.min()) if len(newer) else None


@dataclass(frozen=True, kw_only=True)
class ArrivalsConfig:
    """Where to note what."""

    path: str


class ResultArrivals(Sink):
    """A sink of results."""

    Config = ArrivalsConfig

    def setup(self) -> None:
        """Map the file."""
        self._cameras = {name: i for i, name in enumerate(self.runtime.cameras)}
        self._arrivals = Arrivals(self.config.path, len(self._cameras))

    def process(self, result: Result) -> None:
        """Note it."""
        self._arrivals.note(self._cameras[result.info.camera], result.info.frame_id)


class FrameArrivals(ResultArrivals):
    """A sink of drawn frames."""

    def process(self, frame: Frame) -> None:  # type: ignore[override]
        """Note it."""
        self._arrivals.note(self._cameras[frame.info.camera], frame.info.frame_id)
