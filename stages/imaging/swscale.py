"""Planar YUV to BGR by FFmpeg's swscale: the pixels that `cv2.VideoCapture` gives, to the bit.

Published detectors were evaluated on those pixels, and they lie 1 to 1.5 grey levels below the exact
ones (swscale truncates where the formula rounds): enough to flip a box of low score or at a border.
"""

from __future__ import annotations

from typing import cast

import av
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from pipeline.messages import Frame, Image

_COLORSPACE = {"bt601": Colorspace.ITU601, "bt709": Colorspace.ITU709}


class ToBgr:
    """Converts i420 frames; keeps swscale's tables between frames. For one thread."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Frame) -> Image:
        """The picture of an i420 frame as uint8 (H, W, 3) BGR, new memory."""
        # PyAV takes the planes where they lie if it gets the height right (it has four lines for six of
        # the array's), and swscale reads no further than they go if no block of it is cut
        whole = frame.height % 4 == 0 and frame.width % 16 == 0
        wrap = av.VideoFrame.from_numpy_buffer if whole else av.VideoFrame.from_ndarray
        source = wrap(frame.pixels, format="yuv420p")
        bgr = self._reformatter.reformat(
            source,
            format="bgr24",
            src_colorspace=_COLORSPACE[frame.matrix],
            src_color_range=ColorRange.JPEG if frame.full_range else ColorRange.MPEG,
        ).to_ndarray()
        return cast(Image, bgr)
