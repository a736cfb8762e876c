"""Cameras of the benchmarks: stills from memory at a rate that can be changed while they run.

The stills are rendered once into a file that all cameras map, so a camera costs what a camera costs, and
no renderer. The rates lie in a Pace, a small file: whoever measures writes it, the cameras read it.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.stage import Picture, Source

STILLS = 8
MAX_WAIT_S = 0.5  # how long a change of rate may go unnoticed by a camera without frames


def render_stills(path: Path, size_wh_px: tuple[int, int], count: int = STILLS) -> None:
    """Write `count` pictures of different scenes, i420, one after the other; sides even."""
    from stages.imaging.pixels import to_i420
    from stages.imaging.scenes import still

    with path.open("wb") as file:
        for index in range(count):
            picture, _ = still(7, index, size_wh_px)
            file.write(to_i420(picture).tobytes())


class Pace:
    """Frames a second of every camera: 0 is silence, infinity is as fast as asked.

    Frame k of a camera is due at start + (k + phase) / rate, counted anew from each change.
    """

    def __init__(self, path: Path | str, cameras: int) -> None:
        """Makes the file if it is not there; then all are silent."""
        mode: Any = "r+" if os.path.exists(path) else "w+"
        cells: Any = np.memmap(path, np.float64, mode, shape=(cameras, 4))
        self._cells = np.asarray(cells)  # version, rate, phase 0..1, start in monotonic s

    def set(self, camera: int, rate_hz: float, phase: float, start_s: float) -> None:
        """From `start_s` on. One writer."""
        self._cells[camera, 1:] = rate_hz, phase, start_s
        self._cells[camera, 0] += 1

    def get(self, camera: int) -> tuple[float, float, float, float]:
        """(version, rate, phase, start); the version changes with each `set`."""
        version, rate_hz, phase, start_s = self._cells[camera].tolist()
        return version, rate_hz, phase, start_s


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """Where stills and pace are, and who we are."""

    stills: str  # file of `render_stills`
    pace: str  # file of `Pace`
    cameras: int  # in that file
    camera: int  # our row of it, and the still that comes first
    width: int  # px, even
    height: int


class Replay(Source):
    """Sends the stills round and round, in real time. It drops nothing and skips no due frame."""

    Config = ReplayConfig
    config: ReplayConfig

    @classmethod
    def slot_bytes(cls, config: ReplayConfig, frame_bytes: int) -> int:
        """One i420 picture."""
        return config.width * config.height * 3 // 2

    def setup(self) -> None:
        """Map both files."""
        config = self.config
        nbytes = self.slot_bytes(config, 0)
        self._stills = np.asarray(np.memmap(config.stills, np.uint8, "r")).reshape(-1, nbytes)
        self._pace = Pace(config.pace, config.cameras)
        self._version = -1.0
        self._due = 0  # frames since the last change of the pace
        self._count = config.camera

    def open(self) -> None:
        """Nothing to connect to."""

    def read(self, buffer: np.ndarray[Any, Any]) -> Picture | None:
        """The next still, copied, when it is due."""
        if not self.skip():
            return None
        still = self._stills[(self._count - 1) % len(self._stills)]
        np.copyto(buffer[: still.size], still)
        return Picture(width=self.config.width, height=self.config.height, format="i420")

    def skip(self) -> bool:
        """Let one pass when it is due."""
        version, rate_hz, phase, start_s = self._pace.get(self.config.camera)
        if version != self._version:
            self._version, self._due = version, 0
        if math.isfinite(rate_hz):
            due_s = start_s + (self._due + phase) / rate_hz if rate_hz else math.inf
            wait_s = due_s - time.monotonic()
            time.sleep(min(max(wait_s, 0.0), MAX_WAIT_S))
            if wait_s > MAX_WAIT_S:
                return False
        self._due += 1
        self._count += 1
        return True
