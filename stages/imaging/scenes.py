"""Moving scenes with exactly known boxes: people, cars and bicycles before changing backgrounds.

A scene is a function of (seed, size, objects, time) and of nothing else: any moment can be rendered, in
any order, on any machine, and gives the same picture. The demo and the tests measure how right a
pipeline is by it, and the carried detector is trained on it.

What the truth contains: the whole object's box, clipped to the frame, if at least 40 % of the box lies
inside the frame, at least 40 % of the silhouette inside the frame is not hidden by nearer things, and
what is left of the box is at least 6 px high and 4 px wide. Objects that miss one of these are drawn,
but have no box.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np

from pipeline.detections import Detections
from pipeline.messages import Image
from stages.imaging.backgrounds import Background
from stages.imaging.shapes import CLASSES, Box, Look, Pen, box_of, paint

MIN_INSIDE = 0.4  # share of the box that lies in the frame
MIN_VISIBLE = 0.4  # share of the silhouette in the frame that nothing nearer hides
MIN_SIDES_PX = (4, 6)  # width, height of a truth box
_MAP_SIDE_PX = 320  # longer side of the small map on which hiding is measured
_SPEED_S = (6.0, 13.0)  # how long one object takes from side to side


@dataclass(frozen=True, slots=True)
class _Walk:
    """One passage of one object through the picture."""

    look: Look
    track_id: int
    height_px: float
    ground_y_px: float
    drift_px: float  # how much nearer it comes on the way
    halt: float  # 0..1: how much it slows down halfway
    leftward: bool

    def at(self, progress: float, width_px: int) -> _Thing:
        """Where it is, progress 0..1 from before one side of the picture to past the other."""
        p = progress + self.halt * math.sin(2 * math.pi * progress) / (2 * math.pi)
        half = self.height_px * self.look.aspect * 0.6
        way_px = p * (width_px + 2 * half)
        x = width_px + half - way_px if self.leftward else way_px - half
        phase = way_px / self.height_px * self.look.height_m * self.look.steps_per_m
        return _Thing(self, x, self.ground_y_px + self.drift_px * (p - 0.5), phase)


@dataclass(frozen=True, slots=True)
class _Thing:
    """An object at one moment."""

    walk: _Walk
    x_px: float  # of its middle
    ground_y_px: float
    phase: float  # of gait or wheels, radians


class Scene:
    """One seeded scene.

    seed: any integer; size_wh_px: (width, height), each >= 16; objects: how many pass at a time, >= 0
    (about five in six of them are in the picture at any moment).

    >>> image, truth = Scene(1, (320, 180), objects=4).render(2.5)
    >>> image.shape, truth.xyxy.shape[1]
    ((180, 320, 3), 4)
    """

    def __init__(self, seed: int, size_wh_px: tuple[int, int], objects: int = 6) -> None:
        self.seed = seed
        self.size_wh_px = size_wh_px
        self.objects = objects
        self._background = Background(seed, size_wh_px)
        self._walks: dict[tuple[int, int], _Walk] = {}
        rng = random.Random(f"lanes {seed}")
        self._lanes = [(rng.uniform(*_SPEED_S), rng.random()) for _ in range(objects)]
        self._map_scale = min(1.0, _MAP_SIDE_PX / max(size_wh_px))
        width, height = size_wh_px
        shape = (math.ceil(height * self._map_scale), math.ceil(width * self._map_scale))
        self._map: Image = np.empty(shape, np.uint8)

    def render(self, t_s: float, out: Image | None = None) -> tuple[Image, Detections]:
        """The scene at a time, in seconds >= 0.

        Returns uint8 (height, width, 3) BGR, which is `out` if that is given (same shape, C-contiguous),
        and the truth: scores 1, labels into `CLASSES`, track ids that stay with an object and are not
        used again. Not for several threads at once.
        """
        width, height = self.size_wh_px
        if out is None:
            out = np.empty((height, width, 3), np.uint8)
        self._background.render(t_s, out)
        self._map.fill(0)
        things = sorted(self._things(t_s), key=lambda thing: thing.ground_y_px)  # far ones first
        boxes, own_px = [], []
        for level, thing in enumerate(things, start=1):
            look, h = thing.walk.look, thing.walk.height_px
            strokes = look.strokes(thing.phase)
            left_px, top_px = thing.x_px - h * look.aspect / 2, thing.ground_y_px - h
            pen = Pen(left_px, top_px, h, look.aspect, thing.walk.leftward)
            paint(out, strokes, pen)
            paint(self._map, strokes, pen.scaled(self._map_scale), level=level)
            own_px.append(int(np.count_nonzero(self._map == level)))
            boxes.append(box_of(strokes, pen))
        self._background.front(out, self._map, self._map_scale)
        visible_px = np.bincount(self._map.ravel(), minlength=len(things) + 1)[1:]
        truth = self._truth(things, boxes, own_px, visible_px.tolist())
        self._background.grain(t_s, out)
        return out, truth

    def _things(self, t_s: float) -> list[_Thing]:
        """Who is where."""
        things = []
        for lane, (period_s, offset) in enumerate(self._lanes):
            cycle, progress = divmod(t_s / period_s + offset, 1.0)
            things.append(self._walk(lane, int(cycle)).at(progress, self.size_wh_px[0]))
        return things

    def _walk(self, lane: int, cycle: int) -> _Walk:
        if (lane, cycle) not in self._walks:
            if len(self._walks) > 8 * self.objects:
                self._walks.clear()
            rng = random.Random(f"walk {self.seed} {lane} {cycle}")
            width, height = self.size_wh_px
            look = Look.choose(rng)
            unit = min(height, width * 0.7)
            depth = rng.random() ** 1.3  # 0 far .. 1 near; the far are many
            horizon = self._background.horizon_y_px
            self._walks[lane, cycle] = _Walk(
                look=look,
                track_id=cycle * self.objects + lane,
                height_px=unit * look.height_m * (0.075 + 0.16 * depth),
                ground_y_px=horizon + (0.12 + 0.86 * depth) * (height - horizon),
                drift_px=rng.uniform(-0.06, 0.06) * height,
                halt=rng.choice([0, 0, 0.5, 0.95]),
                leftward=rng.random() < 0.5,
            )
        return self._walks[lane, cycle]

    def _truth(
        self, things: list[_Thing], boxes: list[Box], own_px: list[int], visible_px: list[int]
    ) -> Detections:
        """The boxes of those that a fair judge would expect to be found."""
        width, height = self.size_wh_px
        kept = []
        for i, (x1, y1, x2, y2) in enumerate(boxes):
            clipped = max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)
            w, h = clipped[2] - clipped[0], clipped[3] - clipped[1]
            inside = w * h >= MIN_INSIDE * (x2 - x1) * (y2 - y1)
            seen = visible_px[i] >= max(1, MIN_VISIBLE * own_px[i])
            if inside and seen and w >= MIN_SIDES_PX[0] and h >= MIN_SIDES_PX[1]:
                kept.append((clipped, things[i].walk))
        return Detections(
            np.array([box for box, _ in kept], np.float32).reshape(-1, 4),
            np.ones(len(kept), np.float32),
            np.array([CLASSES.index(walk.look.name) for _, walk in kept], np.int32),
            np.array([walk.track_id for _, walk in kept], np.int64),
        )


def still(
    seed: int, index: int, size_wh_px: tuple[int, int], objects: int | None = None
) -> tuple[Image, Detections]:
    """Picture `index` of a training set of different scenes: another place, moment and cast each.

    objects: how many; None: 0 to 10, by chance. Returns as `Scene.render`.
    """
    rng = random.Random(f"still {seed} {index}")
    scene_seed, t_s, n = rng.getrandbits(48), rng.uniform(0, 60), rng.randint(0, 10)
    return Scene(scene_seed, size_wh_px, n if objects is None else objects).render(t_s)
