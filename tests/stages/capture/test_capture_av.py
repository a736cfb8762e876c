"""AvSource on files and HTTP: real encodes, real sockets."""

from __future__ import annotations

import contextlib
import gc
import http.server
import socket
import struct
import threading
import time
import zlib
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import moving_square, noise_i420, write_clip

from pipeline.errors import ConfigError, EndOfStream, FrameError, SourceError
from pipeline.runtime import LocalRuntime
from pipeline.stage import Picture
from stages.capture.av import AvConfig, AvSource


def opened(path: Path | str, **options: object) -> AvSource:
    config = AvConfig(url=str(path), **options)
    AvSource.check(config)
    source = AvSource(config)
    source.runtime = LocalRuntime(["gate"])
    source.setup()
    source.open()
    return source


def read_all(source: AvSource, room: int = 1 << 20) -> list[tuple[Picture, np.ndarray]]:
    """Every picture with its pixels, uint8 (H * 3 // 2, W); closes the source."""
    out = []
    buffer = np.empty(room, np.uint8)
    try:
        while True:
            picture = source.read(buffer)
            assert picture is not None
            assert picture.format == "i420"
            used = picture.width * picture.height * 3 // 2
            out.append((picture, buffer[:used].reshape(-1, picture.width).copy()))
    except EndOfStream:
        return out
    finally:
        source.close()


