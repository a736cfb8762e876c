"""People, cars and bicycles as a few strokes each, with exact boxes.

A shape is a list of strokes in a box of height 1 (y down, ground at 1, x from 0 to the aspect). The same
strokes are painted in colour on the picture and in one grey level on the map that measures hiding.
"""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from pipeline.messages import Image

CLASSES = ("person", "car", "bicycle")

Color = tuple[int, int, int]  # B, G, R
Point = tuple[float, float]
Box = tuple[float, float, float, float]  # x1, y1, x2, y2

_SHIFT = 4  # OpenCV's fixed point: 1/16 px
_ONE = 1 << _SHIFT


@dataclass(frozen=True, slots=True)
class Stroke:
    """A dot (one point), a line (two) or a filled polygon (more), in units of the shape's height."""

    points: tuple[Point, ...]
    color: Color
    width: float = 0.0  # of a line; diameter of a dot; ignored for polygons
    ring: float = 0.0  # of a dot: > 0 draws a ring with a line this wide


@dataclass(frozen=True, slots=True)
class Pen:
    """Where a shape is put: its top left corner and height in px, and whether it faces left."""

    x_px: float
    y_px: float
    height_px: float
    aspect: float  # width / height of the shape, for the mirror
    mirror: bool = False

    def scaled(self, scale: float) -> Pen:
        """The same place in a picture of another size."""
        return replace(
            self, x_px=self.x_px * scale, y_px=self.y_px * scale, height_px=self.height_px * scale
        )


@dataclass(frozen=True, slots=True)
class Look:
    """What one object looks like for as long as it is in the scene."""

    name: str
    height_m: float
    aspect: float  # width / height
    colors: tuple[Color, ...]
    form: tuple[float, ...]  # what else differs within a class, 0..1 each
    steps_per_m: float  # radians of gait or wheel per metre

    @classmethod
    def choose(cls, rng: random.Random) -> Look:
        """A class by chance, and one of its many looks."""
        name = rng.choice(CLASSES)
        form = tuple(rng.random() for _ in range(6))
        vary = rng.uniform(0.9, 1.1)
        if name == "person":
            skin = _color(rng, hue=(0.04, 0.09), saturation=(0.25, 0.6), value=(0.35, 0.95))
            hair = _color(rng, hue=(0.03, 0.12), saturation=(0.1, 0.7), value=(0.05, 0.6))
            clothes = _color(rng), _color(rng, value=(0.1, 0.7))
            return cls(name, 1.7 * vary, 0.36 + 0.1 * form[5], (skin, hair, *clothes), form, 4.2)
        if name == "car":
            colors = (
                _color(rng, value=(0.15, 1.0)),
                _color(rng, (0.5, 0.65), (0, 0.3), (0.2, 0.8)),
            )
            return cls(
                name, (1.45 + 0.45 * form[0]) * vary, 2.75 - 0.9 * form[0], colors, form, 3.0
            )
        colors = (_color(rng), _color(rng, value=(0.05, 0.35)))
        return cls(name, 1.1 * vary, 1.55 + 0.2 * form[0], colors, form, 3.0)

    def strokes(self, phase: float) -> list[Stroke]:
        """The shape at a phase of its gait or wheels, in radians; back to front."""
        return _SHAPES[self.name](self, phase)


def paint(image: Image, strokes: Sequence[Stroke], pen: Pen, level: int | None = None) -> None:
    """Draw strokes in place: in their colours, smooth, or (for a map) all in one grey level."""
    h = pen.height_px
    kind = cv2.LINE_8 if level is not None else cv2.LINE_AA
    for stroke in strokes:
        points = _pixels(stroke, pen)
        color = stroke.color if level is None else (level, level, level)
        if len(points) == 1:
            ring = max(1, round(stroke.ring * h)) if stroke.ring else cv2.FILLED
            radius = max(0, round((stroke.width - stroke.ring) * h / 2 * _ONE))
            cv2.circle(image, points[0], radius, color, ring, kind, _SHIFT)
        elif len(points) == 2:
            width = max(1, round(stroke.width * h))
            cv2.line(image, points[0], points[1], color, width, kind, _SHIFT)
        else:
            cv2.fillPoly(image, [np.array(points, np.int32)], color, kind, _SHIFT)


def box_of(strokes: Sequence[Stroke], pen: Pen) -> Box:
    """(x1, y1, x2, y2) in px of all that `paint` touches, to about a pixel; may leave the picture."""
    xs: list[float] = []
    ys: list[float] = []
    for stroke in strokes:
        margin = stroke.width * pen.height_px / 2 if len(stroke.points) < 3 else 0.0
        for x, y in _pixels(stroke, pen):
            xs += [x / _ONE + 0.5 - margin, x / _ONE + 0.5 + margin]
            ys += [y / _ONE + 0.5 - margin, y / _ONE + 0.5 + margin]
    return min(xs), min(ys), max(xs), max(ys)


