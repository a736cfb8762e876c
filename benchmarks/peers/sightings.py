"""What was found in which frame and when: the log that every rival and our own sink write alike."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipeline.detections import Detections
from pipeline.messages import Result
from pipeline.stage import Sink

MAX_ROWS = 4096  # of a camera; later results are not noted
MAX_BOXES = 32  # of a frame, the best
ROW = np.dtype(
    [
        ("number", "i4"),  # of the frame in the video
        ("boxes", "i4"),
        ("t_ns", "i8"),  # monotonic: its detections are there
        ("box", "f4", (MAX_BOXES, 6)),  # xyxy, score, label
    ]
)


class Sightings:
    """A file that its writers (one a camera) and its reader map; unused pages do not exist."""

    def __init__(self, path: Path | str, cameras: int) -> None:
        """Makes the file if it is not there."""
        mode: Any = "r+" if os.path.exists(path) else "w+"
        shape = (cameras, MAX_ROWS + 1)  # the first row counts the others
        cells: Any = np.memmap(path, ROW, mode, shape=shape)
        self._cells = np.asarray(cells)

    def add(self, camera: int, number: int, found: Detections) -> None:
        """The detections of a frame are there, now."""
        t_ns, cells = time.monotonic_ns(), self._cells[camera]
        place = int(cells["number"][0]) + 1
        if place > MAX_ROWS:
            return
        n = min(len(found), MAX_BOXES)
        row = cells[place]
        row["box"][:n, :4], row["box"][:n, 4] = found.xyxy[:n], found.scores[:n]
        row["box"][:n, 5] = found.labels[:n]
        row["number"], row["boxes"], row["t_ns"] = number, n, t_ns
        cells["number"][0] = place

    def rows(self, camera: int) -> np.ndarray[Any, Any]:
        """The results of a camera, in order, as ROW."""
        return self._cells[camera, 1 : 1 + int(self._cells["number"][camera, 0])]

    @property
    def counts(self) -> list[int]:
        """How many results each camera has."""
        return [int(n) for n in self._cells["number"][:, 0]]


def detections(row: np.ndarray[Any, Any]) -> Detections:
    """What a ROW holds."""
    box = row["box"][: row["boxes"]]
    return Detections(
        np.ascontiguousarray(box[:, :4]), box[:, 4].copy(), box[:, 5].astype(np.int32)
    )


@dataclass(frozen=True, kw_only=True)
class SightingsConfig:
    """Where to note, and how a time stamp becomes a number."""

    path: str
    rates_hz: tuple[float, ...]  # of the cameras, in the order of the run


class SightingsSink(Sink):
    """The sink of our own run."""

    Config: ClassVar[type] = SightingsConfig
    config: SightingsConfig

    def setup(self) -> None:
        """Map the file."""
        self._cameras = {name: i for i, name in enumerate(self.runtime.cameras)}
        self._sightings = Sightings(self.config.path, len(self._cameras))

    def process(self, result: Result) -> None:
        """Note it, unless nobody knows which frame it is: FFmpeg gives no time to the first one."""
        if result.info.pts_ns is None:
            return
        camera = self._cameras[result.info.camera]
        number = round(result.info.pts_ns * self.config.rates_hz[camera] / 1e9)
        self._sightings.add(camera, number, result.detections)
