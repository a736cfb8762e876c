"""What comes over HTTP: films that end, live streams that do not, playlists in parts of seconds."""

from __future__ import annotations

import io
import queue
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import moving_square, noise_i420, write_clip
from patience import BOUND_S
from web_camera import WebCamera

from pipeline.errors import EndOfStream, SourceError
from pipeline.runtime import LocalRuntime
from pipeline.stage import Picture
from stages.capture.av import AvConfig, AvSource

SIZE = (64, 48)
PART_S = 3.0  # of a live playlist: longer than a camera's patience


def opened(url: str, **options: object) -> AvSource:
    config = AvConfig(url=url, **options)
    AvSource.check(config)
    source = AvSource(config)
    source.runtime = LocalRuntime(["gate"])
    source.setup()
    source.open()
    return source


def take(source: AvSource, count: int = 1 << 30) -> tuple[list[Picture], Exception | None]:
    """So many pictures, or all until the end or a loss, which is returned, too."""
    buffer = np.empty(1 << 20, np.uint8)
    pictures: list[Picture] = []
    try:
        while len(pictures) < count:
            if (picture := source.read(buffer)) is not None:
                pictures.append(picture)
    except (EndOfStream, SourceError) as error:
        return pictures, error
    return pictures, None


@pytest.mark.parametrize("name", ["film.mp4", "film.ts", "film.mkv"])
@pytest.mark.parametrize("realtime", [True, False])
def test_a_film_that_ends_has_ended(tmp_path, name, realtime):
    data = write_clip(tmp_path / name, moving_square(5)).read_bytes()
    with WebCamera({f"/{name}": data}) as camera:
        source = opened(camera.url(f"/{name}"), realtime=realtime)
        assert not source.live
        pictures, why = take(source)
        source.close()
    assert [p.pts_ns for p in pictures] == [i * 40_000_000 for i in range(5)]
    assert all(p.recorded for p in pictures)
    assert isinstance(why, EndOfStream)


def test_a_stream_that_ends_is_a_camera_that_is_lost(tmp_path):
    data = write_clip(tmp_path / "film.ts", moving_square(5)).read_bytes()
    with WebCamera(streams={"/live": ("video/mp2t", lambda: [data])}) as camera:
        source = opened(camera.url("/live"))
        assert source.live
        pictures, why = take(source)
        source.close()
    assert len(pictures) == 5
    assert not any(p.recorded for p in pictures)
    assert "lost: " in str(why)


def jpegs() -> list[bytes]:
    """Three pictures, as a camera compresses them."""
    out = []
    codec = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt = *SIZE, "yuvj420p"
    codec.time_base = Fraction(1, 25)
    for i, image in enumerate(moving_square(3, SIZE)):
        frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuvj420p")
        frame.pts = i
        out += [bytes(packet) for packet in codec.encode(frame)]
    return out


