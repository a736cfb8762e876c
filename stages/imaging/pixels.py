"""BGR and planar YUV, there and back, in either matrix and either range.

Y'CbCr is an affine map of B'G'R' (ITU-R BT.601-7 section 2.5, BT.709-6 section 3): with the luma
weights Kr, Kg, Kb, Y = Kr R + Kg G + Kb B, Cb = (B - Y) / (2 - 2 Kb), Cr = (R - Y) / (2 - 2 Kr);
limited range puts Y into 16..235 and Cb, Cr into 16..240.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.errors import FrameError
from pipeline.messages import Frame, Image

_KR_KB = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


@cache
def yuv_of_bgr(matrix: str, full_range: bool) -> npt.NDArray[np.float64]:
    """float64 (3, 4), read-only: (Y, U, V) = m[:, :3] @ (B, G, R) + m[:, 3], all of 0..255.

    matrix: bt601 | bt709; raises FrameError for another.
    """
    if matrix not in _KR_KB:
        raise FrameError(f"matrix: wanted bt601 or bt709, got {matrix!r}")
    kr, kb = _KR_KB[matrix]
    y = np.array([kb, 1 - kr - kb, kr])
    u = (np.array([1, 0, 0]) - y) / (2 - 2 * kb)
    v = (np.array([0, 0, 1]) - y) / (2 - 2 * kr)
    m = np.column_stack([np.stack([y, u, v]), [0, 128, 128]])
    if not full_range:
        m[:, :3] *= np.array([[219], [224], [224]]) / 255
        m[0, 3] = 16
    m.flags.writeable = False
    return m


@cache
def bgr_of_yuv(matrix: str, full_range: bool) -> npt.NDArray[np.float64]:
    """The inverse of `yuv_of_bgr`: float64 (3, 4), read-only, rows B, G, R."""
    m = yuv_of_bgr(matrix, full_range)
    inverse = np.linalg.inv(m[:, :3])
    m = np.column_stack([inverse, -inverse @ m[:, 3]])
    m.flags.writeable = False
    return m


def to_bgr(frame: Frame, out: Image | None = None) -> Image:
    """The picture of a frame as uint8 (H, W, 3) BGR; the converter behind `Frame.image`.

    Without `out`, read-only: a view of the frame's pixels if they are BGR, and new memory if not.
    With `out`, uint8 (H, W, 3), the picture is written there, in one pass or conversion, and `out` is
    returned. Raises FrameError for an unknown matrix or an `out` of another shape.
    """
    height, width = frame.height, frame.width
    if out is not None and (out.dtype != np.uint8 or out.shape != (height, width, 3)):
        raise FrameError(f"out: wanted uint8 {(height, width, 3)}, got {out.dtype} {out.shape}")
    if frame.format == "bgr24":
        if out is None:
            return _read_only(frame.pixels.view())
        np.copyto(out, frame.pixels)
        return out
    image = np.empty((height, width, 3), np.uint8) if out is None else out
    if (frame.matrix, frame.full_range) == ("bt601", False):
        cv2.cvtColor(frame.pixels, cv2.COLOR_YUV2BGR_I420, dst=image)  # what OpenCV can do itself
    else:
        y, u, v = frame.planes
        whole = [cv2.resize(c, (width, height), interpolation=cv2.INTER_LINEAR) for c in (u, v)]
        cv2.transform(cv2.merge([y, *whole]), bgr_of_yuv(frame.matrix, frame.full_range), dst=image)
    return _read_only(image) if out is None else image


def to_i420(image_bgr: Image, matrix: str = "bt601", full_range: bool = False) -> Image:
    """A BGR picture as planes Y, U, V in a row: uint8 (H * 3 // 2, W), new memory.

    image_bgr: uint8 (H, W, 3), H and W even, or FrameError is raised.
    """
    height, width = image_bgr.shape[:2]
    if height % 2 or width % 2 or not height or not width:
        raise FrameError(f"to_i420: wanted even sides, got {width}x{height}; crop or scale first")
    if (matrix, full_range) == ("bt601", False):
        planes = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2YUV_I420)
        return planes.astype(np.uint8, copy=False)
    yuv = cv2.transform(image_bgr, yuv_of_bgr(matrix, full_range))
    half = cv2.resize(yuv, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    flat = np.concatenate([yuv[..., 0].ravel(), half[..., 1].ravel(), half[..., 2].ravel()])
    return flat.reshape(height * 3 // 2, width).astype(np.uint8, copy=False)


def _read_only(image: Image) -> Image:
    image.flags.writeable = False
    return image