def _pixels(stroke: Stroke, pen: Pen) -> list[tuple[int, int]]:
    """The points in OpenCV's fixed point, whose integers are the centres of pixels."""
    h, sign = pen.height_px, -1 if pen.mirror else 1
    left = pen.x_px + (pen.aspect * h if pen.mirror else 0)
    return [
        (round((left + sign * x * h - 0.5) * _ONE), round((pen.y_px + y * h - 0.5) * _ONE))
        for x, y in stroke.points
    ]


def _color(
    rng: random.Random,
    hue: tuple[float, float] = (0, 1),
    saturation: tuple[float, float] = (0.1, 0.95),
    value: tuple[float, float] = (0.2, 1.0),
) -> Color:
    r, g, b = colorsys.hsv_to_rgb(rng.uniform(*hue), rng.uniform(*saturation), rng.uniform(*value))
    return round(b * 255), round(g * 255), round(r * 255)


def _darker(color: Color, share: float) -> Color:
    return round(color[0] * share), round(color[1] * share), round(color[2] * share)


def _person(look: Look, phase: float) -> list[Stroke]:
    """Head, hair, torso, two legs and two arms that swing."""
    skin, hair, shirt, trousers = look.colors
    mid, swing = look.aspect / 2, math.sin(phase)
    stout = 0.05 * look.form[0]
    stride, reach = (0.10 + 0.05 * look.form[1]) * swing, 0.09 * swing
    leg, arm = 0.075 + stout / 2, 0.05 + stout / 3
    hip, shoulder = 0.52, 0.2
    half = 0.085 + stout
    shoe = _darker(trousers, 0.4)
    parts = [
        Stroke(((mid, shoulder + 0.04), (mid + reach * 1.1, hip + 0.02)), _darker(shirt, 0.65), arm),
        Stroke(((mid, hip), (mid + stride, 0.95)), _darker(trousers, 0.75), leg),
        Stroke(((mid + stride, 0.965), (mid + stride + 0.05, 0.97)), shoe, 0.05),
        Stroke(((mid, hip), (mid - stride, 0.95)), trousers, leg),
        Stroke(((mid - stride, 0.965), (mid - stride + 0.05, 0.97)), shoe, 0.05),
        Stroke(
            ((mid - half, shoulder - 0.02), (mid - half * 0.6, 0.16), (mid + half * 0.6, 0.16),
             (mid + half, shoulder - 0.02), (mid + half * 0.85, hip + 0.05),
             (mid - half * 0.85, hip + 0.05)),
            shirt,
        ),
        Stroke(((mid, shoulder + 0.04), (mid - reach, hip)), _darker(shirt, 0.8), arm),
        Stroke(((mid - reach, hip + 0.02),), skin, arm),
        Stroke(((mid, 0.13), (mid, 0.17)), skin, 0.06),
        Stroke(((mid, 0.07),), hair, 0.14),
        Stroke(((mid + 0.018, 0.082),), skin, 0.105),
    ]  # fmt: skip
    if look.form[2] < 0.3:  # a skirt or coat
        coat = ((mid - half * 0.8, hip - 0.1), (mid + half * 0.8, hip - 0.1),
                (mid + half * 1.2, hip + 0.22), (mid - half * 1.2, hip + 0.22))  # fmt: skip
        parts.insert(5, Stroke(coat, _darker(shirt, 0.9)))
    if look.form[3] < 0.3:  # a bag on the back
        bag = ((mid - half - 0.06, 0.22), (mid - half + 0.03, 0.2),
               (mid - half + 0.03, 0.42), (mid - half - 0.05, 0.42))  # fmt: skip
        parts.insert(5, Stroke(bag, hair))
    return parts


