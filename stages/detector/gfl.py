"""Boxes as distributions: a centre's four distances to the sides, each a softmax over 0, 1, … strides.

So NanoDet and PicoDet have it, after the paper that calls it Generalized Focal Loss. The classes come as
probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from pipeline.detections import Floats
from stages.detector.bundle import Facts
from stages.detector.engine import Array

STRIDES_PX = ((8, 16, 32, 64), (8, 16, 32), (8, 16, 32, 64, 128))  # the usual one first


class Cells(NamedTuple):
    """All predictions of a picture: parallel arrays."""

    scores: Floats  # (N, C)
    sides: Floats  # (N, 4 * R): left, top, right, bottom, R numbers each


def cells(arrays: Sequence[Array], n_classes: int) -> Cells | None:
    """Of one table (N, C + 4R), or of a table (n, C) and one (n, 4R) for each stride; None: neither."""
    tables = [array for array in arrays if array.ndim == 2]
    if len(tables) != len(arrays) or not arrays:
        return None
    if len(arrays) == 1:
        [table] = tables
        more = table.shape[1] - n_classes
        return (
            Cells(table[:, :n_classes], table[:, n_classes:])
            if more > 4 and more % 4 == 0
            else None
        )
    scores = [table for table in tables if table.shape[1] == n_classes]
    sides = [table for table in tables if table.shape[1] != n_classes]
    lengths = [list(map(len, kind)) for kind in (scores, sides)]
    widths = {table.shape[1] for table in sides}
    if lengths[0] != lengths[1] or len(widths) != 1 or widths.pop() % 4:
        return None
    return Cells(np.concatenate(scores), np.concatenate(sides))


def grid(width_px: int, height_px: int, n: int) -> Floats | None:
    """float32 (n, 3): column, row and stride of each cell; None: no set of strides has n cells."""
    for strides in STRIDES_PX:
        if n == sum(math.ceil(width_px / s) * math.ceil(height_px / s) for s in strides):
            return _grid(width_px, height_px, strides)
    return None


def xyxy(sides: Floats, places: Floats, facts: Facts) -> Floats:
    """Boxes (n, 4) in pixels of the input; sides (n, 4R), places (n, 3) of `grid`."""
    bins = sides.reshape(len(sides), 4, -1).astype(np.float32, copy=False)
    powers = np.exp(bins - bins.max(axis=2, keepdims=True, initial=-np.inf))
    steps = np.arange(bins.shape[2], dtype=np.float32)
    distances = (powers @ steps) / powers.sum(axis=2) * places[:, 2:]  # (n, 4)
    centre = (places[:, :2] + np.float32(facts.output.centre)) * places[:, 2:]
    return np.concatenate((centre - distances[:, :2], centre + distances[:, 2:]), axis=1)


@cache
def _grid(width_px: int, height_px: int, strides: tuple[int, ...]) -> Floats:
    levels = []
    for stride in strides:
        y, x = np.mgrid[: math.ceil(height_px / stride), : math.ceil(width_px / stride)]
        levels.append(np.stack((x, y, np.full_like(x, stride)), axis=-1).reshape(-1, 3))
    return np.concatenate(levels).astype(np.float32)
