"""PicturesSource on real files, good and broken."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import zlib

import cv2
import numpy as np
import pytest

from pipeline.errors import ConfigError, EndOfStream, FrameError, SourceError
from pipeline.stage import LocalRuntime
from stages.capture.pictures import PicturesConfig, PicturesSource


def opened(path: object, **options: object) -> PicturesSource:
    config = PicturesConfig(path=str(path), **options)
    PicturesSource.check(config)
    source = PicturesSource(config)
    source.runtime = LocalRuntime(["folder"])
    source.setup()
    source.open()
    return source


@pytest.fixture
def folder(tmp_path):
    """Three pictures of different sizes, and what is none."""
    rng = np.random.default_rng(0)
    for name, size in (("b.png", (31, 47, 3)), ("a.PNG", (20, 30, 3)), ("c.bmp", (1, 1, 3))):
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 256, size, np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "deeper.png").mkdir()
    return tmp_path


def test_a_folder_in_order_of_names(folder):
    source = opened(folder)
    buffer = np.empty(1 << 14, np.uint8)
    for name in ("a.PNG", "b.png", "c.bmp"):
        picture = source.read(buffer)
        wanted = cv2.imread(str(folder / name))
        assert picture.name == name
        assert (picture.height, picture.width) == wanted.shape[:2]
        np.testing.assert_array_equal(buffer[: wanted.size].reshape(wanted.shape), wanted)
    with pytest.raises(EndOfStream):
        source.read(buffer)


def test_one_picture_and_a_glob(folder):
    buffer = np.empty(1 << 14, np.uint8)
    assert opened(folder / "b.png").read(buffer).name == "b.png"
    source = opened(folder / "*.?[nm][gp]")
    assert [source.read(buffer).name for _ in range(2)] == ["b.png", "c.bmp"]


def test_loop_and_skip(folder):
    source = opened(folder, loop=True)
    buffer = np.empty(1 << 14, np.uint8)
    names = []
    for _ in range(4):
        assert source.skip()
        names.append(source.read(buffer).name)
    assert names == ["b.png", "a.PNG", "c.bmp", "b.png"]


def test_a_rate_is_kept(folder):
    source = opened(folder, rate_hz=50.0)
    buffer = np.empty(1 << 14, np.uint8)
    begun = time.monotonic()
    pictures = [source.read(buffer) for _ in range(3)]
    assert time.monotonic() - begun >= 2 / 50
    assert [p.pts_ns for p in pictures] == [0, 20_000_000, 40_000_000]


def test_larger_than_the_slot_is_scaled_down_and_counted(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((64, 96, 3), 50, np.uint8))
    source = opened(tmp_path, max_size=(48, 32))
    buffer = np.empty(PicturesSource.slot_bytes(source.config, 0), np.uint8)
    picture = source.read(buffer)
    assert (picture.width, picture.height) == (48, 32)
    assert (buffer == 50).all()
    assert source.runtime.counts == {("scaled", "folder"): 1}


def test_a_broken_picture_is_named_and_the_next_one_comes(folder):
    whole = (folder / "b.png").read_bytes()
    (folder / "aa.png").write_bytes(b"no picture at all")
    (folder / "ab.png").write_bytes(b"")
    (folder / "ac.jpg").write_bytes(whole[:20])
    source = opened(folder)
    buffer = np.empty(1 << 14, np.uint8)
    outcomes = []
    for _ in range(6):
        try:
            outcomes.append(source.read(buffer).name)
        except FrameError as error:
            outcomes.append(str(error))
    assert outcomes[0] == "a.PNG"
    for name, text in zip(("aa.png", "ab.png", "ac.jpg"), outcomes[1:4], strict=True):
        assert f"{name}: can't be decoded" in text
    assert outcomes[4:] == ["b.png", "c.bmp"]


def test_exif_orientation_is_applied(tmp_path):
    ok, jpeg = cv2.imencode(".jpg", np.zeros((20, 40, 3), np.uint8))
    assert ok
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    (tmp_path / "a.jpg").write_bytes(jpeg.tobytes()[:2] + segment + jpeg.tobytes()[2:])
    picture = opened(tmp_path).read(np.empty(1 << 14, np.uint8))
    assert (picture.width, picture.height) == (20, 40)


BOMB = """
import re, sys
import numpy as np
from pipeline.errors import FrameError
from stages.capture.pictures import PicturesConfig, PicturesSource
source = PicturesSource(PicturesConfig(path=sys.argv[1]))
source.setup()
source.open()
try:
    source.read(np.empty(100, np.uint8))
except FrameError as error:
    print(error)
# not ru_maxrss: that counts what the parent had before the exec
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


def test_a_picture_bomb_is_refused_before_it_unpacks(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    side = 16_000  # 256 megapixels in 0.25 MB
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(side * (side + 1)), 1))
        + chunk(b"IEND", b"")
    )
    # In a process of its own: the limit is read when OpenCV is imported.
    environ = {k: v for k, v in os.environ.items() if not k.startswith("OPENCV")}
    done = subprocess.run(
        [sys.executable, "-c", BOMB, str(path)],
        capture_output=True, text=True, check=True, timeout=60, env=environ,
    )  # fmt: skip
    said, peak_mb = done.stdout.strip().splitlines()
    assert "bomb.png" in said
    assert int(peak_mb) < 400  # 768 MB of pixels otherwise


def test_nothing_to_show_is_one_sentence(tmp_path):
    for path in (tmp_path, tmp_path / "missing", tmp_path / "*.jpg"):
        with pytest.raises(SourceError, match="no pictures"):
            opened(path)
    with pytest.raises(SourceError, match="not open"):
        PicturesSource(PicturesConfig(path="x")).skip()


@pytest.mark.parametrize("options", [{"rate_hz": 0.0}, {"rate_hz": -1.0}, {"max_size": (0, 0)}])
def test_check_refuses(options):
    with pytest.raises(ConfigError):
        PicturesSource.check(PicturesConfig(path="x", **options))


def test_a_folder_of_folders_is_refused_before_the_start(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(ConfigError, match="holds no picture itself"):
        PicturesSource.check(PicturesConfig(path=str(tmp_path)))
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((2, 2, 3), np.uint8))
    PicturesSource.check(PicturesConfig(path=str(tmp_path)))


@pytest.mark.parametrize(
    ("frames", "loop", "left"),
    [
        (0, False, ["a.PNG", "b.png", "c.bmp"]),
        (2, False, ["c.bmp"]),
        (3, False, []),
        (4, True, ["b.png"]),
    ],
)
def test_a_folder_that_was_read_before_goes_on_behind_it(folder, frames, loop, left):
    source = opened(folder, loop=loop, rate_hz=10.0)
    source.close()
    source.resume(frames)
    source.open()
    buffer = np.empty(20 * 30 * 3, np.uint8)
    pictures = [source.read(buffer) for _ in left]
    assert [picture.name for picture in pictures] == left
    assert [picture.pts_ns for picture in pictures] == [
        (frames + n) * 100_000_000 for n in range(len(left))
    ]
    if not loop:
        with pytest.raises(EndOfStream):
            source.read(buffer)


def test_a_name_that_is_not_utf_8_is_text_that_can_be_sent(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff\xfe.png")
    picture = opened(tmp_path).read(np.empty(100, np.uint8))
    assert picture.name == r"\xff\xfe.png"
    assert picture.name.encode()