def test_times_that_ffmpeg_makes_up_are_nobodys():
    """MJPEG carries no times; FFmpeg counts at 25 Hz, whatever the camera does."""
    parts = [b"--x\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg + b"\r\n" for jpeg in jpegs()]
    kind = "multipart/x-mixed-replace; boundary=x"
    with WebCamera(streams={"/mjpeg": (kind, lambda: [*parts, b"--x--\r\n"])}) as camera:
        source = opened(camera.url("/mjpeg"))
        pictures, _ = take(source)
        source.close()
    assert len(pictures) >= 2
    assert {p.pts_ns for p in pictures} == {None}


def flv_tags(tmp_path: Path) -> list[bytes]:
    """The header and the tags of a film of 10 s, which says that it has sound, and has none."""
    noise = noise_i420(250, SIZE)  # FFmpeg wants some kB before it looks
    data = write_clip(tmp_path / "film.flv", noise, source_format="yuv420p").read_bytes()
    tags, at = [data[:4] + b"\x05" + data[5:13]], 13
    while at + 11 <= len(data):
        size = 11 + int.from_bytes(data[at + 1 : at + 4], "big") + 4
        tags.append(data[at : at + size])
        at += size
    return tags


def test_opening_takes_no_more_than_a_second_of_a_stream(tmp_path):
    tags, is_open = flv_tags(tmp_path), threading.Event()
    waited: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def pieces():
        yield tags[0]
        yield from (tag for tag in tags[1:] if int.from_bytes(tag[4:7], "big") <= 1000)
        waited.put(is_open.wait(BOUND_S))  # whoever wants more does not get it

    with WebCamera(streams={"/live.flv": ("video/x-flv", pieces)}) as camera:
        source = opened(camera.url("/live.flv"), open_timeout_s=30.0)
        is_open.set()
        pictures, _ = take(source, 10)
        assert waited.get(timeout=BOUND_S)  # its server's thread may come to it only now
        source.close()
    assert [p.pts_ns for p in pictures] == [i * 40_000_000 for i in range(10)]


def part(number: int, rate_hz: int = 10) -> bytes:
    """One part of a live playlist as MPEG-TS; its pictures follow those of the part before."""
    out, count = io.BytesIO(), round(PART_S * rate_hz)
    with av.open(out, "w", format="mpegts", options={"mpegts_copyts": "1"}) as container:
        stream = container.add_stream("libx264", rate=rate_hz)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = {"preset": "ultrafast", "tune": "zerolatency"}
        for i, image in enumerate(moving_square(count, SIZE)):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number * count + i, Fraction(1, rate_hz)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


@pytest.fixture(scope="module")
def live_playlist():
    """A camera whose playlist holds the last three parts, as time goes by."""
    begun_s = time.monotonic() - 3 * PART_S

    def playlist(_: object) -> tuple[int, dict[str, str], bytes]:
        ready = int((time.monotonic() - begun_s) / PART_S)
        lines = [
            "#EXTM3U", "#EXT-X-VERSION:3", f"#EXT-X-TARGETDURATION:{PART_S:.0f}",
            f"#EXT-X-MEDIA-SEQUENCE:{ready - 3}",
        ]  # fmt: skip
        for number in range(ready - 3, ready):
            lines += [f"#EXTINF:{PART_S},", f"part{number}.ts"]
        kind = {"Content-Type": "application/vnd.apple.mpegurl"}
        return 200, kind, "\n".join([*lines, ""]).encode()

    parts = {f"/part{number}.ts": part(number) for number in range(30)}
    with WebCamera(parts, answers={"/live.m3u8": playlist, "/live": playlist}) as camera:
        yield camera


@pytest.mark.parametrize("path", ["/live.m3u8", "/live"])
def test_a_live_playlist_is_not_lost_between_its_parts_and_comes_in_its_own_time(
    live_playlist, path
):
    source = opened(live_playlist.url(path))
    begun_s = time.monotonic()
    pictures, why = take(source, 40)  # of more than one part
    waited_s = time.monotonic() - begun_s
    source.close()
    assert why is None
    times_ns = [p.pts_ns for p in pictures]
    assert times_ns == [times_ns[0] + i * 100_000_000 for i in range(40)]
    assert waited_s > 2  # a part of 3 s comes at once, and is not given out at once


def test_a_live_playlist_that_is_read_again_gives_no_picture_twice(live_playlist):
    source = opened(live_playlist.url("/live.m3u8"))
    before, _ = take(source, 5)
    source.open()
    after, why = take(source, 5)
    source.close()
    assert why is None
    assert min(p.pts_ns for p in after) > max(p.pts_ns for p in before)


def test_an_encrypted_playlist_is_read(tmp_path):
    (tmp_path / "key.bin").write_bytes(bytes(range(16)))
    with WebCamera({}) as camera:
        info = tmp_path / "key.info"
        info.write_text(f"{camera.url('/key.bin')}\n{tmp_path / 'key.bin'}\n")
        options = {"hls_key_info_file": str(info), "hls_time": "1", "hls_list_size": "0"}
        with av.open(str(tmp_path / "list.m3u8"), "w", format="hls", options=options) as container:
            stream = container.add_stream("libx264", rate=25, options={"g": "25"})
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            for image in moving_square(60, SIZE):
                frame = av.VideoFrame.from_ndarray(image, format="bgr24")
                container.mux(stream.encode(frame.reformat(format="yuv420p")))
            container.mux(stream.encode(None))
        camera.files = {f"/{path.name}": path.read_bytes() for path in tmp_path.iterdir()}
        assert b"AES-128" in camera.files["/list.m3u8"]
        source = opened(camera.url("/list.m3u8"))
        pictures, why = take(source)
        source.close()
    assert len(pictures) == 60
    assert isinstance(why, EndOfStream)
