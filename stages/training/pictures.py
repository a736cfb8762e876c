"""Picture files: decoded as the pipeline decodes them, looked at with suspicion, bounded in size."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as Pil

from pipeline.errors import DataError
from pipeline.messages import Image
from stages.imaging.decoding import BROKEN, check_size, decoded, orientation_of

Box = tuple[float, float, float, float]

MAX_PICTURE_BYTES = 256 << 20  # of the file
RELIEF = 2  # of 255


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
    """A picture file as uint8 (H, W, 3) BGR, the right side up: what the pipeline sees of it.

    Raises DataError naming the file if it is gone, broken or too large. Not for several threads at
    once: Pillow's warnings, of tags that we don't read, are held back for the whole process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _decode(path)


def _decode(path: Path) -> Image:
    try:
        return decoded(_bytes(path))
    except ValueError as error:
        raise DataError(f"{path}: no readable picture: {error}") from error


def look_at(path: Path) -> Look:
    """Decode a picture, a JPEG at an eighth of its size: enough to know that its bytes are all there.

    For several threads at once; who starts them holds back Pillow's warnings.
    """
    if not path.is_file():
        return Look(kind="missing", text="no such picture; it is skipped")
    try:
        data = _bytes(path)
        with Pil.open(io.BytesIO(data)) as picture:
            check_size(*picture.size)
            size, orientation = picture.size, orientation_of(picture)
            if picture.format in ("JPEG", "MPO"):
                picture.draft("RGB", (max(64, size[0] // 8), max(64, size[1] // 8)))
                picture.load()
                alike = likeness(picture)
            else:  # of others OpenCV may read less than Pillow
                shown = decoded(data)
                height, width = shown.shape[:2]
                size = (height, width) if orientation >= 5 else (width, height)
                alike = likeness(Pil.fromarray(shown[:, :, ::-1]))
    except (*BROKEN, DataError) as error:
        return Look(kind="broken", text=f"no readable picture ({error}); it is skipped")
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
