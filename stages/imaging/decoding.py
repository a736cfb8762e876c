"""The bytes of a picture file as pixels, the right side up: the same in training and in the pipeline.

OpenCV decodes, Pillow says how the picture is turned: of damaged EXIF no two readers make the same.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image as Pil

from pipeline.messages import Image

BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    Pil.DecompressionBombError,
)  # as Pillow says it
_ORIENTATION = 0x0112  # EXIF tag
_TURNS: dict[int, Callable[[Image], Image]] = {  # from stored to shown (EXIF 2.3)
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image[::-1].transpose(1, 0, 2),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: image[:, ::-1].transpose(1, 0, 2),
}


class TooLarge(ValueError):
    """A picture of more pixels than are decoded here."""


def decoded(data: bytes) -> Image:
    """A picture as it is to be seen: uint8 (H, W, 3) BGR; the first of an animation.

    Raises ValueError with the reason if it can't be decoded, TooLarge if it has too many pixels.
    Pillow may warn of tags that don't matter here.
    """
    if not data:
        raise ValueError("an empty file")
    try:
        with Pil.open(io.BytesIO(data)) as picture:
            size = picture.size
            # OpenCV's reader of TIFF turns what it reads
            turn = 1 if picture.format == "TIFF" else orientation_of(picture)
    except BROKEN:
        size, turn = (
            (1, 1),
            1,
        )  # a kind that Pillow does not know; OpenCV may, and has its own limit
    check_size(*size)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f"refused by OpenCV: {error.err}") from None
    if image is None:
        raise ValueError("OpenCV can't decode it")
    return upright(image.astype(np.uint8, copy=False), turn)


def check_size(width: int, height: int) -> None:
    """Raise TooLarge if a picture has more pixels than the environment allows OpenCV."""
    limit = int(os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 26)))
    if width * height > limit:
        raise TooLarge(
            f"{width}x{height} px, wanted at most {limit} px in all; OPENCV_IO_MAX_IMAGE_PIXELS in the "
            "environment allows more"
        )


def orientation_of(picture: Pil.Image) -> int:
    """1..8 as EXIF says, else XMP; 1 if neither says anything that can be read."""
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except BROKEN:
        return 1
    return orientation if orientation in range(1, 9) else 1


def upright(stored: Image, orientation: int) -> Image:
    """A stored picture (H, W, 3) as it is shown, contiguous."""
    return np.ascontiguousarray(_TURNS[orientation](stored))
