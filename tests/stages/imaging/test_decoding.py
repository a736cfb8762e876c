"""A picture file is the same pixels to training and to a run, the right side up."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image as Pil

from pipeline.errors import DataError, FrameError
from pipeline.messages import Image
from pipeline.runtime import LocalRuntime
from stages.capture.pictures import PicturesConfig, PicturesSource
from stages.training.pictures import decode

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF")
TURNS = {  # PIL's own, from stored to shown
    2: Pil.Transpose.FLIP_LEFT_RIGHT,
    3: Pil.Transpose.ROTATE_180,
    4: Pil.Transpose.FLIP_TOP_BOTTOM,
    5: Pil.Transpose.TRANSPOSE,
    6: Pil.Transpose.ROTATE_270,
    7: Pil.Transpose.TRANSVERSE,
    8: Pil.Transpose.ROTATE_90,
}
XMP = "<x:xmpmeta><rdf:RDF><rdf:Description tiff:Orientation='{}'/></rdf:RDF></x:xmpmeta>"


def read_in_a_run(path: Path) -> Image:
    source = PicturesSource(PicturesConfig(path=str(path)))
    source.runtime = LocalRuntime(["folder"])
    source.setup()
    source.open()
    buffer = np.empty(1 << 16, np.uint8)
    try:
        picture = source.read(buffer)
    finally:
        source.close()
    assert picture is not None
    size = picture.height * picture.width * 3
    return buffer[:size].reshape(picture.height, picture.width, 3)


def exif(orientation: int) -> Pil.Exif:
    tags = Pil.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("how", ["jpg", "png", "tif", "webp", "xmp.jpg", "xmp.webp", "both.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_run_sees_a_turned_picture_as_training_does(
    tmp_path: Path, how: str, orientation: int
) -> None:
    cells = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    stored = Pil.fromarray(cells.repeat(16, 0).repeat(16, 1))  # blocks, which JPEG leaves alone
    xmp = XMP.format(orientation).replace("'", '"').encode()
    options = {"exif": exif(orientation)} if how[:3] != "xmp" else {"xmp": xmp}
    if how == "both.webp":  # EXIF goes before XMP
        options["xmp"] = XMP.format(3).replace("'", '"').encode()
    options |= (
        {"lossless": True}
        if "webp" in how
        else {"quality": 100, "subsampling": 0}
        if "jpg" in how
        else {}
    )
    path = tmp_path / f"a.{how}"
    stored.save(path, **options)
    shown = stored.transpose(TURNS[orientation]) if orientation in TURNS else stored
    seen = read_in_a_run(path)
    np.testing.assert_allclose(seen.astype(int)[..., ::-1], np.asarray(shown), atol=40)
    np.testing.assert_array_equal(seen, decode(path))


@settings(max_examples=60, deadline=None)
@given(
    format=st.sampled_from(FORMATS),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8),
    keep=st.floats(0, 1) | st.just(1.0),
)
@example(format="JPEG", changes=[(42, 1)], keep=1.0)  # where EXIF is damaged, readers of it differ
@example(format="WEBP", changes=[(302, 1)], keep=1.0)
def test_a_damaged_picture_is_the_same_to_both(
    format: str,
    changes: list[tuple[int, int]],
    keep: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    buffer = io.BytesIO()
    noise = Pil.fromarray(np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8))
    noise.save(buffer, format, **({} if format in ("BMP", "GIF") else {"exif": exif(6)}))
    data = bytearray(buffer.getvalue())
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path_factory.mktemp("damaged") / "a.jpg"
    path.write_bytes(data[: round(keep * len(data))])
    try:
        trained_on = decode(path)
    except DataError:
        with pytest.raises(FrameError):
            read_in_a_run(path)
    else:
        if trained_on.size <= 1 << 16:
            np.testing.assert_array_equal(read_in_a_run(path), trained_on)
