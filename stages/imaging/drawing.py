"""Boxes, labels and a status line on a picture of any size."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.detections import Detections
from pipeline.messages import Image

Color = tuple[int, int, int]  # B, G, R
Rect = tuple[int, int, int, int]  # x1, y1, x2, y2 in px

FONT = cv2.FONT_HERSHEY_SIMPLEX
# Twelve hues that stay apart beside each other and on dark and bright ground, as B, G, R.
PALETTE: tuple[Color, ...] = (
    (75, 200, 255), (255, 170, 60), (90, 220, 110), (90, 90, 255), (230, 120, 230), (220, 220, 60),
    (60, 140, 255), (200, 255, 170), (180, 105, 255), (255, 200, 180), (60, 230, 210), (235, 110, 130),
)  # fmt: skip


def draw(
    image_bgr: Image,
    detections: Detections | None,
    class_names: Sequence[str],
    *,
    title: str = "",
    clock: str = "",
    fps: float | None = None,
) -> Image:
    """Draw what was found, and a status line on top, into the picture itself.

    Args:
        image_bgr: uint8 (H, W, 3) BGR, writable; any size: lines and letters grow with its shorter side.
        detections: in pixels of this picture; what lies outside is left out. None: nothing is known.
            Where objects are followed, boxes of none are left out, too.
        class_names: name of each label; a label beyond them is shown as its number.
        title, clock: top left and top right; fps: beside the clock. Empty or None: left out. In a narrow
            picture the clock gives way to the rest.

    Returns `image_bgr`. Colours belong to the track id where there is one, else to the class.
    """
    height, width = image_bgr.shape[:2]
    text_px = _text_px(image_bgr)
    line = 2 * max(1, round(min(height, width) / 500))
    taken: list[Rect] = []
    if title or clock or fps is not None:
        taken.append(_status(image_bgr, text_px, title, clock, fps))
    if detections is not None:
        low, high = detections.xyxy[:, :2], detections.xyxy[:, 2:]
        seen = np.all((high > 0) & (low < (width, height)), axis=1)  # (N,)
        if detections.track_ids is not None:
            seen &= detections.track_ids >= 0
        _objects(image_bgr, detections[np.flatnonzero(seen)], class_names, line, text_px, taken)
    return image_bgr


def _objects(
    image: Image,
    found: Detections,
    class_names: Sequence[str],
    line: int,
    text_px: int,
    taken: list[Rect],
) -> None:
    """All boxes, and over them all labels, each where little is `taken` yet."""
    height, width = image.shape[:2]
    corners = np.clip(np.rint(found.xyxy), 0, [width - 1, height - 1] * 2).astype(int)  # (N, 4)
    tracks = found.track_ids
    keys = found.labels if tracks is None else tracks
    order = np.argsort(found.scores, kind="stable")  # the surest on top
    for i in order:
        _box(image, corners[i].tolist(), color_of(int(keys[i])), line)
    for i in order[::-1]:
        label = int(found.labels[i])
        name = class_names[label] if 0 <= label < len(class_names) else str(label)
        track = "" if tracks is None else f"#{int(tracks[i])} "
        text = f"{name} {track}{found.scores[i]:.2f}"
        taken.append(
            _label(image, text, corners[i].tolist(), color_of(int(keys[i])), text_px, taken)
        )


def color_of(key: int) -> Color:
    """The colour of a class or a track: the same one every time; B, G, R."""
    return PALETTE[key % len(PALETTE)]


def _text_px(image: Image) -> int:
    """Height of a capital letter: 1/40 of the shorter side, and never too small to read."""
    return int(max(8, round(min(image.shape[:2]) / 40)))


def _measure(text: str, text_px: int) -> tuple[float, int, int]:
    """(font scale, width, thickness) of a text whose capitals are `text_px` high."""
    scale = text_px / 21.5  # capitals of this font are about 21.5 px high at scale 1
    thickness = max(1, round(text_px / 11))
    return scale, int(cv2.getTextSize(text, FONT, scale, thickness)[0][0]), thickness


def _write(image: Image, text: str, rect: Rect, text_px: int, color: Color) -> None:
    """Text in the middle of the height of a rectangle, from its left side on."""
    scale, _, thickness = _measure(text, text_px)
    baseline = (rect[1] + rect[3] + text_px) // 2
    at = (rect[0] + text_px // 2, baseline)
    cv2.putText(image, text, at, FONT, scale, color, thickness, cv2.LINE_AA)


def _status(image: Image, text_px: int, title: str, clock: str, fps: float | None) -> Rect:
    """A dark strip with the title to the left, frames per second and clock to the right."""
    width = image.shape[1]
    strip: Rect = (0, 0, width, min(image.shape[0], 2 * text_px))
    view = image[: strip[3]]
    cv2.convertScaleAbs(view, dst=view, alpha=0.35)
    rate = "" if fps is None else f"{fps:.1f} fps"
    room = width - _measure(title, text_px)[1] - 2 * text_px
    right = next(
        (
            text
            for text in ("   ".join(filter(None, (rate, clock))), rate)
            if _measure(text, text_px)[1] + text_px <= room
        ),
        "",
    )
    _write(image, title, strip, text_px, (255, 255, 255))
    x = width - _measure(right, text_px)[1] - text_px
    _write(image, right, (x, 0, width, strip[3]), text_px, (220, 255, 220))
    return strip


def _box(image: Image, box: list[int], color: Color, line: int) -> None:
    """The sides of a box, `line` px (even) thick, with a thin black rim.

    Each side begins at an even pixel: in a video four pixels share one colour (4:2:0), and a side that
    shares it with what is beside it would lose its own.
    """
    x1, y1, x2, y2 = ((edge - line // 2 + 1) & ~1 for edge in box)  # where each side begins
    right, bottom = x2 + line - 1, y2 + line - 1  # the last pixels
    cv2.rectangle(image, (x1 - 1, y1 - 1), (right + 1, bottom + 1), (0, 0, 0), 1)
    cv2.rectangle(image, (x1, y1), (x1 + line - 1, bottom), color, cv2.FILLED)
    cv2.rectangle(image, (x2, y1), (right, bottom), color, cv2.FILLED)
    cv2.rectangle(image, (x1, y1), (right, y1 + line - 1), color, cv2.FILLED)
    cv2.rectangle(image, (x1, y2), (right, bottom), color, cv2.FILLED)


def _label(
    image: Image, text: str, box: list[int], color: Color, text_px: int, taken: list[Rect]
) -> Rect:
    """A label at its box (xyxy), inside the picture, where it covers least of other labels."""
    height, width = image.shape[:2]
    w, h = _measure(text, text_px)[1] + text_px, round(1.7 * text_px)
    x1, y1, x2, y2 = box
    tries: list[Rect] = []
    for left, top in ((x, y) for x in (x1, x2 - w) for y in (y1 - h, y1, y2, y2 - h)):
        x, y = max(0, min(left, width - w)), max(0, min(top, height - h))
        tries.append((x, y, x + w, y + h))
    rect = min(tries, key=lambda rect: _covered(rect, taken))  # of several the first
    x, y = rect[:2]
    cv2.rectangle(image, (x, y), (x + w - 1, y + h - 1), color, cv2.FILLED)
    bright = 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2] > 110
    _write(image, text, rect, text_px, (0, 0, 0) if bright else (255, 255, 255))
    return rect


def _covered(rect: Rect, others: Sequence[Rect]) -> int:
    """Pixels of others that a rectangle covers."""
    return sum(
        max(0, min(rect[2], o[2]) - max(rect[0], o[0]))
        * max(0, min(rect[3], o[3]) - max(rect[1], o[1]))
        for o in others
    )
