"""From a decoded picture to planes in a slot: small enough, upright, with square pixels.

The planes of a yuv420p picture are copied as they are, line by line, turned by the way they are read:
no picture is converted at full size. Every other format, pixels that are not square, and what is larger
than a slot go through swscale first. The last column or row of an odd size is left out.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.errors import FrameError
from stages.capture.sizes import fit_size
from stages.capture.tracks import film_of

Plane = npt.NDArray[np.uint8]

PLANAR = ("yuv420p", "yuvj420p")
# AVColorSpace (ITU-T H.273): how YUV was made of RGB. 2 is "not said": then everybody takes bt601.
BT709, BT601 = (1,), (2, 5, 6)
FULL_RANGE = 2  # AVColorRange
MAX_ASPECT = 8.0  # of a pixel; beyond it, or below its inverse, the header is wrong


class Turn(NamedTuple):
    """How a picture is put upright: transposed first, then mirrored.

    >>> Turn.of_matrix(0, 1, -1, 0).upright(np.array([[1, 2, 3], [4, 5, 6]], np.uint8)).tolist()
    [[4, 1], [5, 2], [6, 3]]
    """

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @classmethod
    def of_matrix(cls, a: float, b: float, c: float, d: float) -> Turn:
        """Of a display matrix that takes (x, y) to (a x + c y, b x + d y), ISO/IEC 14496-12.

        One that is not made of quarter turns and mirrors is taken for the nearest such.
        """
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, a < 0, d < 0)
        return cls(True, c < 0, b < 0)

    def upright(self, plane: Plane) -> Plane:
        """A view of `plane`, (H, W) or (H, W, 3), as it is to be seen."""
        if self.transpose:
            plane = plane.swapaxes(0, 1)
        return plane[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]


def turn_of(frame: Any) -> Turn:
    """What the container or the stream says of how a decoded picture is to be turned."""
    from av.sidedata.sidedata import Type

    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return Turn()
    a, b, _, c, d = struct.unpack("5i", bytes(matrix)[:20])
    return Turn.of_matrix(a, b, c, d)


def looks_of(path: str) -> tuple[Turn, float]:
    """How the first picture of a video file is turned, and the width of a pixel by its height.

    Of a file that can't be read: as if it said nothing.
    """
    import av

    try:
        with av.open(f"file:{path}") as container:
            stream = film_of(container)
            for frame in container.decode(stream) if stream else ():
                aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
                return turn_of(frame), width_of(frame, aspect) / frame.width
    except (av.FFmpegError, OSError, ValueError, IndexError):
        pass  # the reader that asks will say it better
    return Turn(), 1.0


def width_of(frame: Any, pixel_aspect: Any) -> int:
    """Of a decoded picture made of square pixels, before it is turned.

    pixel_aspect: width of a pixel by its height, a rational number; None or 0: not said.
    """
    aspect = float(pixel_aspect) if pixel_aspect else 1.0
    believed = aspect if 1 / MAX_ASPECT <= aspect <= MAX_ASPECT else 1.0
    return round(int(frame.width) * believed)


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
