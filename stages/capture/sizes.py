"""How large a picture may be in the slot that it is written to, and how it comes there."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError, FrameError


def fit_size(width: int, height: int, max_px: int, *, even: bool = False) -> tuple[int, int]:
    """The largest size of at most `max_px` pixels with the aspect of (width, height), in px.

    A picture that fits keeps its size; with `even`, less the last column or row of an odd size.

    >>> fit_size(97, 61, 10_000), fit_size(97, 61, 10_000, even=True)
    ((97, 61), (96, 60))
    >>> fit_size(3840, 2160, 1920 * 1080)
    (1920, 1080)
    """
    step = 2 if even else 1
    if width < step or height < step or max_px < step * step:
        raise FrameError(
            f"a picture of {width}×{height} px for {max_px} px of memory: "
            f"wanted at least {step}×{step} px of both"
        )
    scale = min(1.0, math.sqrt(max_px / (width * height)))
    # 1e-6: sqrt may come out a hair below the exact ratio, and 1919.999 means 1920.
    out_w = max(step, math.floor(width * scale + 1e-6) // step * step)
    out_h = max(step, math.floor(height * scale + 1e-6) // step * step)
    # Where one side can't get any smaller, the other gives way, and the aspect with it.
    out_h = min(out_h, max(step, max_px // out_w // step * step))
    out_w = min(out_w, max_px // out_h // step * step)
    return out_w, out_h


def write_bgr(image: npt.NDArray[np.uint8], buffer: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Write a picture, uint8 (H, W, 3), to the start of `buffer`; returns (width, height) there."""
    import cv2

    height, width = image.shape[:2]
    out_w, out_h = fit_size(width, height, buffer.size // 3)
    target = buffer[: out_w * out_h * 3].reshape(out_h, out_w, 3)
    if (out_w, out_h) == (width, height):
        np.copyto(target, image)
    else:
        image = np.ascontiguousarray(image)
        cv2.resize(image, (out_w, out_h), dst=target, interpolation=cv2.INTER_AREA)
    return out_w, out_h


def check_max_size(max_size: tuple[int, int], name: str = "max_size") -> None:
    """Raise ConfigError unless a picture of this size can exist."""
    width, height = max_size
    if not (2 <= width <= 1 << 15 and 2 <= height <= 1 << 15):
        raise ConfigError(
            f"{name} must be [width, height] in px, each 2..32768, got {width}×{height}"
        )
