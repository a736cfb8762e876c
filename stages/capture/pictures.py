"""A folder of pictures, a glob, or one picture, as a source: bgr24, sorted as people sort."""

from __future__ import annotations

import glob
import logging
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import BrokenSource, ConfigError, EndOfStream, FrameError, SourceError
from pipeline.messages import Image
from pipeline.redaction import shown
from pipeline.stage import Picture, Source
from stages.capture.clock import RecordingClock, wait_until
from stages.capture.sizes import check_max_size, write_bgr
from stages.imaging.order import by_number

log = logging.getLogger("manyeyes")

MOVING = (".apng", ".avif", ".gif", ".png", ".webp")  # may hold more than one picture
SUFFIXES = (
    *MOVING, ".bmp", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".pnm", ".ppm", ".tif",
    ".tiff",
)  # fmt: skip

Shot = tuple[Path, int | None]  # a file, and which of its pictures; None: it has but one


@dataclass(frozen=True, kw_only=True)
class PicturesConfig:
    """Which pictures, and how fast."""

    path: str  # a folder (not its folders), a glob such as "in/*.jpg", or one picture
    max_size: tuple[int, int] = (1920, 1080)  # px; a picture with more pixels is scaled down
    rate_hz: float | None = None  # pictures a second; None: as fast as asked
    loop: bool = False  # begin again after the last


class PicturesSource(Source):
    """Each picture is one frame, and each of an animated GIF, PNG, WebP or AVIF.

    Orientation in EXIF, or XMP where EXIF is silent, is applied. How many pixels a picture may have
    is told to OpenCV by the environment, `pipeline.host`.
    """

    Config = PicturesConfig
    config: PicturesConfig
    live = False

    def __init__(self, config: PicturesConfig) -> None:
        super().__init__(config)
        self.turn_s = 5.0  # a picture of the largest size
        self._shots: Sequence[Shot] = ()
        self._step_ns = round(1e9 / (config.rate_hz or 25.0))
        self._next = self._first = 0
        self._due_s: float | None = None  # of the next
        self._clock = RecordingClock()
        self._animation: tuple[Path, Any] | None = None  # the one that was read last

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
        """Import OpenCV and Pillow, which shall not warn of tags that nobody reads."""
        import stages.imaging.decoding  # noqa: F401

        warnings.filterwarnings("ignore", module=r"PIL\.")

    def resume(self, frames: int) -> None:
        """Go on behind so many pictures."""
        self._first = frames

    def open(self) -> None:
        """List the pictures. Raises BrokenSource if there are none."""
        self._clock = RecordingClock()
        if self._first:
            self._clock.pts_ns = (self._first - 1) * self._step_ns
        self._list()
        n = len(self._shots)
        self._next = self._first % n if self.config.loop else min(self._first, n)
        if left_out := _left_out(self.config.path):
            log.warning(
                "source %s: left out by their suffix: %s", shown(self.config.path), left_out
            )

    def read(self, buffer: npt.NDArray[np.uint8]) -> Picture | None:
        """The next picture as bgr24; FrameError names a file that is none."""
        shot = self._advance()
        if shot is None:
            return None
        path, index = shot
        image = _still(path) if index is None else self._of_animation(path, index)
        width, height = write_bgr(image, buffer)
        if (width, height) != image.shape[1::-1]:
            self.runtime.count("scaled", self.runtime.cameras[0])
        return Picture(
            width=width,
            height=height,
            source_size=image.shape[1::-1],
            format="bgr24",
            pts_ns=self._clock.pts_ns,
            recorded=True,
            keyframe=True,
            # a name that is not UTF-8 can't be sent, nor stand in JSON
            name=os.fsencode(path.name).decode(errors="backslashreplace"),
        )

    def skip(self) -> bool:
        """Leave out one picture, unread."""
        return self._advance() is not None

    def close(self) -> None:
        """Let go of an animation."""
        if self._animation is not None:
            self._animation[1].close()
            self._animation = None

    def _list(self) -> None:
        self._shots, self._next, self._due_s = shots_of(self.config.path), 0, None
        if not self._shots:
            left_out = _left_out(self.config.path)
            text = (
                f"source {shown(self.config.path)}: no pictures; wanted a folder, a glob or a file "
                f"with names in {', '.join(sorted(SUFFIXES))}"
            )
            raise BrokenSource(f"{text}; there are {left_out}" if left_out else text)
        self._clock.start_lap(self._step_ns)

    def _advance(self) -> Shot | None:
        """The next picture, when it is due; None: later."""
        if not self._shots:
            raise SourceError(f"source {shown(self.config.path)}: is not open")
        if self._next == len(self._shots):
            if not self.config.loop:
                raise EndOfStream(f"source {shown(self.config.path)}: was the last picture")
            self._list()
        if self._due_s is None:
            self._due_s = self._clock.tick(None)
        if self.config.rate_hz is not None and not wait_until(self._due_s):
            return None
        self._due_s = None
        self._next += 1
        return self._shots[self._next - 1]

    def _of_animation(self, path: Path, index: int) -> Image:
        """One of several pictures of a file, which stays open for the next."""
        from PIL import Image as Pil

        from stages.imaging.decoding import orientation_of, upright

        try:
            if self._animation is None or self._animation[0] != path:
                self.close()
                self._animation = path, Pil.open(path)
            image = self._animation[1]
            image.seek(index)
            return upright(np.asarray(image.convert("RGB"))[:, :, ::-1], orientation_of(image))
        except (OSError, EOFError, ValueError, SyntaxError) as error:
            raise FrameError(f"picture {path}: number {index} can't be decoded: {error}") from None


