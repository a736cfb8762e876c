"""The pictures of a data set: which way up they are, and those that cannot be read."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from labelled import coco, kinds, picture, voc, voc_object
from PIL import Image as Pil

from pipeline.errors import DataError
from stages.training import pictures
from stages.training.datasets import load, read_image


def test_pictures_that_cannot_be_read_are_named_and_skipped(tmp_path: Path) -> None:
    pictures = tmp_path / "JPEGImages"
    whole = picture(pictures / "whole.jpg", 640, 480).read_bytes()
    (pictures / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (pictures / "text.jpg").write_text("no picture")
    (pictures / "empty.jpg").write_bytes(b"")
    picture(pictures / "alone.jpg")
    for stem in ("whole", "cut", "text", "empty", "gone"):
        voc(tmp_path, stem, voc_object("car", 1, 1, 9, 9), size=(640, 480))
    (tmp_path / "Annotations" / "half.xml").write_text("<annotation>\n<object>")
    data = load(tmp_path)
    assert [s.path.name for s in data.samples] == ["whole.jpg"]
    assert kinds(data) == {"broken": 3, "missing": 1, "annotation": 1, "unlisted": 1}
    assert {p.file.name for p in data.problems if p.kind == "broken"} == {
        "cut.jpg",
        "text.jpg",
        "empty.jpg",
    }
    assert next(p for p in data.problems if p.kind == "annotation").line == 2


def test_a_picture_too_large_to_decode_is_a_problem_of_that_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", str(64 * 48))
    for stem, side in (("a", 64), ("b", 65)):
        picture(tmp_path / "JPEGImages" / f"{stem}.jpg", side)
        voc(tmp_path, stem, size=(side, 48))
    data = load(tmp_path)
    assert [s.path.name for s in data.samples] == ["a.jpg"]
    assert "65x48 px, wanted at most 3072" in str(data.problems[0])


@settings(max_examples=60, deadline=None)
@given(
    format=st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF"]),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8),
    keep=st.floats(0, 1) | st.just(1.0),
)
@example(format="JPEG", changes=[(42, 1)], keep=1.0)  # where EXIF is damaged, readers of it differ
@example(format="JPEG", changes=[(30, 0)], keep=1.0)
def test_a_damaged_picture_is_a_problem_or_can_be_read(
    format: str,
    changes: list[tuple[int, int]],
    keep: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("damaged")
    buffer = io.BytesIO()
    exif = Pil.Exif()
    exif[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    Pil.fromarray(noise).save(
        buffer, format, **({} if format in ("BMP", "GIF") else {"exif": exif})
    )
    data = bytearray(buffer.getvalue())
    for place, value in changes:
        data[place % len(data)] = value
    (root / "JPEGImages").mkdir()
    (root / "JPEGImages" / "a.jpg").write_bytes(data[: round(keep * len(data))])
    voc(root, "a", size=(12, 16))
    picture(root / "JPEGImages" / "b.jpg")
    voc(root, "b")
    loaded = load(root)
    assert len(loaded.samples) == 2 - kinds(loaded).get("broken", 0)
    for sample in loaded.samples:
        assert read_image(sample).shape == (sample.height, sample.width, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_and_boxes_in_stored_pixels(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    """The red quarter is stored top left; a box around it lies around it however it is shown."""
    file = picture(tmp_path / "images" / f"a.{suffix}", orientation=orientation)
    image = {"id": 1, "file_name": file.name, "width": 64, "height": 48}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 32, 24]}
    coco(tmp_path / "a.json", [image], [box], {1: "red"})
    data = load(tmp_path)
    sample = data.samples[0]
    assert (sample.width, sample.height) == ((48, 64) if orientation >= 5 else (64, 48))
    shown = read_image(sample)
    assert shown.shape == (sample.height, sample.width, 3)
    if orientation >= 5:  # 2 to 4 keep width and height: then boxes are of the picture as shown
        assert kinds(data) == {"exif": 1}
        x1, y1, x2, y2 = sample.xyxy[0].astype(int)
        assert shown[y1 + 4 : y2 - 4, x1 + 4 : x2 - 4, 2].min() > 200
        outside = shown.copy()
        outside[y1:y2, x1:x2] = 0
        assert (outside[..., 2] > 200).sum() < 100


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_that_xmp_alone_states_turns_what_is_read_and_what_is_seen_alike(
    tmp_path: Path, orientation: int
) -> None:
    by_exif = picture(tmp_path / "a.png", orientation=orientation)
    xmp = f"<x:xmpmeta><rdf:RDF><rdf:Description tiff:Orientation='{orientation}'/></rdf:RDF></x:xmpmeta>"
    (tmp_path / "images").mkdir()
    stored = Pil.fromarray(np.asarray(Pil.open(by_exif)))
    stored.save(tmp_path / "images" / "a.webp", lossless=True, xmp=xmp.replace("'", '"').encode())
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.25 0.25 0.5 0.5\n")
    sample = load(tmp_path).samples[0]
    np.testing.assert_array_equal(read_image(sample), pictures.decode(by_exif))


def test_a_picture_that_changed_after_loading_is_named(tmp_path: Path) -> None:
    file = picture(tmp_path / "JPEGImages" / "a.jpg")
    voc(tmp_path, "a")
    sample = load(tmp_path).samples[0]
    cv2.imwrite(str(file), np.zeros((10, 20, 3), np.uint8))
    with pytest.raises(DataError, match=r"a\.jpg: wanted 64x48 px .* got 20x10"):
        read_image(sample)
    file.write_bytes(file.read_bytes()[:9])
    with pytest.raises(DataError, match=r"a\.jpg: no readable picture"):
        read_image(sample)
    file.unlink()
    with pytest.raises(DataError, match=r"a\.jpg: No such file"):
        read_image(sample)
