"""What of a film is the film, and how it is to be seen: the track, upright, with square pixels."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.uint8]

MAX_ASPECT = 8.0  # of a pixel; beyond it, or below its inverse, the header is wrong
ATTACHED, DEFAULT = 0x0400, 0x0001  # AV_DISPOSITION_…: a cover; the one that players begin with


def film_of(container: Any) -> Any:
    """The video stream to read: never a cover; the default one, then the largest; None: no video."""
    films = [stream for stream in container.streams.video if not _says(stream, ATTACHED)]
    return max(films, key=lambda stream: (_says(stream, DEFAULT), _pixels(stream)), default=None)


def _says(stream: Any, disposition: int) -> bool:
    flags = getattr(stream, "disposition", 0)  # PyAV 14 can't tell; up to 17 it is no int
    return bool(int(getattr(flags, "value", flags)) & disposition)


def _pixels(stream: Any) -> int:
    return int(stream.codec_context.width * stream.codec_context.height)


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
    from av.sidedata.sidedata import SideDataContainer, Type

    # frame.side_data keeps its frame, which keeps it: hundreds of pictures until a collection
    beside: Any = SideDataContainer  # its stub says nothing of what it takes
    matrix = beside(frame).get(Type.DISPLAYMATRIX)
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
