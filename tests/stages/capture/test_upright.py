"""Turned videos and pixels that are not square, by both readers of files."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import write_clip

from pipeline.errors import EndOfStream
from pipeline.runtime import LocalRuntime
from pipeline.stage import Picture, Source
from stages.capture.av import AvConfig, AvSource
from stages.capture.opencv import OpenCvConfig, OpenCvSource
from stages.training.annotate import shots

CORNERS = {(0, 0): (40, 40, 220), (0, 1): (40, 220, 40), (1, 0): (220, 40, 40)}  # row, column: BGR
UNIT = 1 << 16
# ISO/IEC 14496-12: a b u c d v x y w; and what it makes of a picture
MATRICES = {
    "as it is": ((UNIT, 0, 0, UNIT), lambda image: image),
    "90": ((0, UNIT, -UNIT, 0), lambda image: np.rot90(image, -1)),
    "180": ((-UNIT, 0, 0, -UNIT), lambda image: np.rot90(image, 2)),
    "270": ((0, -UNIT, UNIT, 0), lambda image: np.rot90(image, 1)),
    "mirrored": ((-UNIT, 0, 0, UNIT), lambda image: image[:, ::-1]),
    "upside down": ((UNIT, 0, 0, -UNIT), lambda image: image[::-1]),
    "transposed": ((0, UNIT, UNIT, 0), lambda image: image.transpose(1, 0, 2)),
    "90 and mirrored": ((0, -UNIT, -UNIT, 0), lambda image: np.rot90(image, -1)[::-1]),
}


def coloured(size: tuple[int, int] = (96, 64)) -> np.ndarray:
    """A gray picture with a colour in three of its corners, uint8 (H, W, 3) BGR."""
    width, height = size
    image = np.full((height, width, 3), 128, np.uint8)
    for (row, column), colour in CORNERS.items():
        image[row * height // 2 :, column * width // 2 :][: height // 4, : width // 4] = colour
    return image


def with_matrix(path: Path, abcd: tuple[int, int, int, int]) -> Path:
    """The MP4 with another matrix in the header of its track."""
    a, b, c, d = abcd
    data, plain = path.read_bytes(), struct.pack(">9i", UNIT, 0, 0, 0, UNIT, 0, 0, 0, 1 << 30)
    start = data.index(plain, data.index(b"tkhd"))
    turned = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:start] + turned + data[start + len(turned) :])
    return path


def all_of(source: Source, room: int = 1 << 20) -> list[tuple[Picture, np.ndarray]]:
    """Every picture as uint8 (H, W, 3) BGR."""
    source.runtime = LocalRuntime(["gate"])
    source.setup()
    source.open()
    out, buffer = [], np.empty(room, np.uint8)
    try:
        while True:
            picture = source.read(buffer)
            pixels = buffer[: np.prod(picture.shape)].reshape(picture.shape)
            bgr = (
                pixels
                if picture.format == "bgr24"
                else cv2.cvtColor(pixels, cv2.COLOR_YUV2BGR_I420)
            )
            out.append((picture, bgr.copy()))
    except EndOfStream:
        return out
    finally:
        source.close()


def read_by(reader: str, path: Path, **options: object) -> list[tuple[Picture, np.ndarray]]:
    if reader == "av":
        return all_of(AvSource(AvConfig(url=str(path), **options)))
    return all_of(OpenCvSource(OpenCvConfig(device=str(path), **options)))


@pytest.mark.parametrize("reader", ["av", "opencv"])
@pytest.mark.parametrize("turn", MATRICES)
def test_a_turned_video_is_put_upright(tmp_path, turn, reader):
    abcd, seen = MATRICES[turn]
    image = coloured()
    path = with_matrix(write_clip(tmp_path / "a.mp4", [image] * 3), abcd)
    found = read_by(reader, path)
    assert len(found) == 3
    wanted = seen(image)
    for picture, bgr in found:
        assert (picture.height, picture.width) == wanted.shape[:2]
        assert picture.source_size == (picture.width, picture.height)
        assert np.abs(bgr.astype(int) - wanted).mean() < 6


@pytest.mark.parametrize("reader", ["av", "opencv"])
def test_pixels_become_square(tmp_path, reader):
    image = coloured((48, 64))
    path = write_clip(tmp_path / "a.mp4", [image] * 2, pixel_aspect=(2, 1))
    for picture, bgr in read_by(reader, path):
        assert (picture.width, picture.height) == picture.source_size == (96, 64)
        wanted = cv2.resize(image, (96, 64), interpolation=cv2.INTER_LINEAR)
        assert np.abs(bgr.astype(int) - wanted).mean() < 6


@pytest.mark.parametrize("reader", ["av", "opencv"])
def test_a_turned_wide_and_large_one_fits_the_slot(tmp_path, reader):
    """All at once: the truth is in pixels of what a player shows."""
    path = write_clip(tmp_path / "a.mp4", [coloured((192, 256))] * 2, pixel_aspect=(2, 1))
    with_matrix(path, MATRICES["90"][0])
    source_class = AvSource if reader == "av" else OpenCvSource
    config = source_class.Config
    options = config(**{"url" if reader == "av" else "device": str(path)}, max_size=(64, 96))
    room = source_class.slot_bytes(options, 0)
    for picture, bgr in all_of(source_class(options), room):
        assert picture.source_size == (256, 384)
        assert (picture.width, picture.height) == (64, 96)
        wanted = cv2.resize(
            np.rot90(coloured((384, 256)), -1), (64, 96), interpolation=cv2.INTER_AREA
        )
        assert np.abs(bgr.astype(int) - wanted).mean() < 8


@pytest.mark.parametrize("pixel_aspect", [(1, 1), (2, 1)])
@pytest.mark.parametrize("turn", MATRICES)
def test_predict_sees_what_a_run_sees(tmp_path, turn, pixel_aspect):
    path = write_clip(tmp_path / "a.mp4", [coloured()] * 3, pixel_aspect=pixel_aspect)
    with_matrix(path, MATRICES[turn][0])
    in_a_run = read_by("av", path)
    without = list(shots([path], lambda text: None))
    assert [shot.index for shot in without] == [0, 1, 2]
    for shot, (_, bgr) in zip(without, in_a_run, strict=True):
        assert shot.image.shape == bgr.shape
        assert np.abs(shot.image.astype(int) - bgr).mean() < 3
