"""The places in which the objects of a scene move: sky, houses, ground, trees, light and grain."""

from __future__ import annotations

import math
import random

import cv2
import numpy as np

from pipeline.messages import Image

GRAIN = 8  # grey levels of sensor noise


class Background:
    """One seeded place; drawn once, then lit anew for every moment.

    Trees, posts and bins are no objects: some stand behind everything, some before it and hide things.
    """

    def __init__(self, seed: int, size_wh_px: tuple[int, int]) -> None:
        self.size_wh_px = width, height = size_wh_px
        rng = random.Random(f"background {seed}")
        self.horizon_y_px = height * rng.uniform(0.22, 0.42)
        self._light = [
            (rng.uniform(0.03, 0.12), rng.uniform(3, 25), rng.random()) for _ in range(3)
        ]
        self._level = rng.choice([1.0, 1.0, 0.8, 0.5])  # the last one is dusk
        grain = np.random.default_rng(seed & 0xFFFFFFFF)
        self._picture = self._draw(rng, grain)
        self._posts = [
            (rng.uniform(0.05, 0.95) * width, rng.uniform(0.012, 0.03) * width, _grey(rng, 30, 120))
            for _ in range(rng.choice([0, 0, 1, 2]))
        ]
        shape = (height + 61, width + 61, 3)
        self._grain = grain.integers(0, GRAIN, shape, np.uint8)

    def render(self, t_s: float, out: Image) -> None:
        """Write the place in the light of the moment into `out`, uint8 (H, W, 3)."""
        gain = self._level + sum(
            a * math.sin(2 * math.pi * (t_s / s + p)) for a, s, p in self._light
        )
        cv2.convertScaleAbs(self._picture, dst=out, alpha=max(0.2, gain), beta=0)

    def front(self, out: Image, hiding: Image, scale: float) -> None:
        """Draw what stands nearer than all objects into the picture, and as 0 into the map."""
        height = self.size_wh_px[1]
        for x, width, color in self._posts:
            for image, s, c in ((out, 1.0, color), (hiding, scale, (0, 0, 0))):
                left, right = round((x - width / 2) * s), round((x + width / 2) * s)
                cv2.rectangle(image, (left, 0), (right, round(height * s)), c, cv2.FILLED)

    def grain(self, t_s: float, out: Image) -> None:
        """Add the sensor noise of the moment in place."""
        k = round(t_s * 1000)
        y, x = (k * 37) % 61, (k * 53 + k // 61) % 61
        width, height = self.size_wh_px
        cv2.add(out, self._grain[y : y + height, x : x + width], dst=out)

    def _draw(self, rng: random.Random, grain: np.random.Generator) -> Image:
        width, height = self.size_wh_px
        horizon = round(self.horizon_y_px)
        top, low = _tint(rng, 0.3, (110, 255)), _tint(rng, 0.3, (110, 255))
        far, near = _tint(rng, 0.35, (45, 190)), _tint(rng, 0.35, (45, 190))
        sky, ground = np.linspace(top, low, horizon), np.linspace(far, near, height - horizon)
        rows = np.concatenate([sky, ground])  # (H, 3)
        image = np.repeat(rows[:, None], width, axis=1)
        for cells, depth in ((6, 14), (24, 12), (80, 12)):  # blotches, coarse to fine
            rough = grain.normal(0, 1, (max(2, cells * height // width), cells, 1))
            smooth = cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
            image += depth * rng.random() * smooth[..., None]
        picture: Image = np.clip(image, 0, 255).astype(np.uint8)
        if rng.random() < 0.6:
            self._houses(rng, picture)
        if rng.random() < 0.6:
            self._road(rng, picture)
        for _ in range(rng.randint(0, 6)):
            rng.choice([_tree, _sign, _bin])(rng, picture, horizon)
        return picture

    def _houses(self, rng: random.Random, picture: Image) -> None:
        width = self.size_wh_px[0]
        base, x = self.horizon_y_px * 1.02, -rng.uniform(0, 0.1) * width
        while x < width:
            w, h = rng.uniform(0.1, 0.3) * width, rng.uniform(0.1, 0.95) * self.horizon_y_px
            wall, pane = _tint(rng, 0.3, (60, 210)), _tint(rng, 0.2, (30, 230))
            _fill(picture, x, base - h, x + w, base, wall)
            columns, floors = rng.randint(2, 6), rng.randint(1, 5)
            for i in range(columns):
                for j in range(floors):
                    left, top = x + w * (i + 0.25) / columns, base - h + h * (j + 0.25) / floors
                    _fill(picture, left, top, left + w / columns / 2, top + h / floors / 2, pane)
            x += w * rng.uniform(1.0, 1.3)

    def _road(self, rng: random.Random, picture: Image) -> None:
        width, height = self.size_wh_px
        top = self.horizon_y_px + rng.uniform(0.1, 0.4) * (height - self.horizon_y_px)
        bottom = top + rng.uniform(0.3, 0.6) * (height - self.horizon_y_px)
        asphalt = _grey(rng, 50, 110)
        _fill(picture, 0, top, width, bottom, asphalt)
        mid, thick, dash = (top + bottom) / 2, max(1.0, 0.008 * height), 0.07 * width
        for k in range(math.ceil(width / dash / 2) + 1):
            _fill(picture, 2 * k * dash, mid - thick, (2 * k + 1) * dash, mid, (215, 220, 220))


def _tree(rng: random.Random, picture: Image, horizon: int) -> None:
    height, width = picture.shape[:2]
    x, base = rng.uniform(0, width), rng.uniform(horizon, height * 0.75)
    h = rng.uniform(0.15, 0.5) * height
    _fill(picture, x - h * 0.04, base - h * 0.6, x + h * 0.04, base, (45, 62, 85))
    leaf = (rng.randint(20, 70), rng.randint(70, 150), rng.randint(30, 110))
    for _ in range(5):
        at = (round(x + rng.gauss(0, 0.12) * h), round(base - h * rng.uniform(0.6, 0.95)))
        cv2.circle(picture, at, max(1, round(h * rng.uniform(0.1, 0.2))), leaf, -1, cv2.LINE_AA)


def _sign(rng: random.Random, picture: Image, horizon: int) -> None:
    """A round sign on a post: a wheel that is no bicycle, a head that is no person."""
    height, width = picture.shape[:2]
    x, base = rng.uniform(0, width), rng.uniform(horizon, height * 0.8)
    h = rng.uniform(0.12, 0.35) * height
    _fill(picture, x - h * 0.02, base - h, x + h * 0.02, base, _grey(rng, 80, 190))
    radius = max(1, round(h * rng.uniform(0.08, 0.16)))
    color = _tint(rng, 0.9, (40, 230))
    cv2.circle(picture, (round(x), round(base - h)), radius, color, -1, cv2.LINE_AA)


def _bin(rng: random.Random, picture: Image, horizon: int) -> None:
    height, width = picture.shape[:2]
    x, base = rng.uniform(0, width), rng.uniform(horizon, height * 0.85)
    w, h = rng.uniform(0.03, 0.12) * width, rng.uniform(0.05, 0.16) * height
    _fill(picture, x, base - h, x + w, base, _tint(rng, 0.6, (40, 200)))
    _fill(picture, x, base - h, x + w, base - h * 0.85, _grey(rng, 40, 90))


def _fill(
    image: Image, x1: float, y1: float, x2: float, y2: float, color: tuple[int, int, int]
) -> None:
    corners = (round(x1), round(y1)), (round(x2), round(y2))
    cv2.rectangle(image, *corners, color, cv2.FILLED)


def _tint(rng: random.Random, saturation: float, value: tuple[int, int]) -> tuple[int, int, int]:
    """A colour no more saturated than asked."""
    v = rng.uniform(*value)
    b, g, r = (round(v * (1 - saturation * rng.random())) for _ in range(3))
    return b, g, r


def _grey(rng: random.Random, low: int, high: int) -> tuple[int, int, int]:
    v = rng.randint(low, high)
    return v, v, v
