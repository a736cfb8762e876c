"""PicturesSource on real files, good and broken."""

from __future__ import annotations

import os
import struct
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.errors import BrokenSource, ConfigError, EndOfStream, FrameError, SourceError
from pipeline.runtime import LocalRuntime
from stages.capture.pictures import PicturesConfig, PicturesSource, find_pictures


def opened(path: object, **options: object) -> PicturesSource:
    config = PicturesConfig(path=str(path), **options)
    PicturesSource.check(config)
    source = PicturesSource(config)
    source.runtime = LocalRuntime(["folder"])
    source.setup()
    source.open()
    return source


def all_of(source: PicturesSource) -> list[tuple[str, int]]:
    """Name and first byte, which is blue, of each picture."""
    out, buffer = [], np.empty(1 << 14, np.uint8)
    try:
        while True:
            picture = source.read(buffer)
            out.append((picture.name, int(buffer[0])))
    except EndOfStream:
        return out
    finally:
        source.close()


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
        assert f"picture {folder / name}: " in text
        assert "wanted one of .apng" in text
    assert outcomes[4:] == ["b.png", "c.bmp"]


def test_a_picture_of_too_many_pixels_is_told_what_allows_more(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 40, 3), np.uint8))
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "799")
    with pytest.raises(
        FrameError, match=r"40x20 px, wanted at most 799 px in all; OPENCV_"
    ) as raised:
        opened(tmp_path).read(np.empty(1 << 14, np.uint8))
    assert ".png, " not in str(raised.value)  # its kind is not what is wrong


def test_exif_orientation_is_applied(tmp_path):
    ok, jpeg = cv2.imencode(".jpg", np.zeros((20, 40, 3), np.uint8))
    assert ok
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    (tmp_path / "a.jpg").write_bytes(jpeg.tobytes()[:2] + segment + jpeg.tobytes()[2:])
    picture = opened(tmp_path).read(np.empty(1 << 14, np.uint8))
    assert (picture.width, picture.height) == (20, 40)


def test_names_are_sorted_as_people_sort_them(tmp_path):
    for name in ("img10.jpg", "img2.jpg", "IMG1.jpg", "b.jpg", "a9z10.jpg", "a9z9.jpg"):
        cv2.imwrite(str(tmp_path / name), np.zeros((2, 2, 3), np.uint8))
    wanted = ["a9z9.jpg", "a9z10.jpg", "b.jpg", "IMG1.jpg", "img2.jpg", "img10.jpg"]
    assert [path.name for path in find_pictures(str(tmp_path))] == wanted


def test_what_is_left_out_by_its_suffix_is_counted_and_said(folder, caplog):
    for name in ("x.heic", "y.HEIC", ".DS_Store", "._a.PNG"):
        (folder / name).write_bytes(b"x")
    source = opened(folder)
    assert "left out by their suffix: 2 .heic, 1 .txt" in caplog.text
    assert [name for name, _ in all_of(source)] == ["a.PNG", "b.png", "c.bmp"]


def test_a_folder_of_what_can_not_be_read_says_what_is_there(tmp_path):
    (tmp_path / "IMG_1.HEIC").write_bytes(b"x")
    with pytest.raises(BrokenSource, match=r"no pictures; .*; there are 1 \.heic"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "name", ["a.jfif", "a.jpe", "a.jp2", "a.pgm", "a.avif", "a.gif", "a.webp", "a.tif"]
)
def test_pictures_of_many_kinds(tmp_path, name):
    image = Image.new("L", (40, 30), 150).convert("L" if name == "a.pgm" else "RGB")
    kinds = {"jfif": "JPEG", "jpe": "JPEG", "jp2": "JPEG2000", "pgm": "PPM", "tif": "TIFF"}
    suffix = name.partition(".")[2]
    image.save(tmp_path / name, format=kinds.get(suffix, suffix.upper()))
    buffer = np.empty(1 << 14, np.uint8)
    picture = opened(tmp_path).read(buffer)
    assert (picture.width, picture.height, picture.name) == (40, 30, name)
    assert np.abs(buffer[: 40 * 30 * 3].astype(int) - 150).max() <= 3


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.apng"])
def test_each_picture_of_an_animation_is_a_frame(tmp_path, name):
    images = [Image.new("RGB", (40, 30), (0, 0, 60 * i)) for i in range(4)]
    images[0].save(
        tmp_path / name, save_all=True, append_images=images[1:], lossless=True, duration=40
    )
    cv2.imwrite(str(tmp_path / "b.png"), np.full((30, 40, 3), 9, np.uint8))
    found = [(name, blue // 10) for name, blue in all_of(opened(tmp_path))]
    assert found == [(name, 0), (name, 6), (name, 12), (name, 18), ("b.png", 0)]


def test_nothing_to_show_is_one_sentence(tmp_path):
    for path in (tmp_path, tmp_path / "missing", tmp_path / "*.jpg"):
        with pytest.raises(BrokenSource, match="no pictures"):
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
