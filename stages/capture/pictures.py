"""A folder of pictures, a glob, or one picture, as a source: bgr24, sorted by name."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError, EndOfStream, FrameError, SourceError
from pipeline.redaction import shown
from pipeline.stage import Picture, Source
from stages.capture.clock import RecordingClock
from stages.capture.sizes import check_max_size, fit_size

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 50_000_000  # of one picture; a PNG of 1 MB can ask for gigabytes


@dataclass(frozen=True, kw_only=True)
class PicturesConfig:
    """Which pictures, and how fast."""

    path: str  # a folder (not its folders), a glob such as "in/*.jpg", or one picture
    max_size: tuple[int, int] = (1920, 1080)  # px; a picture with more pixels is scaled down
    rate_hz: float | None = None  # pictures a second; None: as fast as asked
    loop: bool = False  # begin again after the last


class PicturesSource(Source):
    """Each picture is one frame. Orientation in EXIF is applied, as cv2.imread does by default."""

    Config = PicturesConfig
    config: PicturesConfig

    def __init__(self, config: PicturesConfig) -> None:
        super().__init__(config)
        self.turn_s = 5.0  # a picture of MAX_PIXELS
        self._paths: Sequence[Path] = ()
        self._step_ns = round(1e9 / (config.rate_hz or 25.0))
        self._next = self._first = 0
        self._clock = RecordingClock()

    @classmethod
    def check(cls, config: PicturesConfig) -> None:
        """Refuse sizes and rates that can't be, and a folder that holds folders instead of pictures."""
        check_max_size(config.max_size)
        folder = Path(config.path)
        if not find_pictures(config.path) and any(path.is_dir() for path in folder.glob("*")):
            raise ConfigError(
                f"{folder}: holds no picture itself, and its folders are not searched; "
                f"name a folder of pictures, or a pattern such as '{folder}/*/*.jpg'"
            )
        if config.rate_hz is not None and not 0 < config.rate_hz <= 1000:
            raise ConfigError(
                f"rate_hz must be within 0..1000 pictures a second, got {config.rate_hz}"
            )

    @classmethod
    def slot_bytes(cls, config: PicturesConfig, frame_bytes: int) -> int:
        """Room for a bgr24 picture of `max_size`."""
        width, height = config.max_size
        return width * height * 3

    @classmethod
    def counters(cls, config: PicturesConfig) -> tuple[str, ...]:
        """`scaled`: pictures that were too large for a slot."""
        return ("scaled",)

    def setup(self) -> None:
        """Import OpenCV, with a limit that it reads only now."""
        os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
        os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
        import cv2  # noqa: F401

    def resume(self, frames: int) -> None:
        """Go on behind so many pictures."""
        self._first = frames

    def open(self) -> None:
        """List the pictures. Raises SourceError if there are none."""
        self._clock = RecordingClock()
        if self._first:
            self._clock.pts_ns = (self._first - 1) * self._step_ns
        self._list()
        n = len(self._paths)
        self._next = self._first % n if self.config.loop else min(self._first, n)

    def read(self, buffer: npt.NDArray[np.uint8]) -> Picture:
        """The next picture as bgr24; FrameError names a file that is none."""
        import cv2

        path = self._advance()
        try:
            # not imread: it ends the process where a name is not UTF-8
            data = np.frombuffer(path.read_bytes(), np.uint8)
            image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        except OSError as error:
            raise FrameError(f"picture {path}: can't be read: {error.strerror}") from None
        except cv2.error as error:
            raise FrameError(f"picture {path}: refused by OpenCV: {error.err}") from None
        if image is None:
            raise FrameError(
                f"picture {path}: can't be decoded; wanted one of {', '.join(SUFFIXES)}"
            )
        height, width = image.shape[:2]
        out_w, out_h = fit_size(width, height, buffer.size // 3)
        target = buffer[: out_w * out_h * 3].reshape(out_h, out_w, 3)
        if (out_w, out_h) == (width, height):
            np.copyto(target, image)
        else:
            self.runtime.count("scaled", self.runtime.cameras[0])
            cv2.resize(image, (out_w, out_h), dst=target, interpolation=cv2.INTER_AREA)
        return Picture(
            width=out_w,
            height=out_h,
            source_size=(width, height),
            format="bgr24",
            pts_ns=self._clock.pts_ns,
            keyframe=True,
            # a name that is not UTF-8 can't be sent, nor stand in JSON
            name=os.fsencode(path.name).decode(errors="backslashreplace"),
        )

    def skip(self) -> bool:
        """Leave out one picture, unread."""
        self._advance()
        return True

    def _list(self) -> None:
        self._paths, self._next = find_pictures(self.config.path), 0
        if not self._paths:
            raise SourceError(
                f"source {shown(self.config.path)}: no pictures; wanted a folder, a glob or a file "
                f"with names in {', '.join(SUFFIXES)}"
            )
        self._clock.start_lap(self._step_ns)

    def _advance(self) -> Path:
        """The next path, when it is due."""
        if not self._paths:
            raise SourceError(f"source {shown(self.config.path)}: is not open")
        if self._next == len(self._paths):
            if not self.config.loop:
                raise EndOfStream(f"source {shown(self.config.path)}: was the last picture")
            self._list()
        path = self._paths[self._next]
        self._next += 1
        if self.config.rate_hz is None:
            self._clock.tick(None)
        else:
            self._clock.wait(None)
        return path


def find_pictures(path: str) -> list[Path]:
    """The pictures of a folder, of a glob, or the one file, sorted by name."""
    folder = Path(path)
    if folder.is_file():
        return [folder]
    found = folder.iterdir() if folder.is_dir() else map(Path, glob.glob(path))
    return sorted(p for p in found if p.suffix.lower() in SUFFIXES and p.is_file())
