"""Cameras and files through FFmpeg: rtsp, rtsps, http, https and video files, as planar YUV.

    demux (2 s for every packet) → decode → wait until due (files) → planes into the slot, once

The decoder's planes are copied as they are, line by line, so no picture is converted at full size.
What is not yuv420p, or has more pixels than a slot has room for, goes through swscale first. The
last column or row of an odd size is left out. Rotation flags of files are not applied.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError, EndOfStream, FrameError, SourceError
from pipeline.redaction import shown
from pipeline.stage import Picture, Source
from stages.capture.clock import RecordingClock
from stages.capture.credentials import Credentials, load, refuse_secrets, variables
from stages.capture.planes import place
from stages.capture.sizes import check_max_size
from stages.capture.tracks import film_of

# What FFmpeg may open, by scheme: a playlist or a redirect can't leave this list (CVE-2016-1897).
PROTOCOLS = {
    "rtsp": "rtsp,rtp,rtcp,udp,tcp",
    "rtsps": "rtsps,rtsp,rtp,rtcp,srtp,udp,tcp,tls",
    "http": "http,https,tcp,tls",
    "https": "https,tcp,tls",
    "file": "file",
}
DECODED = {"all": "DEFAULT", "reference": "NONREF", "keyframes": "NONKEY"}  # AVDiscard
FIRST_PICTURE_S = 12.0  # a camera may send its next keyframe as late as this
MAX_LAG_S = (
    1.0  # behind its clock by more than this, a file goes on from here and catches up nothing
)
MAX_WAIT_S = 2.0  # a jump of the file's own clock by more than this is not waited for
# Of one decoded picture: a forged header asks for more memory than a host has.
LIMITS = {"max_pixels": str(1 << 26)}


@dataclass(frozen=True, kw_only=True)
class AvConfig:
    """Where the pictures come from and how long to wait for them."""

    url: (
        str  # rtsp://, rtsps://, http://, https:// without user and password, or the path of a file
    )
    credentials: str | None = None  # NAME: see stages/capture/credentials.py
    transport: Literal["tcp", "udp"] = "tcp"  # of RTP; udp loses packets, tcp does not
    max_size: tuple[int, int] = (1920, 1080)  # px; a picture with more pixels is scaled down
    open_timeout_s: float = 5.0
    read_timeout_s: float = 2.0  # without a picture for so long, a camera is lost
    loop: bool = False  # files: begin again at the end
    realtime: bool = False  # files: at the rate of their own clock; False: as fast as asked
    decode: Literal["all", "reference", "keyframes"] = "all"  # the others are as if never sent


class AvSource(Source):
    """One stream. A camera is live and for ever; a file ends, unless it loops.

    Not prevented: FFmpeg follows an RTSP redirect to any other host, and logs in there, too; nobody
    checks the certificate behind rtsps:// and https://. Give each camera a password of its own, and
    the capture host no way to where cameras have no business.
    """

    Config = AvConfig
    config: AvConfig

    def __init__(self, config: AvConfig) -> None:
        super().__init__(config)
        self._live = _scheme(config.url) != "file"
        # FFmpeg may use the time for opening twice: to connect, and to look at the stream.
        self.turn_s = 2 * config.open_timeout_s + config.read_timeout_s + 1.0
        self._name = shown(config.url)
        self._container: Any = None
        self._clock = RecordingClock()

    @classmethod
    def check(cls, config: AvConfig) -> None:
        """Refuse other schemes, passwords in the URL, credentials that are not there."""
        scheme = _scheme(config.url)
        if scheme not in PROTOCOLS:
            raise ConfigError(
                f"source {shown(config.url)}: wanted rtsp://, rtsps://, http://, https:// or a file's path"
            )
        if scheme != "file":
            refuse_secrets(config.url)
        if config.credentials is not None:
            if scheme == "file":
                raise ConfigError(
                    f"source {shown(config.url)}: a file takes no credentials; remove the key"
                )
            load(config.credentials)
        if config.transport not in ("tcp", "udp"):
            raise ConfigError(f"transport must be 'tcp' or 'udp', got {config.transport!r}")
        check_max_size(config.max_size)
        if config.decode not in DECODED:
            raise ConfigError(f"decode must be one of {', '.join(DECODED)}, got {config.decode!r}")
        if config.open_timeout_s <= 0 or config.read_timeout_s <= 0:
            raise ConfigError("open_timeout_s and read_timeout_s must be above 0 seconds")

    @classmethod
    def memory_bytes(cls, config: AvConfig) -> int:
        """A decoder keeps pictures: 66 MiB were measured with 640x360, and some more of `max_size`."""
        width, height = config.max_size
        return (64 << 20) + 2 * width * height * 3 // 2

    @classmethod
    def slot_bytes(cls, config: AvConfig, frame_bytes: int) -> int:
        """Room for an i420 picture of `max_size`."""
        width, height = config.max_size
        return width * height * 3 // 2

    @classmethod
    def counters(cls, config: AvConfig) -> tuple[str, ...]:
        """`scaled`: pictures that were too large for a slot."""
        return ("scaled",)

    @classmethod
    def secrets(cls, config: AvConfig) -> tuple[str, ...]:
        """What its credentials are in."""
        return () if config.credentials is None else variables(config.credentials)

    def setup(self) -> None:
        """Load PyAV: on a busy machine that takes a second, in which no thread has its turn."""
        import av  # noqa: F401

    def open(self) -> None:
        """Connect and find the video stream; see Source.open."""
        self.close()
        self._clock = RecordingClock()
        self._connect()

    def read(self, buffer: npt.NDArray[np.uint8]) -> Picture | None:
        """The next picture as i420; see Source.read."""
        frame = self._next_frame()
        if frame is None:
            return None
        placed = place(frame, self._stream_aspect(), buffer)
        if placed.scaled:
            self.runtime.count("scaled", self.runtime.cameras[0])
        return Picture(
            width=placed.width,
            height=placed.height,
            source_size=placed.source_size,
            format="i420",
            matrix=placed.matrix,
            full_range=placed.full_range,
            pts_ns=self._pts_ns,
            corrupt=bool(frame.is_corrupt),
            keyframe=bool(frame.key_frame),
        )

    def skip(self) -> bool:
        """Let one picture pass; decoded only if later ones need it, as in H.264 and not in MJPEG."""
        return self._next_frame(wanted=False) is not None

    def close(self) -> None:
        """Let go of the connection; does not wait for the camera to agree."""
        self._packets: Iterator[Any] = iter(())
        self._decoded: deque[Any] = deque()
        if self._container is not None:
            self._container.close()
            self._container = None

    def _connect(self) -> None:
        secrets, problem = None, ""
        try:
            if self.config.credentials is not None:
                secrets = load(self.config.credentials)
            problem = self._try_to_open(secrets)
        except ConfigError as error:
            problem = str(error)
        if problem:
            self.close()
            # Raised here, where no local and no __context__ holds the whole URL.
            raise SourceError(f"source {self._name}: can't be opened: {problem}")
        self._stream = film_of(self._container)
        codec = self._stream.codec_context
        codec.thread_type, codec.thread_count = "SLICE", 1  # frame threads: a frame of delay each
        codec.options = LIMITS  # those of av.open go no further than probing
        codec.skip_frame = DECODED[self.config.decode]
        self._alone = codec.codec.intra_only  # no picture needs another one
        self._packets = self._container.demux(self._stream)
        rate_hz = self._stream.average_rate
        self._clock.start_lap(step_ns=round(1e9 / rate_hz) if rate_hz else 40_000_000)
        self._pictures = 0
        self._barren_s = 0.0  # spent in reads since the last picture

    def _try_to_open(self, secrets: Credentials | None) -> str:
        """Open the container; returns what went wrong, or nothing."""
        import av

        begun_s = time.monotonic()
        limit_s = self.config.open_timeout_s
        scheme = _scheme(self.config.url)
        url = f"file:{self.config.url}" if scheme == "file" else self.config.url
        try:
            self._container = av.open(
                secrets.join(url) if secrets else url,
                options=self._options(scheme),
                timeout=(limit_s, self.config.read_timeout_s),
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            # An interrupted RTSP handshake calls itself "Invalid data".
            late = time.monotonic() - begun_s >= limit_s
            reason = f"no answer in {limit_s:g} s" if late else _reason(error)
            return secrets.scrub(reason) if secrets else reason
        return "" if film_of(self._container) else "has no video; wanted a video stream"

    def _options(self, scheme: str) -> dict[str, str]:
        # As up to FFmpeg 8: a camera's certificate is one that it made itself, for no name.
        options = {"protocol_whitelist": PROTOCOLS[scheme], "tls_verify": "0", **LIMITS}
        if scheme in ("rtsp", "rtsps"):
            options |= {
                "rtsp_transport": self.config.transport,
                "allowed_media_types": "video",
                # The SDP tells what FFmpeg would otherwise watch the stream for a second for.
                "analyzeduration": "200000",
                "probesize": "65536",
            }
        return options

    def _next_frame(self, *, wanted: bool = True) -> Any:
        """The next decoded frame, when it is due; None: packets come, but no picture yet.

        Not wanted: it may be the packet of one, which is all that a skip has to know.
        """
        if self._container is None:
            raise SourceError(f"source {self._name}: is not open")
        begun_s = time.monotonic()
        try:
            while not self._decoded:
                waited_s = time.monotonic() - begun_s
                patience_s = self._patience_s()
                if self._barren_s + waited_s > patience_s:
                    raise SourceError(
                        f"source {self._name}: lost: packets, but no picture for {patience_s:g} s"
                    )
                if waited_s > self.config.read_timeout_s:
                    return None
                self._decode_packet(wanted=wanted)
        finally:  # the time between two reads is not the camera's
            self._barren_s = 0 if self._decoded else self._barren_s + time.monotonic() - begun_s
        frame = self._decoded.popleft()
        self._pictures += 1
        self._pts_ns = None if frame.pts is None else round(frame.pts * frame.time_base * 10**9)
        if not self._live:
            (self._clock.wait if self.config.realtime else self._clock.tick)(self._pts_ns)
            self._pts_ns = self._clock.pts_ns
        return frame

    def _patience_s(self) -> float:
        """How long packets may come without a picture."""
        if self._pictures and self.config.decode != "keyframes":
            return self.config.read_timeout_s
        return FIRST_PICTURE_S

    def _decode_packet(self, *, wanted: bool) -> None:
        import av

        begun_s, limit_s = time.monotonic(), self.config.read_timeout_s
        try:
            packet = next(self._packets)
        except (StopIteration, IndexError):  # PyAV 14 to 18: a track appeared after the opening
            self._at_end()
            return
        except (av.FFmpegError, OSError) as error:
            # What FFmpeg calls an interrupted read depends on the protocol.
            late = time.monotonic() - begun_s >= limit_s
            reason = f"sent nothing for {limit_s:g} s" if late else _reason(error)
            raise SourceError(f"source {self._name}: lost: {reason}") from None
        if self._alone and not wanted and packet.size:  # the last one, empty, flushes the decoder
            self._decoded.append(packet)
            return
        try:
            self._decoded.extend(packet.decode())
        except av.FFmpegError as error:
            if self._pictures == 0:
                return  # nothing can be decoded before the first keyframe
            raise FrameError(
                f"source {self._name}: a packet can't be decoded: {_reason(error)}"
            ) from None

    def _at_end(self) -> None:
        if self._live:
            raise SourceError(f"source {self._name}: lost: the stream ended")
        if self._pictures == 0:
            raise SourceError(f"source {self._name}: not one picture could be decoded")
        if not self.config.loop:
            raise EndOfStream(f"source {self._name}: end of the file")
        self.close()
        self._connect()

    def _stream_aspect(self) -> Any:
        """Of a pixel; what the container says goes before what the stream says."""
        return self._stream.sample_aspect_ratio or self._stream.codec_context.sample_aspect_ratio


def _scheme(url: str) -> str:
    head, mark, _ = url.partition("://")
    return head.lower() if mark else "file"


def _reason(error: Exception) -> str:
    """FFmpeg's own words for an error, without the URL that PyAV appends to them."""
    return str(getattr(error, "strerror", None) or type(error).__name__)
