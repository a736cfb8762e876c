"""Picture files: decoded as the pipeline decodes them, looked at with suspicion, bounded in size."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as Pil
from PIL import UnidentifiedImageError

from pipeline.errors import DataError

Image = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]

MAX_PICTURE_BYTES = 256 << 20  # of the file
MAX_PICTURE_PX = 80_000_000  # below what makes Pillow warn
_BOTH_DECODE = ("JPEG", "MPO", "PNG", "BMP", "WEBP")  # what OpenCV reads wherever Pillow does
RELIEF = 2  # of 255
_ORIENTATION = 0x0112  # EXIF tag
_TURNS: dict[int, Callable[[Image], Image]] = {  # from stored to shown (EXIF 2.3)
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image[::-1].transpose(1, 0, 2),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: image[:, ::-1].transpose(1, 0, 2),
}
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    UnidentifiedImageError,
    Pil.DecompressionBombError,
)


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a picture file told."""

    stored_wh_px: tuple[int, int] = (0, 0)  # before EXIF orientation
    orientation: int = 1  # EXIF, 1..8
    digest: bytes = b""
    likeness: int = 0  # see `likeness`
    kind: str = ""  # of the problem, if there is one
    text: str = ""


def decode(path: Path) -> Image:
    """A picture file as uint8 (H, W, 3) BGR, orientation of EXIF, else of XMP, applied.

    Decoded by OpenCV as the pipeline's picture folders are, so that both see the same pixels.
    Raises DataError naming the file if it is gone, broken or too large. Not for several threads at
    once: Pillow's warnings, of tags that we don't read, are held back for the whole process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _decode(path)


def _decode(path: Path) -> Image:
    import cv2

    data = _bytes(path)
    try:
        with _open(data) as picture:
            _check_size(*picture.size)
            turn = _turn_of_xmp(picture)
    except _BROKEN as error:
        raise DataError(f"{path}: no readable picture: {error}") from error
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise DataError(f"{path}: OpenCV cannot decode this picture; save it as JPEG or PNG")
    image: Image = decoded.astype(np.uint8, copy=False)
    return image if turn == 1 else np.ascontiguousarray(_TURNS[turn](image))


def look_at(path: Path) -> Look:
    """Decode a picture at an eighth of its size or so: enough to know that its bytes are all there.

    For several threads at once; who starts them holds back Pillow's warnings.
    """
    if not path.is_file():
        return Look(kind="missing", text="no such picture; it is skipped")
    try:
        data = _bytes(path)
        with _open(data) as picture:
            _check_size(*picture.size)
            size = picture.size
            orientation = picture.getexif().get(_ORIENTATION, 1)
            _turn_of_xmp(picture)  # EXIF that is damaged refuses the picture here, as in `decode`
            if picture.format == "TIFF" and orientation in range(5, 9):
                size = size[::-1]  # here Pillow gives the size as shown
            picture.draft("RGB", (max(64, size[0] // 8), max(64, size[1] // 8)))
            picture.load()
            if picture.format not in _BOTH_DECODE:
                _decode(path)
            alike = likeness(picture)
    except (*_BROKEN, DataError) as error:
        return Look(kind="broken", text=f"no readable picture ({error}); it is skipped")
    if orientation not in range(1, 9):
        orientation = 1
    return Look(size, orientation, hashlib.sha256(data).digest(), alike)


def likeness(picture: Pil.Image) -> int:
    """256 bits of where brightness rises in a picture; 0 of one without any relief.

    Pictures that look alike differ in few bits: those saved again, scaled, or a moment apart
    ("difference hash", N. Krawetz, 2013; steps of RELIEF or less are noise, and count as none).
    """
    grey = picture.convert("L").resize((17, 16), Pil.Resampling.BOX)
    cells = np.asarray(grey, np.int16)  # (16, 17)
    return int.from_bytes(np.packbits(np.diff(cells) > RELIEF).tobytes())


def _bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_PICTURE_BYTES:
            raise DataError(f"{path}: {size} bytes, wanted at most {MAX_PICTURE_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _open(data: bytes) -> Pil.Image:
    return Pil.open(io.BytesIO(data))


def _turn_of_xmp(picture: Pil.Image) -> int:
    """The orientation that XMP alone states, which OpenCV does not look at: 1..8, 1 for none."""
    orientation = picture.getexif().get(_ORIENTATION, 1)
    own = Pil.Exif()
    own.load(picture.info.get("exif") or b"")
    seen = picture.format == "TIFF" or _ORIENTATION in own
    return orientation if orientation in _TURNS and not seen else 1


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PICTURE_PX:
        raise ValueError(f"{width}x{height} px, wanted at most {MAX_PICTURE_PX} px in all")


def turned(xyxy: Box, seen: Look) -> Box:
    """A box in stored pixels as a box of the picture as shown (EXIF 2.3, orientation 5 to 8)."""
    w, h = seen.stored_wh_px
    x1, y1, x2, y2 = xyxy
    return {
        5: (y1, x1, y2, x2),
        6: (h - y2, x1, h - y1, x2),
        7: (h - y2, w - x2, h - y1, w - x1),
        8: (y1, w - x2, y2, w - x1),
    }[seen.orientation]