def _car(look: Look, phase: float) -> list[Stroke]:
    """Body, cabin with windows, two wheels, lamps; from saloon to van by form[0]."""
    paint_color, glass = look.colors
    a, van = look.aspect, look.form[0]
    belt, roof_front, roof_back = 0.44 - 0.1 * van, 0.62 - 0.02 * van, 0.24 - 0.2 * van
    front, back = roof_front + 0.17, max(0.04, roof_back - 0.14 * (1 - van))
    wheel = 0.34 - 0.04 * van
    axle_y, x1, x2 = 1 - wheel / 2, a * 0.2, a * 0.79
    dark, rim = (28, 26, 25), (150, 150, 150)
    body = ((0.0, belt + 0.06), (a * back, belt), (a * front, belt), (a * 0.97, belt + 0.12),
            (a, belt + 0.2), (a, 0.82), (a * 0.98, 0.87), (a * 0.02, 0.87), (0.0, 0.82))  # fmt: skip
    cabin = ((a * back, belt + 0.01), (a * roof_back, 0.0), (a * roof_front, 0.0),
             (a * front, belt + 0.01))  # fmt: skip
    pillar = a * (roof_back + (roof_front - roof_back) * (0.35 + 0.3 * look.form[1]))
    window = 0.07
    rear = ((a * (back + 0.035), belt - 0.02), (a * (roof_back + 0.02), window),
            (pillar - 0.03, window), (pillar - 0.03, belt - 0.02))  # fmt: skip
    fore = ((pillar + 0.03, belt - 0.02), (pillar + 0.03, window),
            (a * (roof_front - 0.01), window), (a * (front - 0.035), belt - 0.02))  # fmt: skip
    parts = [
        Stroke(cabin, _darker(paint_color, 0.9)),
        Stroke(rear, glass),
        Stroke(fore, glass),
        Stroke(body, paint_color),
        Stroke(((0.02, 0.8), (a - 0.02, 0.8)), _darker(paint_color, 0.6), 0.03),
        Stroke(((pillar, belt + 0.02), (pillar, 0.78)), _darker(paint_color, 0.65), 0.015),
        Stroke(((a - 0.05, belt + 0.2),), (190, 240, 250), 0.09),
        Stroke(((0.04, belt + 0.17),), (40, 40, 200), 0.07),
    ]
    for x in (x1, x2):
        parts.append(Stroke(((x, axle_y),), dark, wheel))
        parts.append(Stroke(((x, axle_y),), rim, wheel * 0.55))
        dx, dy = math.cos(phase) * wheel * 0.2, math.sin(phase) * wheel * 0.2
        parts.append(Stroke(((x - dx, axle_y - dy), (x + dx, axle_y + dy)), dark, 0.03))
    return parts


def _bicycle(look: Look, phase: float) -> list[Stroke]:
    """Two wheels with spokes, a diamond frame, saddle and handlebar; nobody rides it."""
    frame, tyre = look.colors
    a, wheel = look.aspect, 0.62 + 0.06 * look.form[1]
    r = wheel / 2
    axle_y, x1, x2 = 1 - r, r, a - r
    crank, seat = (a * 0.43, axle_y + 0.03), (a * 0.34, 0.2)
    head, grip = (a - r - 0.14, 0.16), (a - r - 0.09, 0.03)
    bar = 0.055
    spoke = (170, 170, 165)
    parts = []
    for x in (x1, x2):
        for k in range(2):
            dx = math.cos(phase + k * math.pi / 2) * r * 0.9
            dy = math.sin(phase + k * math.pi / 2) * r * 0.9
            parts.append(Stroke(((x - dx, axle_y - dy), (x + dx, axle_y + dy)), spoke, 0.012))
        parts.append(Stroke(((x, axle_y),), tyre, wheel, ring=0.065))
    lines = [((x1, axle_y), crank), ((x1, axle_y), seat), (crank, seat), (crank, head),
             ((seat[0] + 0.01, seat[1] + 0.1), head), (head, (x2, axle_y)), (head, grip)]  # fmt: skip
    parts += [Stroke(line, frame, bar) for line in lines]
    dark = (30, 28, 28)
    dx, dy = math.cos(phase) * 0.1, math.sin(phase) * 0.1
    parts += [
        Stroke(((crank[0] - dx, crank[1] - dy), (crank[0] + dx, crank[1] + dy)), dark, 0.03),
        Stroke(((seat[0] - 0.11, 0.17), (seat[0] + 0.1, 0.17)), dark, 0.07),
        Stroke(((grip[0] - 0.07, 0.035), (grip[0] + 0.08, 0.05)), dark, 0.06),
        Stroke((crank,), dark, 0.1),
    ]
    if look.form[2] < 0.35:  # a basket
        basket = ((head[0] + 0.05, 0.12), (head[0] + 0.33, 0.12), (head[0] + 0.29, 0.32),
                  (head[0] + 0.09, 0.32))  # fmt: skip
        parts.append(Stroke(basket, (70, 120, 160)))
    return parts


_SHAPES: dict[str, Callable[[Look, float], list[Stroke]]] = {
    "person": _person,
    "car": _car,
    "bicycle": _bicycle,
}
