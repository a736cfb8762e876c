"""Video: one annotated H.264 file per camera that plays after any kill, see `video_file.py`."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError, FrameError
from pipeline.messages import Frame
from pipeline.stage import Sink
from stages.sinks.files import DISK_TURN_S, check_folder, make_folder, stem_of
from stages.sinks.video_file import VideoFile

log = logging.getLogger("manyeyes")

_AGAIN_S = 1.0  # after a file that could not be written; until then frames are lost without trying


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """Where, and how well."""

    path: str  # a folder: gets <camera>.mp4, then <camera>-2.mp4, …; made if missing
    crf: int = 23  # constant rate factor of x264, 0 (best) .. 51
    preset: str = "veryfast"  # of x264: ultrafast, superfast, veryfast, faster, fast, medium, …
    threads: int = 1  # of each camera's encoder


class Video(Sink):
    """Encodes what render has drawn, at the times at which it was captured.

    A new file begins with each start, with each change of size, and where one was renamed or deleted; no
    file is ever overwritten, and none is left without a picture.
    """

    Config = VideoConfig
    config: VideoConfig
    turn_s = DISK_TURN_S
    settles = True  # a frame is taken with its fragment: about a second later

    def __init__(self, config: VideoConfig) -> None:
        super().__init__(config)
        self._files: dict[str, VideoFile] = {}
        self._again_s: dict[str, float] = {}  # camera: when to try again, monotonic

    @classmethod
    def check(cls, config: VideoConfig) -> None:
        """Raises ConfigError if a value is out of range or the folder can't be written."""
        presets = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow")
        if not 0 <= config.crf <= 51:
            raise ConfigError(f"sink video: crf must be within 0..51, got {config.crf}")
        if config.preset not in presets:
            raise ConfigError(
                f"sink video: preset must be one of {', '.join(presets)}, got {config.preset!r}"
            )
        if not 1 <= config.threads <= 16:
            raise ConfigError(f"sink video: threads must be within 1..16, got {config.threads}")
        check_folder("video", Path(config.path))

    def setup(self) -> None:
        """Load PyAV, make the folder."""
        import av
        import cv2  # noqa: F401 - loaded before the first frame and not with it

        self.check(self.config)
        if "libx264" not in av.codecs_available:
            raise ConfigError("sink video: this build of PyAV has no libx264; pip install av")
        make_folder("video", Path(self.config.path))

    def process(self, frame: Frame) -> None:
        """Append a frame to its camera's file. Odd sizes lose their last row or column.

        Raises FrameError if the disk does not take it.
        """
        camera = frame.info.camera
        size_wh_px = frame.info.width & ~1, frame.info.height & ~1
        if not all(size_wh_px):
            raise FrameError(f"sink video: wanted 2x2 px or more, got {size_wh_px}")
        file = self._files.get(camera)
        if file is not None and file.size_wh_px != size_wh_px:
            self._end(camera)
            file = None
        if file is None:
            if time.monotonic() < self._again_s.get(camera, 0.0):
                raise FrameError(
                    f"sink video: no room in {self.config.path} a moment ago; make room"
                )
            file = self._files[camera] = self._begin(camera, size_wh_px)
        try:
            self.runtime.settle(camera, file.write(frame), taken=True)
        except OSError as error:
            self._again_s[camera] = time.monotonic() + _AGAIN_S
            self._end(camera)
            raise FrameError(
                f"sink video: no file in {self.config.path} can be written ({error.strerror}); make room"
            ) from error

    def remove(self, camera: str) -> None:
        """End its file; if it comes back, another one begins."""
        if camera in self._files:
            self._end(camera)

    def idle(self) -> None:
        """Let go of files that are not at their paths any more."""
        for camera in [camera for camera, file in self._files.items() if not file.is_there]:
            self._end(camera)

    def close(self) -> None:
        """End all files."""
        for camera in [*self._files]:
            self._end(camera)

    def _begin(self, camera: str, size_wh_px: tuple[int, int]) -> VideoFile:
        config = self.config
        return VideoFile(
            Path(config.path), stem_of(camera), size_wh_px,
            crf=config.crf, preset=config.preset, threads=config.threads,
        )  # fmt: skip

    def _end(self, camera: str) -> None:
        written, lost = self._files.pop(camera).end()
        self.runtime.settle(camera, written, taken=True)
        self.runtime.settle(camera, lost, taken=False)
        if lost:
            log.warning("sink video: camera %r: %d frames found no room on the disk", camera, lost)
