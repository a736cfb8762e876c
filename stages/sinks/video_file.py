"""One video file that is whole at any time: fragmented MP4, written through Python.

What was written up to a fragment's end plays, whatever comes after. A fragment ends at each key frame, and
there is a key frame every second, so a kill costs about a second. A fragment that the disk does not take is
cut off again.
"""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

from pipeline.messages import Frame, FrameInfo
from stages.sinks.files import is_at

TICKS_HZ = 90_000  # time base of the files
KEY_TICKS = TICKS_HZ  # from one key frame, and fragment, to the next
_MOST_FRAMES = 250  # of a fragment, which are lost together: the clock of a stream may stand still
MAX_GAP_TICKS = 10 * TICKS_HZ  # who was away for longer is not missed for longer than a second
_MUXER = {
    "movflags": "frag_keyframe+empty_moov+default_base_moof",
    "flush_packets": "1",  # a fragment is in the file when it is complete, not when a buffer is full
}
_BT601, _LIMITED = 6, 1  # AVCOL_SPC_SMPTE170M, AVCOL_RANGE_MPEG


class Clock:
    """When to show a frame, in ticks of a file: from 0, growing, as it was captured.

    A recording's frames were captured as fast as they were read, so they have its own clock. A camera's
    have the one here: its own may stand still, jump, or be made up by who reads it.
    """

    def __init__(self) -> None:
        self._epoch: int | None = None
        self._offset = 0
        self.last_ticks = -1

    def ticks(self, info: FrameInfo) -> int:
        """Of the next frame. A stream that was away for long is shown a second later."""
        own_ns = info.pts_ns if info.recorded and info.pts_ns is not None else info.t_capture_ns
        ticks = own_ns * TICKS_HZ // 1_000_000_000
        if self._epoch is None:
            self._offset = -ticks
        elif info.stream_epoch != self._epoch:
            gap = ticks + self._offset - self.last_ticks
            if not 0 < gap < MAX_GAP_TICKS:
                self._offset = self.last_ticks + TICKS_HZ - ticks
        self._epoch = info.stream_epoch
        self.last_ticks = max(ticks + self._offset, self.last_ticks + 1)
        return self.last_ticks


class _Output:
    """The bytes of a file on their way to the disk, for libav, which may hide an error.

    The file is made with its first bytes: <stem>.mp4, or the first <stem>-N.mp4 that is not there.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self.nbytes = 0
        self.error: OSError | None = None  # the first one; nothing is written after it
        self._folder, self._stem = folder, stem
        self._file: IO[bytes] | None = None

    def write(self, data: bytes) -> int:
        """All of it. Raises OSError."""
        if self.error is not None:
            raise self.error
        try:
            if self._file is None:
                self._file = self._new()
            left = memoryview(data)
            while left:
                written = self._file.write(left)
                left, self.nbytes = left[written:], self.nbytes + written
        except OSError as error:
            self.error = error
            raise
        return len(data)

    @property
    def is_there(self) -> bool:
        """It is at its path, or was not made yet."""
        return self._file is None or is_at(self._file.fileno(), self._file.name)

    def close(self, keep_bytes: int) -> None:
        """Cut it to so many bytes; none: remove it."""
        if self._file is None:
            return
        with self._file, contextlib.suppress(OSError):
            if keep_bytes == 0 and self.is_there:
                os.unlink(self._file.name)
            self._file.truncate(keep_bytes)

    def _new(self) -> IO[bytes]:
        number = 1
        while True:
            name = f"{self._stem}.mp4" if number == 1 else f"{self._stem}-{number}.mp4"
            try:
                return open(self._folder / name, "xb", buffering=0)
            except FileExistsError:
                number += 1


class VideoFile:
    """One video being written."""

    def __init__(
        self,
        folder: Path,
        stem: str,
        size_wh_px: tuple[int, int],
        *,
        crf: int,
        preset: str,
        threads: int,
    ) -> None:
        """crf, preset, threads: of x264."""
        import av

        self.size_wh_px = size_wh_px
        self._clock = Clock()
        self._next_key_ticks = 0
        self._whole_bytes = 0  # of the file, up to the end of its last whole fragment
        self._pending = 0  # frames of the fragment that is not on the disk yet
        self._output = _Output(folder, stem)
        self._container: Any = av.open(self._output, "w", format="mp4", options=_MUXER)
        self._stream: Any = self._container.add_stream("libx264", rate=30)
        codec = self._stream.codec_context
        codec.width, codec.height = size_wh_px
        codec.pix_fmt, codec.time_base = "yuv420p", Fraction(1, TICKS_HZ)
        codec.colorspace, codec.color_range = _BT601, _LIMITED
        codec.thread_count, codec.gop_size = threads, 100_000
        codec.options = {
            "preset": preset,
            "crf": str(crf),
            "tune": "zerolatency",  # every frame comes out at once, so a kill finds none inside
            "x264-params": "sliced-threads=0:scenecut=0",  # key frames only where we ask for them
        }

    @property
    def is_there(self) -> bool:
        """It is at its path, or was not made yet."""
        return self._output.is_there

    def write(self, frame: Frame) -> int:
        """Encode one frame; returns how many of those before it are in the file since now.

        Raises OSError; then only `end` is left.
        """
        import av

        from stages.imaging.pixels import to_i420

        width, height = self.size_wh_px
        planes = to_i420(frame.image[:height, :width])
        picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        picture.pts, picture.time_base = self._clock.ticks(frame.info), Fraction(1, TICKS_HZ)
        is_key = picture.pts >= self._next_key_ticks or self._pending >= _MOST_FRAMES
        if is_key:
            picture.pict_type = av.video.frame.PictureType.I
            self._next_key_ticks = picture.pts + KEY_TICKS
        self._mux(picture)
        whole = self._pending if is_key else 0
        if whole:  # the fragment before it is on the disk now
            self._whole_bytes = self._output.nbytes
        self._pending += 1 - whole
        return whole

    def end(self) -> tuple[int, int]:
        """Write what is left and close; returns how many frames are in the file since now, or lost."""
        with contextlib.suppress(OSError):
            if self._output.error is None:
                self._mux(None)
        with contextlib.suppress(OSError):
            self._container.close()
        if self._output.error is None:
            self._output.close(self._output.nbytes)
            return self._pending, 0
        self._output.close(self._whole_bytes)
        return 0, self._pending

    def _mux(self, picture: Any) -> None:
        self._container.mux(self._stream.encode(picture))
        if self._output.error is not None:
            raise self._output.error
