"""How large a picture may be in the slot that it is written to."""

from __future__ import annotations

import math

from pipeline.errors import FrameError


def fit_even(width: int, height: int, max_px: int) -> tuple[int, int]:
    """The largest even size of at most `max_px` pixels with the aspect of (width, height).

    A picture that fits keeps its size, less the last column or row where that is odd.

    >>> fit_even(1920, 1080, 1920 * 1080), fit_even(97, 61, 10_000), fit_even(3840, 2160, 1920 * 1080)
    ((1920, 1080), (96, 60), (1920, 1080))
    """
    if width < 2 or height < 2 or max_px < 4:
        raise FrameError(
            f"a picture of {width}×{height} px: wanted at least 2×2 px and room for it"
        )
    scale = min(1.0, math.sqrt(max_px / (width * height)))
    out_w = max(2, math.floor(width * scale + 1e-6) // 2 * 2)
    out_h = max(2, min(math.floor(height * scale + 1e-6), max_px // out_w) // 2 * 2)
    if out_w * out_h > max_px:
        raise FrameError(
            f"a picture of {width}×{height} px does not fit into {max_px} px; raise max_size"
        )
    return out_w, out_h