def find_pictures(path: str) -> list[Path]:
    """The files of a folder, of a glob, or the one, that are pictures by their suffix, as people sort."""
    folder = Path(path)
    if folder.is_file():
        return [folder]
    return sorted((p for p in _files(path) if p.suffix.lower() in SUFFIXES), key=by_number)


def shots_of(path: str) -> list[Shot]:
    """The pictures in them: of an animation all."""
    shots: list[Shot] = []
    for file in find_pictures(path):
        count = _count(file)
        shots += [(file, None)] if count == 1 else [(file, index) for index in range(count)]
    return shots


def _files(path: str) -> list[Path]:
    folder = Path(path)
    found = folder.iterdir() if folder.is_dir() else map(Path, glob.glob(path))
    # what begins with a dot is a system's own: ".DS_Store", and "._a.jpg", which is no picture
    return [p for p in found if p.is_file() and not p.name.startswith(".")]


def _left_out(path: str) -> str:
    """What lies beside the pictures, by suffix: "2 .heic, 1 .txt"."""
    if Path(path).is_file():
        return ""
    suffixes = [p.suffix.lower() or "without one" for p in _files(path)]
    counts = Counter(suffix for suffix in suffixes if suffix not in SUFFIXES)
    return ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common())


def _count(path: Path) -> int:
    """How many pictures a file holds; 1 if it can't be read."""
    if path.suffix.lower() not in MOVING:
        return 1
    from PIL import Image as Pil

    try:
        with Pil.open(path) as image:
            return int(getattr(image, "n_frames", 1))
    except (OSError, ValueError, SyntaxError):
        return 1


def _still(path: Path) -> Image:
    from stages.imaging.decoding import TooLarge, decoded

    try:
        return decoded(path.read_bytes())  # a path that is not UTF-8 would end cv2.imread's process
    except OSError as error:
        raise FrameError(f"picture {path}: can't be read: {error.strerror}") from None
    except TooLarge as error:
        raise FrameError(f"picture {path}: {error}") from None
    except ValueError as error:
        known = ", ".join(sorted(SUFFIXES))
        raise FrameError(f"picture {path}: {error}; wanted one of {known}") from None
