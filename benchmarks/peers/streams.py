"""Videos whose frames can be told apart, and cameras on this machine that send them live.

    clip = make_clip(pictures, rate_hz=30)
    with Cameras([clip, clip]) as cameras:
        open(cameras.urls) …                         each has sent a burst of frames, and waits
        cameras.go()                                 from now on in real time
        cameras.due_ns(camera, number)               when that frame was due

A camera does not wait for who reads it: frame n is sent when it is due, and what a slow reader does not
fetch piles up in the sockets between, as it does with any camera over TCP. Each frame carries its number
as bars in its upper left corner, so that whoever decoded it can tell which one it is, and its time stamp
says the same.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, islice, repeat
from pathlib import Path
from typing import Any

from benchmarks.peers import rtsp
from pipeline.messages import Image

BURST_S, MIN_BURST = 0.4, 12
"""What is sent at once when a camera is opened, in time and in frames: FFmpeg looks at a stream before it
says that it is open. It is served before the clock starts, so that everybody begins without arrears."""

OPENCV = {"OPENCV_FFMPEG_CAPTURE_OPTIONS": "rtsp_transport;tcp|analyzeduration;200000"}
"""Environment in which OpenCV opens a camera as quickly as ours does; its own default looks at more than
24 frames first."""

_BITS = 16
_BLACK, _WHITE = 16, 235


def burst(rate_hz: float) -> int:
    """Frames that a camera of this rate sends at once when it is opened."""
    return max(MIN_BURST, round(BURST_S * rate_hz))


# -- the number of a frame, in its pixels ----------------------------------------------------------


def stamp(image_bgr: Image, number: int) -> None:
    """Write number, 0..65535, into the corner: a row of bars and below it their opposite, in place."""
    for cell, bit in zip(_cells(image_bgr), _code(number), strict=True):
        cell[...] = _WHITE if bit else _BLACK


def number_of(image_bgr: Image) -> int:
    """The number in the corner; raises ValueError if there is none that can be read."""
    bits = [bool(cell.mean() > (_BLACK + _WHITE) / 2) for cell in _cells(image_bgr, margin=0.25)]
    number = sum(bit << place for place, bit in enumerate(bits[:_BITS]))
    if bits != _code(number):
        raise ValueError("a frame without a readable number in its corner")
    return number


def _code(number: int) -> list[bool]:
    bits = [bool(number >> place & 1) for place in range(_BITS)]
    return bits + [not bit for bit in bits]


def _cells(image: Image, margin: float = 0.0) -> Iterator[Image]:
    side = max(4, image.shape[1] // 40)
    cut = int(side * margin)
    for place in range(2 * _BITS):
        y, x = place // _BITS * side, place % _BITS * side
        yield image[y + cut : y + side - cut, x + cut : x + side - cut]


# -- the video -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clip:
    """H.264 in Annex B, a piece for each frame; parameter sets before each key frame."""

    frames: tuple[bytes, ...]
    keys: tuple[bool, ...]  # which of them are key frames
    rate_hz: int  # which the stream states, too

    @property
    def burst(self) -> int:
        """Frames that are sent at once."""
        return burst(self.rate_hz)

    def decoded(self) -> Iterator[Image]:
        """Every frame as uint8 (H, W, 3) BGR."""
        import av

        codec: Any = av.CodecContext.create("h264", "r")
        for data in (*self.frames, None):
            for frame in codec.decode(None if data is None else av.Packet(data)):
                yield frame.to_ndarray(format="bgr24")


def make_clip(pictures: Iterable[Image], rate_hz: int) -> Clip:
    """Encode pictures, uint8 (H, W, 3) BGR of one size with even sides, each with its number in it.

    As a camera does it: a key frame every rate_hz frames, no B frames, every frame out at once.
    """
    import av

    codec: Any = av.CodecContext.create("libx264", "w")
    frames, keys = [], []
    for number, picture in enumerate(pictures):
        image = picture.copy()
        stamp(image, number)
        if number == 0:
            codec.height, codec.width = image.shape[:2]
            codec.pix_fmt, codec.framerate, codec.gop_size = "yuv420p", rate_hz, rate_hz
            codec.options = {
                "preset": "veryfast",
                "tune": "zerolatency",
                "crf": "20",
                "x264-params": "scenecut=0",
            }
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        frame.pts = number
        (packet,) = codec.encode(frame)
        frames.append(bytes(packet))
        keys.append(packet.is_keyframe)
    return Clip(tuple(frames), tuple(keys), rate_hz)


def rendered(count: int, rate_hz: int, size_wh_px: tuple[int, int]) -> Iterator[Image]:
    """A scene as in the demo."""
    from stages.imaging.scenes import Scene

    scene = Scene(3, size_wh_px, objects=8)
    for number in range(count):
        yield scene.render(2 + number / rate_hz)[0]


def recorded(path: Path, count: int) -> Iterator[Image]:
    """The frames of a video, from its beginning again if it is too short; odd sides lose a line."""
    import av

    def lap() -> Iterator[Any]:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                image = frame.to_ndarray(format="bgr24")
                yield image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]

    return islice((image for begin in repeat(lap) for image in begin()), count)


# -- the cameras -----------------------------------------------------------------------------------


class Cameras:
    """A camera for each clip, all on one free port of 127.0.0.1; a context manager."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self.clips = tuple(clips)
        self._went, self._closed = threading.Event(), threading.Event()
        self._t0_ns = 0
        self._connections: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.urls = [f"rtsp://127.0.0.1:{port}/{i}" for i in range(len(clips))]

    def __enter__(self) -> Cameras:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def go(self) -> int:
        """Start the clock; returns its zero in monotonic ns."""
        self._t0_ns = time.monotonic_ns() + 10_000_000
        self._went.set()
        return self._t0_ns

    def due_ns(self, camera: int, number: int) -> int:
        """When a frame is sent, monotonic; cameras of one rate are spread evenly over its period."""
        clip = self.clips[camera]
        frames = number - clip.burst + camera / len(self.clips)
        return self._t0_ns + round(frames * 1e9 / clip.rate_hz)

    def close(self) -> None:
        """Hang up on everybody."""
        self._closed.set()
        self._went.set()
        for connection in (self._listener, *tuple(self._connections)):
            with suppress(OSError):  # it has left already
                connection.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                self._connections.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):  # the reader has hung up
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            camera = rtsp.until_play(connection, [clip.frames[0] for clip in self.clips])
            if camera is not None and not self._closed.is_set():
                self._send(connection, camera)
        self._connections.discard(connection)

    def _send(self, connection: socket.socket, camera: int) -> None:
        clip = self.clips[camera]
        first = clip.burst
        frames, track = clip.frames, rtsp.Track(clip.rate_hz)
        if self._went.is_set():
            first = self._joined(camera)
        else:
            connection.sendall(b"".join(track.packets(n, frames[n]) for n in range(first)))
            self._went.wait()
        for number in count(first):
            wait_ns = self.due_ns(camera, number) - time.monotonic_ns()
            if self._closed.wait(max(0, wait_ns) / 1e9) or number >= len(frames):
                break
            connection.sendall(track.packets(number, frames[number]))
        self._closed.wait()  # at the end of the clip the camera is silent, not gone

    def _joined(self, camera: int) -> int:
        """What somebody who comes late sees first: the last key frame, as with any live stream."""
        clip = self.clips[camera]
        since_s = (time.monotonic_ns() - self.due_ns(camera, 0)) / 1e9
        newest = min(int(since_s * clip.rate_hz), len(clip.frames) - 1)
        return max(n for n in range(newest + 1) if clip.keys[n])
