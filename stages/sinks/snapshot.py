"""Snapshot: the newest annotated picture of each camera as a JPEG, replaced whole."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError, FrameError
from pipeline.messages import Frame
from pipeline.stage import Sink
from stages.sinks.files import DISK_TURN_S, check_folder, make_folder, stem_of


@dataclass(frozen=True, kw_only=True)
class SnapshotConfig:
    """Where, and how often."""

    path: str  # a folder: gets <camera>.jpg; made if missing
    interval_s: float = 1.0  # between two pictures of a camera, 0.05 and more
    quality: int = 85  # of the JPEG, 1..100


class Snapshot(Sink):
    """Whoever opens a snapshot finds a whole one: it is written aside and moved into place."""

    Config = SnapshotConfig
    config: SnapshotConfig
    turn_s = DISK_TURN_S

    def __init__(self, config: SnapshotConfig) -> None:
        super().__init__(config)
        self.max_hz = 1 / max(config.interval_s, 0.05)

    @classmethod
    def check(cls, config: SnapshotConfig) -> None:
        """Raises ConfigError if a number is out of range or the folder can't be written."""
        if not 0.05 <= config.interval_s <= 86400:
            raise ConfigError(
                f"sink snapshot: interval_s must be within 0.05..86400 s, got {config.interval_s}"
            )
        if not 1 <= config.quality <= 100:
            raise ConfigError(f"sink snapshot: quality must be within 1..100, got {config.quality}")
        check_folder("snapshot", Path(config.path))

    def setup(self) -> None:
        """Make the folder."""
        import cv2  # noqa: F401 - loaded before the first frame and not with it

        self.check(self.config)
        make_folder("snapshot", Path(self.config.path))

    def process(self, frame: Frame) -> None:
        """Replace the snapshot of the frame's camera. Raises FrameError if the disk does not take it."""
        import cv2

        quality = [cv2.IMWRITE_JPEG_QUALITY, self.config.quality]
        data = cv2.imencode(".jpg", frame.image, quality)[1]
        name = f"{stem_of(frame.info.camera)}.jpg"
        path = os.path.join(self.config.path, name)
        aside = os.path.join(self.config.path, f".{name}.part")  # a crash leaves one at most
        try:
            with open(aside, "wb") as file:
                file.write(data.data)
            os.replace(aside, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(aside)  # what was written of it takes the room of the next one
            raise FrameError(
                f"sink snapshot: {path} can't be written ({error.strerror}); make room"
            ) from error
