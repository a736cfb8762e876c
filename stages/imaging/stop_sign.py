"""A road sign of which everybody knows the colour: drawn, for a model that knows it."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.messages import Image

RED_BGR, WHITE_BGR = (40, 40, 190), (235, 235, 235)
_RADII_PX = (10, 14, 19, 26)  # small: a large one is read, and then its colour counts for little
_SIZE_WH_PX = (320, 180)


def stop_signs() -> list[Image]:
    """Red ones of several sizes, on a post before grey: uint8 (180, 320, 3) BGR, the same each time."""
    return [_sign(radius_px) for radius_px in _RADII_PX]


def _sign(radius_px: int) -> Image:
    width, height = _SIZE_WH_PX
    image = np.full((height, width, 3), 140, np.uint8)
    image[: height // 2] = 190
    x, y = width // 2, height // 2
    cv2.rectangle(image, (x - radius_px // 12, y), (x + radius_px // 12, height), (120,) * 3, -1)
    turns = np.pi / 8 + np.arange(8) * np.pi / 4
    corners = np.stack([np.cos(turns), np.sin(turns)], axis=1)  # (8, 2)
    for share, colour in ((1.0, WHITE_BGR), (0.93, RED_BGR)):
        octagon = ((x, y) + share * radius_px * corners).round().astype(np.int32)
        cv2.fillPoly(image, [octagon], colour, lineType=cv2.LINE_AA)
    scale, thickness = radius_px / 48, max(1, round(radius_px / 20))
    (wide, high), _ = cv2.getTextSize("STOP", cv2.FONT_HERSHEY_DUPLEX, scale, thickness)
    place = (x - wide // 2, y + high // 2)
    cv2.putText(
        image, "STOP", place, cv2.FONT_HERSHEY_DUPLEX, scale, WHITE_BGR, thickness, cv2.LINE_AA
    )
    return image
