"""Zones and lines drawn on a picture, so that a person sees whether they lie where they should."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ResourceError
from pipeline.messages import Image
from stages.scene.check import check_line, check_zone
from stages.scene.places import Line, Zone

_COLORS = ((75, 200, 255), (90, 220, 110), (255, 170, 60), (230, 120, 230), (60, 140, 255))


def draw_places(
    image_bgr: Image, zones: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]]
) -> Image:
    """Draws into the picture, uint8 (H, W, 3) BGR, and returns it.

    zones, lines: fields of Zone and Line. An arrow says what a crossing to where it points is called.
    Raises ConfigError for a place that can't be.
    """
    for number, fields in enumerate(zones):
        _zone(image_bgr, Zone(**fields), _COLORS[number % len(_COLORS)])
    for number, fields in enumerate(lines):
        _line(image_bgr, Line(**fields), _COLORS[(len(zones) + number) % len(_COLORS)])
    return image_bgr


def write_places(path: str, *drawing: Any) -> None:
    """`draw_places` into a PNG file. Raises ResourceError if it can't be written."""
    import cv2

    image = draw_places(*drawing)
    try:
        Path(path).write_bytes(cv2.imencode(".png", image)[1].tobytes())
    except OSError as error:
        raise ResourceError(
            f"{path}: can't be written: {error.strerror}; name another file"
        ) from error


def _zone(image: Image, zone: Zone, color: tuple[int, int, int]) -> None:
    import cv2

    check_zone(zone, zone.classes or ())
    corners = np.rint(np.array(zone.polygon) * _size(image)).astype(np.int32)
    tinted = image.copy()
    cv2.fillPoly(tinted, [corners], color)
    cv2.addWeighted(tinted, 0.25, image, 0.75, 0, dst=image)
    cv2.polylines(image, [corners], True, color, _thick(image), cv2.LINE_AA)
    _write(image, zone.name, corners.mean(axis=0), color)


def _line(image: Image, line: Line, color: tuple[int, int, int]) -> None:
    import cv2

    check_line(line, line.classes or ())
    start, end = np.array(line.points) * _size(image)
    thick = _thick(image)
    cv2.line(image, _px(start), _px(end), color, thick, cv2.LINE_AA)
    cv2.circle(image, _px(start), 2 * thick, color, cv2.FILLED, cv2.LINE_AA)  # its first point
    way = (end - start) / np.hypot(*(end - start))
    right = np.array([-way[1], way[0]])
    reach = 0.08 * min(image.shape[:2])
    for sign, share, name in ((1, 0.6, line.to_right), (-1, 0.4, line.to_left)):
        foot = start + share * (end - start)
        tip = foot + sign * reach * right
        cv2.arrowedLine(image, _px(foot), _px(tip), color, thick, cv2.LINE_AA, tipLength=0.3)
        _write(image, name, tip, color)
    _write(image, line.name, start + 0.1 * (end - start), color)


def _write(image: Image, text: str, at: Any, color: tuple[int, int, int]) -> None:
    """Around a place, inside the picture."""
    import cv2

    height, width = image.shape[:2]
    scale, thick = max(0.4, min(height, width) / 800), _thick(image)
    (w, h), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    x = int(np.clip(at[0] - w / 2, 2, max(2, width - w - 2)))
    y = int(np.clip(at[1] + h / 2, h + 2, max(h + 2, height - below - 2)))
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(image, text, (x, y), font, scale, (0, 0, 0), thick + 2, cv2.LINE_AA)
    cv2.putText(image, text, (x, y), font, scale, color, thick, cv2.LINE_AA)


def _size(image: Image) -> Any:
    return np.array([image.shape[1], image.shape[0]], float)


def _px(point: Any) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _thick(image: Image) -> int:
    return int(max(1, round(min(image.shape[:2]) / 360)))
