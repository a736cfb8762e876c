"""From a decoded picture to planes in a slot: small enough, upright, with square pixels.

The planes of a yuv420p picture are copied as they are, line by line, turned by the way they are read:
no picture is converted at full size. Every other format, pixels that are not square, and what is larger
than a slot go through swscale first. The last column or row of an odd size is left out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import FrameError
from stages.capture.sizes import fit_size
from stages.imaging.films import Plane, Turn, turn_of, width_of

PLANAR = ("yuv420p", "yuvj420p")
# AVColorSpace (ITU-T H.273): how YUV was made of RGB. 2 is "not said": then everybody takes bt601.
BT709, BT601 = (1,), (2, 5, 6)
FULL_RANGE = 2  # AVColorRange


class Placed(NamedTuple):
    """What `place` wrote."""

    width: int
    height: int
    source_size: tuple[int, int]  # (width, height) in px, before the picture was scaled down
    matrix: str  # bt601 | bt709
    full_range: bool
    scaled: bool  # it was too large


def place(frame: Any, pixel_aspect: Any, room: Plane) -> Placed:
    """Write a decoded picture to the start of `room` as i420, the largest that fits, upright.

    Raises FrameError for a picture of less than 2×2 px.
    """
    wide, turn = width_of(frame, pixel_aspect), turn_of(frame)
    width, height = fit_size(wide, frame.height, room.size * 2 // 3, even=True)
    scaled = (width, height) != (wide // 2 * 2, frame.height // 2 * 2)
    if scaled:
        planar = _converted(frame, width, height)
    elif wide != frame.width:
        planar = _converted(frame, wide, frame.height)
    elif frame.format.name in PLANAR and frame.colorspace in (*BT601, *BT709):
        planar = frame
    else:
        planar = _converted(frame, frame.width, frame.height)
    _copy(planar, width, height, turn, room)
    source = (wide, frame.height) if scaled else (width, height)
    if turn.transpose:
        width, height, source = height, width, source[::-1]
    return Placed(
        width=width,
        height=height,
        source_size=source,
        matrix="bt709" if planar.colorspace in BT709 else "bt601",
        full_range=planar.format.name == "yuvj420p" or planar.color_range == FULL_RANGE,
        scaled=scaled,
    )


def _converted(frame: Any, width: int, height: int) -> Any:
    # bt2020 and smpte240m, which no message knows, are nearer to bt709 than to bt601.
    wide = frame.colorspace in (*BT709, 7, 9, 10)
    return frame.reformat(
        width=width,
        height=height,
        format="yuv420p",
        dst_colorspace="ITU709" if wide else "ITU601",
        dst_color_range="MPEG",
        interpolation="AREA",
    )


def _copy(frame: Any, width: int, height: int, turn: Turn, room: Plane) -> None:
    """Planes Y, U, V of a yuv420p picture, less their padding, turned, one behind the other."""
    start = 0
    for plane, shrink in zip(frame.planes, (1, 2, 2), strict=True):
        rows, columns, stride = height // shrink, width // shrink, plane.line_size
        if stride < columns:
            raise FrameError(f"a decoded plane with lines of {stride} bytes, wanted {columns}")
        lines = np.frombuffer(plane, np.uint8)[: rows * stride].reshape(rows, stride)
        seen = turn.upright(lines[:, :columns])
        np.copyto(room[start : start + rows * columns].reshape(seen.shape), seen)
        start += rows * columns
