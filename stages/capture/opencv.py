"""Webcams, and files on request, through OpenCV: bgr24, decoded in place into the slot."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import BrokenSource, ConfigError, EndOfStream, FrameError, SourceError
from pipeline.redaction import shown
from pipeline.stage import Picture, Source
from stages.capture.clock import TURN_S, RecordingClock, wait_until
from stages.capture.sizes import check_max_size, fit_size
from stages.imaging.films import Turn, looks_of


@dataclass(frozen=True, kw_only=True)
class OpenCvConfig:
    """Which device, and what to ask of it."""

    device: int | str  # index of a webcam, "/dev/videoN", "/dev/v4l/by-id/…", or the path of a file
    max_size: tuple[int, int] = (1920, 1080)  # px; a picture with more pixels is scaled down
    size: tuple[int, int] | None = None  # px, asked of a webcam; None: what it likes
    fps: float | None = None  # Hz, asked of a webcam; None: what it likes
    fourcc: str | None = None  # asked of a webcam, "MJPG" for high rates over USB
    loop: bool = False  # files: begin again at the end
    realtime: bool = False  # files: at the rate of their own clock; False: as fast as asked


class OpenCvSource(Source):
    """One device. A webcam is live and for ever; a file ends, unless it loops.

    OpenCV can't tell a file's end from its damage: both are EndOfStream after the first picture. A
    hostile file may abort the process; this reader is for devices, AvSource is for files.
    """

    Config = OpenCvConfig
    config: OpenCvConfig

    def __init__(self, config: OpenCvConfig) -> None:
        super().__init__(config)
        self.live = is_webcam(config.device)
        self._name = shown(str(config.device))
        self.turn_s = 10.0  # a webcam may take seconds to start its sensor
        self._capture: Any = None
        self._clock = RecordingClock()
        self._size: tuple[int, int] = (0, 0)  # px, of the picture before
        self._turn, self._pixel_aspect = Turn(), 1.0
        self._pictures = 0
        self._first = self._to_pass = 0  # frames that were accounted for before

    @classmethod
    def check(cls, config: OpenCvConfig) -> None:
        """Refuse URLs and sizes that can't be."""
        check_max_size(config.max_size)
        if isinstance(config.device, str) and "://" in config.device:
            raise ConfigError(
                f"source {shown(config.device)}: the opencv reader takes webcams and "
                'files; remove reader = "opencv"'
            )
        if config.size is not None:
            check_max_size(config.size, "size")
        if config.fps is not None and not 0 < config.fps <= 1000:
            raise ConfigError(f"fps must be within 0..1000 pictures a second, got {config.fps:g}")
        if config.fourcc is not None and len(config.fourcc) != 4:
            raise ConfigError(f"fourcc must have four characters, got {config.fourcc!r}")

    @classmethod
    def slot_bytes(cls, config: OpenCvConfig, frame_bytes: int) -> int:
        """Room for a bgr24 picture of `max_size`."""
        width, height = config.max_size
        return width * height * 3

    @classmethod
    def counters(cls, config: OpenCvConfig) -> tuple[str, ...]:
        """`scaled`: too large for a slot; `copied`: OpenCV did not decode into the slot."""
        return ("scaled", "copied")

    def setup(self) -> None:
        """Import OpenCV, and PyAV for what OpenCV does not tell of a file."""
        import av  # noqa: F401
        import cv2  # noqa: F401

    def resume(self, frames: int) -> None:
        """Go on behind so many frames; a film that loops is a camera, and begins again."""
        self._first = 0 if self.config.loop else frames

    def open(self) -> None:
        """Open the device; see Source.open."""
        self._clock = RecordingClock()
        self._pictures = 0
        self._to_pass = 0 if self.live else self._first
        self._start()

    def read(self, buffer: npt.NDArray[np.uint8]) -> Picture | None:
        """The next picture as bgr24; see Source.read."""
        if not self._grab():
            return None
        width, height = self._size
        place = buffer[: width * height * 3]
        as_it_is = self._turn == Turn() and self._pixel_aspect == 1
        # A picture that does not fit, or is to be turned, gets memory of its own from OpenCV.
        fits = as_it_is and place.size == width * height * 3
        view = place.reshape(height, width, 3) if fits else None
        ok, image = self._capture.retrieve() if view is None else self._capture.retrieve(view)
        if not ok:
            raise FrameError(f"source {self._name}: a picture can't be decoded")
        source_size = self._size
        if image is not view:
            image, source_size = self._move(image, buffer)
        return Picture(
            width=image.shape[1],
            height=image.shape[0],
            source_size=source_size,
            format="bgr24",
            pts_ns=None if self.live else self._clock.pts_ns,
            recorded=not self.live,
        )

    def skip(self) -> bool:
        """Take one picture from the device and leave it."""
        return self._grab()

    def close(self) -> None:
        """Let go of the device."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()

    def _start(self) -> None:
        import cv2

        self.close()
        device = self.config.device
        if self.live:
            capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
            if self.config.fourcc:
                capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*self.config.fourcc))
            if self.config.size:
                capture.set(cv2.CAP_PROP_FRAME_WIDTH, self.config.size[0])
                capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self.config.size[1])
            if self.config.fps:
                capture.set(cv2.CAP_PROP_FPS, self.config.fps)
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest picture, not the oldest of four
        else:
            capture = cv2.VideoCapture(str(device))
            # OpenCV turns by quarters, but takes a mirrored video for one that is turned.
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
            self._turn, self._pixel_aspect = looks_of(str(device))
        if not capture.isOpened():
            capture.release()
            wanted = "a webcam that no other program uses" if self.live else "a video file"
            text = f"source {self._name}: OpenCV can't open it; wanted {wanted}"
            there = not self.live and Path(str(device)).exists()
            raise BrokenSource(text) if there else SourceError(text)
        self._capture = capture
        self._size = (
            int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        )
        rate_hz = capture.get(cv2.CAP_PROP_FPS)
        self._clock.start_lap(step_ns=round(1e9 / rate_hz) if rate_hz > 0 else 40_000_000)

    def _grab(self) -> bool:
        if self._capture is None:
            raise SourceError(f"source {self._name}: is not open")
        end_s = time.monotonic() + TURN_S
        while self._to_pass:
            if time.monotonic() > end_s:
                return False
            if not self._capture.grab():
                break
            self._pictures += 1
            self._to_pass -= 1
            self._clock.tick(None)
            self._clock.forget_anchor()
        if not self._capture.grab():
            self._at_end()
            return False
        self._pictures += 1
        if not self.live:
            # The rate in the header, and not CAP_PROP_POS_MSEC, which some files have not.
            due_s = self._clock.tick(None)
            while self.config.realtime and not wait_until(due_s):
                pass
        return True

    def _at_end(self) -> None:
        if self.live:
            raise SourceError(f"source {self._name}: lost: gave no picture")
        if self._pictures == 0:
            raise BrokenSource(f"source {self._name}: not one picture could be decoded")
        if not self.config.loop:
            raise EndOfStream(f"source {self._name}: end of the file")
        self._start()

    def _move(
        self, image: npt.NDArray[np.uint8], buffer: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
        """A picture that is not to be taken as it is: into the slot by copy; and its true size."""
        import cv2

        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise FrameError(
                f"source {self._name}: wanted uint8 (H, W, 3), got {image.dtype} {image.shape}"
            )
        height, width = image.shape[:2]
        self._size = (width, height)
        image = self._turn.upright(image)
        sides = round(width * self._pixel_aspect), height
        true_size = sides[::-1] if self._turn.transpose else sides
        out_w, out_h = fit_size(*true_size, buffer.size // 3)
        target = buffer[: out_w * out_h * 3].reshape(out_h, out_w, 3)
        if (out_w, out_h) == image.shape[1::-1]:
            self.runtime.count("copied", self.runtime.cameras[0])
            np.copyto(target, image)
        else:
            if (out_w, out_h) != true_size:
                self.runtime.count("scaled", self.runtime.cameras[0])
            source = np.ascontiguousarray(image)
            cv2.resize(source, (out_w, out_h), dst=target, interpolation=cv2.INTER_AREA)
        return target, true_size


def is_webcam(device: int | str) -> bool:
    """Whether this names a device, there or unplugged, and not a file."""
    if isinstance(device, int) or device.startswith(("/dev/video", "/dev/v4l/")):
        return True
    return Path(device).is_char_device()
