"""Video: one annotated H.264 file per camera that plays after any kill.

The file is fragmented MP4: what was written up to a fragment's end plays, whatever comes after. A
fragment ends at each key frame, and there is a key frame every second, so a kill costs about a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, FrameError, ResourceError
from pipeline.messages import Frame, FrameInfo
from pipeline.stage import Sink
from stages.sinks.files import check_folder, make_folder, stem_of

TICKS_HZ = 90_000  # time base of the files
KEY_TICKS = TICKS_HZ  # from one key frame, and fragment, to the next
MAX_GAP_TICKS = 10 * TICKS_HZ  # a longer gap is not shown as it was, but as one second
_MUXER = {
    "movflags": "frag_keyframe+empty_moov+default_base_moof",
    "flush_packets": "1",  # a fragment is in the file when it is complete, not when a buffer is full
}
_BT601, _LIMITED = 6, 1  # AVCOL_SPC_SMPTE170M, AVCOL_RANGE_MPEG


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """Where, and how well."""

    path: str  # a folder: gets <camera>.mp4, then <camera>-2.mp4, …; made if missing
    crf: int = 23  # constant rate factor of x264, 0 (best) .. 51
    preset: str = "veryfast"  # of x264: ultrafast, superfast, veryfast, faster, fast, medium, …
    threads: int = 1  # of each camera's encoder


class Video(Sink):
    """Encodes what render has drawn, at the times at which it was captured.

    A new file begins with each start and each change of size; no file is ever overwritten.
    """

    Config = VideoConfig
    config: VideoConfig

    def __init__(self, config: VideoConfig) -> None:
        super().__init__(config)
        self._files: dict[str, _File] = {}

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
        """Append a frame to its camera's file. Odd sizes lose their last row or column."""
        camera = frame.info.camera
        size_wh_px = frame.width & ~1, frame.height & ~1
        if not all(size_wh_px):
            raise FrameError(f"sink video: wanted 2x2 px or more, got {size_wh_px}")
        file = self._files.get(camera)
        if file is not None and file.size_wh_px != size_wh_px:
            self._files.pop(camera).close()
            file = None
        if file is None:
            path = _new_path(Path(self.config.path), stem_of(camera))
            file = self._files[camera] = _File(path, size_wh_px, self.config)
        file.write(frame)

    def close(self) -> None:
        """End all files."""
        while self._files:
            self._files.popitem()[1].close()


class _Clock:
    """Times of capture as ticks of a file: from 0, growing, without long gaps."""

    def __init__(self) -> None:
        self._epoch: tuple[int, bool] | None = None
        self._offset = 0
        self.last_ticks = -1

    def ticks(self, info: FrameInfo) -> int:
        """When to show a frame: by the source's own clock if it has one, else by capture time."""
        own = info.t_capture_ns if info.pts_ns is None else info.pts_ns
        ticks = own * TICKS_HZ // 1_000_000_000
        epoch = info.stream_epoch, info.pts_ns is None
        gap = ticks + self._offset - self.last_ticks
        if epoch != self._epoch or not -MAX_GAP_TICKS < gap < MAX_GAP_TICKS:
            start = 0 if self._epoch is None else self.last_ticks + TICKS_HZ
            self._epoch, self._offset = epoch, start - ticks
        self.last_ticks = max(ticks + self._offset, self.last_ticks + 1)
        return self.last_ticks


class _File:
    """One file being written."""

    def __init__(self, path: Path, size_wh_px: tuple[int, int], config: VideoConfig) -> None:
        import av

        self.path = path
        self.size_wh_px = size_wh_px
        self._clock = _Clock()
        self._next_key_ticks = 0
        try:
            self._container: Any = av.open(str(path), "w", format="mp4", options=_MUXER)
        except OSError as error:
            raise self._error(error) from error
        self._stream: Any = self._container.add_stream("libx264", rate=30)
        codec = self._stream.codec_context
        codec.width, codec.height = size_wh_px
        codec.pix_fmt, codec.time_base = "yuv420p", Fraction(1, TICKS_HZ)
        codec.colorspace, codec.color_range = _BT601, _LIMITED
        codec.thread_count, codec.gop_size = config.threads, 100_000
        codec.options = {
            "preset": config.preset,
            "crf": str(config.crf),
            "tune": "zerolatency",  # every frame comes out at once, so a kill finds none inside
            "x264-params": "sliced-threads=0:scenecut=0",  # key frames only where we ask for them
        }

    def write(self, frame: Frame) -> None:
        """Encode one frame."""
        import av

        from stages.imaging.pixels import to_i420

        width, height = self.size_wh_px
        planes = to_i420(frame.image[:height, :width])
        picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        picture.pts, picture.time_base = self._clock.ticks(frame.info), Fraction(1, TICKS_HZ)
        if picture.pts >= self._next_key_ticks:
            picture.pict_type = av.video.frame.PictureType.I
            self._next_key_ticks = picture.pts + KEY_TICKS
        self._mux(picture)

    def close(self) -> None:
        """Write what is left, and the end of the file."""
        try:
            self._mux(None)
        finally:
            self._container.close()

    def _mux(self, picture: Any) -> None:
        try:
            self._container.mux(self._stream.encode(picture))
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> ResourceError:
        return ResourceError(
            f"sink video: {self.path} can't be written ({error.strerror}); make room"
        )


def _new_path(folder: Path, stem: str) -> Path:
    """<stem>.mp4, or the first <stem>-N.mp4 that is not there; made empty, so it is ours."""
    number = 1
    while True:
        path = folder / (f"{stem}.mp4" if number == 1 else f"{stem}-{number}.mp4")
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise ResourceError(
                f"sink video: {path} can't be made ({error.strerror}); choose another folder"
            ) from error
        else:
            return path