def test_planes_arrive_bit_for_bit_and_nothing_else_is_written(tmp_path):
    wanted = noise_i420(5, (98, 62))  # lines of 98 bytes: the decoder pads them
    path = write_clip(tmp_path / "a.mkv", wanted, codec="ffv1", source_format="yuv420p")
    source = opened(path)
    buffer = np.full(98 * 62 * 3 // 2 + 100, 7, np.uint8)
    for planes in wanted:
        picture = source.read(buffer)
        assert (picture.width, picture.height) == (98, 62)
        np.testing.assert_array_equal(buffer[:-100].reshape(planes.shape), planes)
        assert (buffer[-100:] == 7).all()
    for _ in range(2):  # the end stays the end
        with pytest.raises(EndOfStream):
            source.read(buffer)
    source.close()


def test_a_picture_is_let_go_when_the_next_one_is_read(tmp_path):
    path = write_clip(tmp_path / "a.mkv", noise_i420(20, (98, 62)), source_format="yuv420p")
    source = opened(path)
    buffer = np.empty(1 << 20, np.uint8)
    gc.collect()
    gc.disable()  # what only it frees is a picture of megabytes each
    try:
        for _ in range(20):
            source.read(buffer)
        alive = sum(type(one) is av.VideoFrame for one in gc.get_objects())
    finally:
        gc.enable()
    source.close()
    assert alive <= 3


def test_odd_sizes_lose_their_last_column_and_row(tmp_path):
    gray = np.arange(61 * 97, dtype=np.uint32).reshape(61, 97) % 200
    image = np.repeat(gray.astype(np.uint8)[:, :, None], 3, axis=2)
    path = write_clip(tmp_path / "odd.mkv", [image], codec="ffv1")
    [(picture, pixels)] = read_all(opened(path))
    assert (picture.width, picture.height) == (96, 60)
    luma = np.round(16 + image[:60, :96, 0] * (219 / 255))
    np.testing.assert_allclose(pixels[:60], luma, atol=1)


def test_h264_shows_what_opencv_shows(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving_square(10))
    found = read_all(opened(path))
    capture = cv2.VideoCapture(str(path))
    assert len(found) == 10
    for picture, pixels in found:
        ok, bgr = capture.read()
        assert ok
        ours = cv2.cvtColor(pixels, cv2.COLOR_YUV2BGR_I420)
        assert (picture.matrix, picture.full_range) == ("bt601", False)
        # OpenCV's chroma upsampling differs from FFmpeg's, so only at the edges of colours.
        assert np.abs(ours.astype(int) - bgr).mean() < 2
    assert found[0][0].keyframe
    assert not found[1][0].keyframe
    assert [p.pts_ns for p, _ in found] == [i * 40_000_000 for i in range(10)]
    assert not any(p.corrupt for p, _ in found)


@pytest.mark.parametrize(
    ("pix_fmt", "matrix", "full_range"),
    [
        ("yuv420p", None, False),
        ("yuv420p", 1, False),
        ("yuv420p", 1, True),
        ("yuvj420p", 5, True),
        ("yuv444p", 1, True),
        ("yuv422p", 5, False),
        ("yuv420p10le", 1, False),
        ("bgr0", None, False),
        ("gray", None, False),
    ],
)
def test_colours_survive_every_format(tmp_path, pix_fmt, matrix, full_range):
    colours = [(30, 60, 200), (200, 60, 30), (128, 128, 128), (20, 230, 20)]
    if pix_fmt == "gray":
        colours = [(g, g, g) for g in (0, 30, 128, 255)]
    images = [np.full((32, 48, 3), colour, np.uint8) for colour in colours]
    codec = "ffv1" if pix_fmt in ("bgr0", "gray") else "libx264"
    path = write_clip(
        tmp_path / "a.mkv",
        images,
        codec=codec,
        pix_fmt=pix_fmt,
        matrix=matrix,
        full_range=full_range,
    )
    for colour, (picture, pixels) in zip(colours, read_all(opened(path)), strict=True):
        assert picture.matrix == ("bt709" if matrix == 1 else "bt601")
        assert picture.full_range == (full_range and pix_fmt in ("yuv420p", "yuvj420p"))
        y, u, v = (float(pixels[row, 0]) for row in (0, 32, 40))
        np.testing.assert_allclose(to_bgr(y, u, v, picture), colour, atol=5)


def to_bgr(y: float, u: float, v: float, picture: Picture) -> tuple[float, float, float]:
    """ITU-T BT.601 / BT.709, written down independently of any library."""
    kr, kb = (0.2126, 0.0722) if picture.matrix == "bt709" else (0.299, 0.114)
    luma, chroma = (y / 255, 255) if picture.full_range else ((y - 16) / 219, 224)
    pb, pr = (u - 128) / chroma, (v - 128) / chroma
    blue, red = luma + 2 * (1 - kb) * pb, luma + 2 * (1 - kr) * pr
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return blue * 255, green * 255, red * 255


def test_larger_than_the_slot_is_scaled_down_and_counted(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving_square(3, (192, 128)))
    room = AvSource.slot_bytes(AvConfig(url="x", max_size=(96, 64)), 0)
    assert room == 96 * 64 * 3 // 2
    source = opened(path)
    sizes = {(p.width, p.height) for p, _ in read_all(source, room)}
    assert sizes == {(96, 64)}
    assert source.runtime.counts["scaled", "gate"] == 3
    assert AvSource.counters(source.config) == ("scaled",)


def test_a_change_of_size_inside_the_stream(tmp_path):
    first = write_clip(tmp_path / "1.ts", moving_square(4, (96, 64)))
    second = write_clip(tmp_path / "2.ts", moving_square(4, (128, 96)))
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    assert [(p.width, p.height) for p, _ in read_all(opened(both))] == [(96, 64)] * 4 + [
        (128, 96)
    ] * 4


def test_loop_goes_on_with_growing_time(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving_square(5))
    source = opened(path, loop=True)
    buffer = np.empty(1 << 16, np.uint8)
    times = []
    while len(times) < 14:
        picture = source.read(buffer)
        if picture is not None:
            times.append(picture.pts_ns)
    source.close()
    assert times == [i * 40_000_000 for i in range(14)]


def test_realtime_is_never_ahead_of_the_file(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving_square(6), fps=50)
    source = opened(path, realtime=True)
    buffer = np.empty(1 << 16, np.uint8)
    begun = time.monotonic()
    pictures = [source.read(buffer) for _ in range(3)]
    assert source.skip()
    pictures.append(source.read(buffer))
    assert time.monotonic() - begun >= 4 / 50
    assert [p.pts_ns for p in pictures] == [0, 20_000_000, 40_000_000, 80_000_000]
    source.close()


def test_a_skipped_jpeg_is_not_decoded(tmp_path):
    path = write_clip(
        tmp_path / "a.mkv", moving_square(3), codec="mjpeg", pix_fmt="yuvj420p", full_range=True
    )
    with av.open(str(path)) as container:
        second = bytes(list(container.demux())[1])
    path.write_bytes(path.read_bytes().replace(second, bytes(len(second))))
    with pytest.raises(FrameError, match="can't be decoded"):
        read_all(opened(path))
    source = opened(path)
    buffer = np.empty(1 << 16, np.uint8)
    times = [source.read(buffer).pts_ns]
    assert source.skip()
    times.append(source.read(buffer).pts_ns)
    assert times == [0, 80_000_000]
    for _ in range(2):
        with pytest.raises(EndOfStream):
            source.skip()
    source.close()


def test_keyframes_alone_or_what_others_need(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving_square(25), options={"g": "10", "bf": "2"})
    everything = [picture for picture, _ in read_all(opened(path))]
    assert len(everything) == 25
    keyframes = [picture for picture, _ in read_all(opened(path, decode="keyframes"))]
    assert [p.pts_ns for p in keyframes] == [p.pts_ns for p in everything if p.keyframe]
    assert len(keyframes) == 3
    needed = {picture.pts_ns for picture, _ in read_all(opened(path, decode="reference"))}
    assert {p.pts_ns for p in keyframes} < needed < {p.pts_ns for p in everything}


def test_opening_again_starts_again(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving_square(3))
    source = opened(path)
    assert source.skip()
    source.open()
    assert len(read_all(source)) == 3
    source.close()  # twice is fine


@pytest.mark.parametrize("content", [None, b"", b"no video at all", b"\0" * 100_000])
def test_what_is_no_video_is_one_sentence(tmp_path, content):
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.mp4: can't be opened"):
        opened(path)


def test_truncated_and_scribbled_files_end_in_typed_errors(tmp_path):
    whole = write_clip(tmp_path / "a.mkv", moving_square(30)).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole[: len(whole) // 2])
    assert 0 < len(read_all(opened(cut))) < 30
    head = tmp_path / "head.mkv"
    head.write_bytes(whole[:200])
    with pytest.raises(SourceError):
        opened(head)


def test_reading_before_open_is_a_source_error():
    source = AvSource(AvConfig(url="nowhere.mp4"))
    with pytest.raises(SourceError, match="not open"):
        source.read(np.empty(100, np.uint8))


@pytest.mark.parametrize(
    "options",
    [
        {"url": "ftp://host/a.mp4"},
        {"url": "concat://a|b"},
        {"url": "a.mp4", "max_size": (0, 10)},
        {"url": "a.mp4", "credentials": "GATE"},
        {"url": "a.mp4", "read_timeout_s": 0.0},
        {"url": "a.mp4", "decode": "some"},
        {"url": "rtsp://host/1", "transport": "smoke"},
        {"url": "rtsp://host/1", "credentials": "NOBODY_SET_THIS"},
    ],
)
def test_check_refuses(options):
    with pytest.raises(ConfigError):
        AvSource.check(AvConfig(**options))


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(tmp_path):
    """A folder that is served on loopback, and its address."""
    folder = tmp_path / "site"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(_Files, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def playlist(path: Path, target: str) -> None:
    """An HLS playlist of one part."""
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.2,\n{target}\n#EXT-X-ENDLIST\n")


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("options", [{}, {"realtime": True}])
def test_a_film_goes_on_behind_what_came_of_it_before(tmp_path, options, again):
    """again: by the same reader, which lost it; else by that of a new process."""
    path = write_clip(tmp_path / "a.mp4", moving_square(20), options={"g": "7", "bf": "2"})
    whole = read_all(opened(path))
    config = AvConfig(url=str(path), **options)
    source = AvSource(config)
    if again:
        source.open()
        while not source.read(np.empty(96 * 64 * 3 // 2, np.uint8)):
            pass
        source.close()
    source.resume(12)
    source.open()
    rest = read_all(source)
    assert [p.pts_ns for p, _ in rest] == [p.pts_ns for p, _ in whole[12:]]
    for (_, pixels), (_, wanted) in zip(rest, whole[12:], strict=True):
        np.testing.assert_array_equal(pixels, wanted)


def test_a_playlist_from_the_net_opens_no_file(site, tmp_path):
    folder, address = site
    write_clip(folder / "a.ts", moving_square(5))
    secret = write_clip(tmp_path / "secret.ts", moving_square(5))
    playlist(folder / "list.m3u8", f"{address}/a.ts")
    assert len(read_all(opened(f"{address}/list.m3u8"))) == 5
    for target in (
        f"file://{secret}", f"concat:{secret}", f"subfile,,start,0,end,0,,:{secret}",
        f"crypto:{secret}", f"crypto+file://{secret}",
    ):  # fmt: skip
        playlist(folder / "list.m3u8", target)
        with pytest.raises(SourceError):
            opened(f"{address}/list.m3u8")


def test_a_playlist_on_the_disk_opens_no_address(site, tmp_path):
    folder, address = site
    write_clip(folder / "a.ts", moving_square(5))
    playlist(tmp_path / "list.m3u8", str(folder / "a.ts"))
    assert len(read_all(opened(tmp_path / "list.m3u8"))) == 5
    playlist(tmp_path / "list.m3u8", f"{address}/a.ts")
    with pytest.raises(SourceError):
        opened(tmp_path / "list.m3u8")


def test_a_session_description_from_the_net_opens_no_port(site):
    folder, address = site
    (folder / "a.sdp").write_text(
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    )
    with pytest.raises(SourceError) as caught:
        opened(f"{address}/a.sdp", open_timeout_s=1.0)
    assert "no answer" not in str(caught.value)  # it would wait at the port


def test_a_picture_bomb_gets_no_memory(tmp_path):
    def png(side: int) -> bytes:
        """Black, gray: a million pixels in a kilobyte."""
        chunks = (
            (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)),
            (b"IDAT", zlib.compress(bytes(side * (side + 1)), 1)),
            (b"IEND", b""),
        )
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )

    path = tmp_path / "a.png"
    path.write_bytes(png(100))
    assert len(read_all(opened(path))) == 1
    path.write_bytes(png(8200))
    with pytest.raises(SourceError):
        read_all(opened(path))


@pytest.mark.parametrize("prefix", ["concat:", "subfile,,start,0,end,9999,,:", "async:", "file:"])
def test_a_path_is_a_path_and_no_ffmpeg_address(tmp_path, prefix):
    path = write_clip(tmp_path / "a.ts", moving_square(3))
    with pytest.raises(SourceError):
        opened(f"{prefix}{path}")


def test_mpeg_ts_over_udp(tmp_path):
    """As a multicast of a broadcaster or an encoder comes."""
    data = write_clip(tmp_path / "a.ts", moving_square(50)).read_bytes()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    over = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not over.is_set():
                for at in range(0, len(data), 1316):
                    with contextlib.suppress(ConnectionRefusedError):  # nobody listens yet
                        sender.sendto(data[at : at + 1316], address)
                    over.wait(0.002)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        source = opened(f"udp://127.0.0.1:{address[1]}", open_timeout_s=20.0)
        buffer, found = np.empty(1 << 16, np.uint8), 0
        while found < 20:
            with contextlib.suppress(FrameError):  # it began in the middle
                found += source.read(buffer) is not None
        assert source.live
        source.close()
    finally:
        over.set()
        thread.join()
