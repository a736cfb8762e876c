"""Cameras and files through FFmpeg: rtsp(s), http(s), rtmp(s), srt, udp, stdin, files, as planar YUV.

demux → decode → wait until due (recordings, playlists) → planes into the slot, once
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.credentials import check_ca_file
from pipeline.errors import BrokenSource, ConfigError, EndOfStream, FrameError, SourceError
from pipeline.redaction import shown
from pipeline.stage import Picture, Source
from stages.capture import ffmpeg
from stages.capture.clock import TURN_S, RecordingClock, wait_until
from stages.capture.credentials import (
    Credentials,
    load,
    refuse_secrets,
    trusted,
    variables,
)
from stages.capture.patience import LONGEST_S, Patience
from stages.capture.planes import place
from stages.capture.redirects import destination
from stages.capture.sizes import check_max_size
from stages.imaging.films import film_of

DECODED = {"all": "DEFAULT", "reference": "NONREF", "keyframes": "NONKEY"}  # AVDiscard
FIRST_PICTURE_S = 12.0  # a camera may send its next keyframe as late as this
PLAYLIST_S = 15.0  # between two parts of a live playlist it may be silent as long as this
REPEATED_NS = 60 * 10**9  # a playlist that is read again begins with what was read before


@dataclass(frozen=True, kw_only=True)
class AvConfig:
    """Where the pictures come from and how long to wait for them."""

    url: str  # rtsp://, http://, … without user and password, the path of a file, or - for stdin
    credentials: str | None = None  # NAME: see stages/capture/credentials.py
    transport: Literal["tcp", "udp"] = "tcp"  # of RTP; udp loses packets, tcp does not
    tls_verify: bool = (
        True  # rtsps, https, rtmps: only who has a certificate of a trusted authority
    )
    ca_file: str | None = None  # PEM of the authorities, or of the camera; None: those of the host
    max_size: tuple[int, int] = (1920, 1080)  # px; a picture with more pixels is scaled down
    open_timeout_s: float = 5.0
    read_timeout_s: float | None = None  # silent for so long, a camera is lost; None: learned
    loop: bool = False  # files: begin again at the end
    realtime: bool = False  # files: at the rate of their own clock; False: as fast as asked
    decode: Literal["all", "reference", "keyframes"] = "all"  # the others are as if never sent


class AvSource(Source):
    """One stream. A camera is live and for ever; a recording ends, unless it loops.

    An RTSP camera that sends its viewers on to another host is followed, without credentials.
    """

    Config = AvConfig
    config: AvConfig

    def __init__(self, config: AvConfig) -> None:
        super().__init__(config)
        self._scheme = ffmpeg.scheme_of(config.url)
        self.live = self._scheme not in ("file", "pipe")  # of HTTP it turns out when it is open
        longest_s = LONGEST_S if config.read_timeout_s is None else config.read_timeout_s
        # We may use the time for opening to find redirects, FFmpeg to connect, and to look at the stream.
        self.turn_s = 3 * config.open_timeout_s + longest_s + 1.0
        if self._scheme == "pipe":
            self.turn_s = 24 * 3600.0  # nothing ends a read of stdin but what comes from there
        self._name = shown(config.url)
        self._container: Any = None
        self._clock = RecordingClock()
        self._patience = Patience(config.read_timeout_s)
        self._first = self._to_pass = 0  # frames that were accounted for before
        self._hopeless = False  # FFmpeg knows no such protocol
        self._last_ns: int | None = None  # the stream's own time of the last picture, ever

    @classmethod
    def check(cls, config: AvConfig) -> None:
        """Refuse other schemes, passwords in the URL, credentials that are not there."""
        scheme = ffmpeg.scheme_of(config.url)
        if scheme not in ffmpeg.PROTOCOLS:
            known = ", ".join(f"{name}://" for name in ffmpeg.PROTOCOLS if name != "pipe")
            raise ConfigError(f"source {shown(config.url)}: wanted {known} or a file's path")
        local = scheme in ("file", "pipe")
        if not local:
            refuse_secrets(config.url)
        if config.credentials is not None:
            if local:
                raise ConfigError(
                    f"source {shown(config.url)}: a file takes no credentials; remove the key"
                )
            load(config.credentials)
        if config.transport not in ("tcp", "udp"):
            raise ConfigError(f"transport must be 'tcp' or 'udp', got {config.transport!r}")
        check_ca_file(config.ca_file)
        check_max_size(config.max_size)
        if config.decode not in DECODED:
            raise ConfigError(f"decode must be one of {', '.join(DECODED)}, got {config.decode!r}")
        for name in ("open_timeout_s", "read_timeout_s"):
            value = getattr(config, name)
            if value is not None and not 0 < value <= 3600:
                raise ConfigError(f"{name} must be above 0 and at most 3600 seconds, got {value:g}")

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

    def resume(self, frames: int) -> None:
        """Go on behind so many frames; a film that loops is a camera, and begins again."""
        self._first = 0 if self.config.loop else frames

    def open(self) -> None:
        """Connect and find the video stream; see Source.open."""
        self.close()
        self._clock = RecordingClock()
        self._connect()
        # a playlist that was read before is known by its times
        known_by_time = self._playlist and self._last_ns is not None
        self._to_pass = 0 if self.live or known_by_time else self._first

    def read(self, buffer: npt.NDArray[np.uint8]) -> Picture | None:
        """The next picture as i420; see Source.read."""
        frame = self._next_frame()
        if frame is None:
            return None
        placed = place(frame, self._pixel_aspect(), buffer)
        if placed.scaled:
            self.runtime.count("scaled", self.runtime.cameras[0])
        return Picture(
            width=placed.width,
            height=placed.height,
            source_size=placed.source_size,
            format="i420",
            matrix=placed.matrix,
            full_range=placed.full_range,
            pts_ns=self._clock.pts_ns if not self.live else self._own_ns,
            recorded=not self.live,
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
        self._due_s: float | None = None  # of the first of them
        if self._container is not None:
            self._container.close()
            self._container = None

    # -- opening -----------------------------------------------------------------------------------

    def _connect(self) -> None:
        secrets, problem, self._cause = None, "", "login"  # until they were read
        try:
            if self.config.credentials is not None:
                secrets = load(self.config.credentials)
            self._cause = "network"
            problem = self._try_to_open(secrets)
            if not problem and self._is_impatient():
                self._patience.at_least(PLAYLIST_S)
                self._container.close()
                problem = self._try_to_open(secrets)
        except ConfigError as error:
            problem = str(error)
        if problem:
            self.close()
            # Raised here, where no local and no __context__ holds the whole URL.
            raise self._error_at_open(f"source {self._name}: can't be opened: {problem}")
        self.live = not ffmpeg.is_recording(self._container, self._scheme)
        self._stream = film_of(self._container)
        codec = self._stream.codec_context
        codec.thread_type, codec.thread_count = "SLICE", 1  # frame threads: a frame of delay each
        codec.options = ffmpeg.LIMITS  # those of av.open go no further than probing
        codec.skip_frame = DECODED[self.config.decode]
        self._alone = codec.codec.intra_only  # no picture needs another one
        self._packets = self._container.demux(self._stream)
        self._playlist = ffmpeg.is_playlist(self._container)
        self._timeless = self.live and ffmpeg.invents_time(self._container)
        rate_hz = self._stream.average_rate
        self._clock.start_lap(
            step_ns=round(1e9 / rate_hz) if rate_hz else 40_000_000,
            jumps=ffmpeg.jumps_in_time(self._container),
        )
        self._pictures = 0
        self._barren_s = 0.0  # spent in reads since the last picture
        self._picture_at_s = time.monotonic()

    def _is_impatient(self) -> bool:
        """A live playlist, of which nothing comes for seconds: FFmpeg takes timeouts at open alone."""
        learns = self.config.read_timeout_s is None and ffmpeg.is_playlist(self._container)
        return learns and self._patience.seconds < PLAYLIST_S

    def _try_to_open(self, secrets: Credentials | None) -> str:
        """Open the container; returns what went wrong, or nothing."""
        url = ffmpeg.address_of(self.config.url)
        if secrets is None:
            return self._open_there(url)
        if self._scheme not in ffmpeg.RTSP:
            return secrets.scrub(self._open_there(secrets.join(url)))
        trust = trusted(self.config.ca_file, tls_verify=self.config.tls_verify)
        limit_s = self.config.open_timeout_s
        with destination(url, secrets, trust=trust, timeout_s=limit_s) as (onward, login):
            problem = self._open_there(login.join(onward) if login else onward)
        if problem and onward != url:
            problem += f"; it sends on to {shown(onward)}, which may not know its credentials"
        return secrets.scrub(problem)

    def _open_there(self, url: str) -> str:
        import av

        begun_s = time.monotonic()
        limit_s = self.config.open_timeout_s
        scheme = ffmpeg.scheme_of(url) if self._scheme in ffmpeg.RTSP else self._scheme
        self._allowed_s = self._patience.seconds
        options = ffmpeg.options_of(
            scheme,
            self.config.transport,
            tls_verify=self.config.tls_verify,
            ca_file=self.config.ca_file,
        )
        try:
            self._container = ffmpeg.opened(url, options, timeouts_s=(limit_s, self._allowed_s))
        except (av.FFmpegError, OSError, ValueError) as error:
            # An interrupted RTSP handshake calls itself "Invalid data".
            late = time.monotonic() - begun_s >= limit_s
            self._hopeless = isinstance(error, av.error.ProtocolNotFoundError)
            reason = ffmpeg.reason_of(
                error, scheme, self.config.transport, tls_verify=self.config.tls_verify
            )
            self._cause = "network" if late else ffmpeg.cause_of(error)
            return f"no answer in {limit_s:g} s" if late else reason
        self._cause = "codec"
        return "" if film_of(self._container) else "has no video; wanted a video stream"

    def _error_at_open(self, text: str) -> SourceError:
        here = self._scheme == "file" and Path(self.config.url).exists()
        hopeless = here or self._scheme == "pipe" or self._hopeless
        return BrokenSource(text) if hopeless else SourceError(text, self._cause)

    # -- reading -----------------------------------------------------------------------------------

    def _next_frame(self, *, wanted: bool = True) -> Any:
        """The next decoded frame, when it is due; None: packets come, but no picture yet.

        Not wanted: it may be the packet of one, which is all that a skip has to know.
        """
        if self._container is None:
            raise SourceError(f"source {self._name}: is not open")
        if self._to_pass and not self._pass_over():
            return None
        if not self._decoded and not self._fill(wanted=wanted):
            return None
        if self._due_s is None:
            self._take_time(self._decoded[0])
        if self._due_s is not None and not wait_until(self._due_s):
            return None
        self._due_s = None
        return self._decoded.popleft()

    def _pass_over(self) -> bool:
        """Frames that came before this process or connection; False: not all of them yet."""
        end_s = time.monotonic() + TURN_S
        while self._to_pass and time.monotonic() < end_s:
            try:
                if self._decoded or self._fill(wanted=False):
                    self._take_time(self._decoded.popleft())
                    self._to_pass -= 1
            except FrameError:
                self._to_pass -= 1
        self._due_s = None
        self._clock.forget_anchor()
        return not self._to_pass

    def _fill(self, *, wanted: bool) -> bool:
        """Decode until there is a picture; False: not yet."""
        begun_s = time.monotonic()
        try:
            while not self._decoded:
                waited_s = time.monotonic() - begun_s
                patience_s = self._patience_for_pictures_s()
                if self._barren_s + waited_s > patience_s:
                    raise SourceError(
                        f"source {self._name}: lost: packets, but no picture for {patience_s:g} s",
                        "codec",
                    )
                if waited_s > min(self._patience.seconds, 2.0):
                    return False
                self._decode_packet(wanted=wanted)
        finally:  # the time between two reads is not the camera's
            self._barren_s = 0 if self._decoded else self._barren_s + time.monotonic() - begun_s
        return True

    def _take_time(self, frame: Any) -> None:
        """When the picture was made, by its own clock, and when it is due."""
        own_ns = None if frame.pts is None else round(frame.pts * frame.time_base * 10**9)
        self._own_ns = None if self._timeless else own_ns
        self._last_ns = own_ns
        self._pictures += 1
        now_s = time.monotonic()
        self._patience.picture(now_s - self._picture_at_s)
        self._picture_at_s = now_s
        if not self.live or self._playlist:  # what comes in bursts, or as fast as it is read
            due_s = self._clock.tick(own_ns)
            self._due_s = due_s if self.live or self.config.realtime else now_s

    def _patience_for_pictures_s(self) -> float:
        """How long packets may come without a picture."""
        if self._pictures and self.config.decode != "keyframes":
            return self._patience.seconds
        return max(FIRST_PICTURE_S, self._patience.seconds)

    def _decode_packet(self, *, wanted: bool) -> None:
        import av

        begun_s = time.monotonic()
        try:
            packet = next(self._packets)
        except (StopIteration, IndexError):  # PyAV 14 to 18: a track appeared after the opening
            self._at_end()
            return
        except (av.FFmpegError, OSError) as error:
            # What FFmpeg calls an interrupted read depends on the protocol.
            late = time.monotonic() - begun_s >= self._allowed_s
            reason = ffmpeg.reason_of(error, self._scheme, self.config.transport)
            if late:
                self._patience.lost()
                reason = f"sent nothing for {self._allowed_s:g} s"
            raise SourceError(f"source {self._name}: lost: {reason}") from None
        if self._alone and not wanted and packet.size:  # the last one, empty, flushes the decoder
            self._decoded.append(packet)
            return
        try:
            self._decoded.extend(f for f in packet.decode() if not self._is_repeated(f))
        except av.FFmpegError as error:
            if self._pictures == 0:
                return  # nothing can be decoded before the first keyframe
            reason = ffmpeg.reason_of(error, self._scheme, self.config.transport)
            raise FrameError(f"source {self._name}: a packet can't be decoded: {reason}") from None

    def _is_repeated(self, frame: Any) -> bool:
        """Of a playlist that was opened again, and begins before the last picture that was seen."""
        if not self._playlist or self._pictures or self._last_ns is None or frame.pts is None:
            return False
        ahead_ns = self._last_ns - round(frame.pts * frame.time_base * 10**9)
        return bool(0 <= ahead_ns <= REPEATED_NS)

    def _at_end(self) -> None:
        if self.live and not ffmpeg.has_end(self._container):
            raise SourceError(f"source {self._name}: lost: the stream ended")
        if self._pictures == 0 and self._last_ns is None:
            raise BrokenSource(f"source {self._name}: not one picture could be decoded")
        if not self.config.loop:
            raise EndOfStream(f"source {self._name}: end of the file")
        self.close()
        self._connect()

    def _pixel_aspect(self) -> Any:
        """Width of a pixel by its height; what the container says goes before what the codec says."""
        return self._stream.sample_aspect_ratio or self._stream.codec_context.sample_aspect_ratio
