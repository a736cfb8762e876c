"""Training on tiles: each picture, and the parts of it that the model will be shown, as pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stages.imaging.tiles import Box, parts_of
from stages.training.datasets import DataSet, Sample
from stages.training.transforms import SHOWN


def tiled(dataset: DataSet, tiles: tuple[int, int], *, whole: bool = True) -> DataSet:
    """The same pictures in so many columns and rows of parts; nothing is decoded.

    whole: the pictures themselves are among them, as the model sees them, too. Parts without a box are at
    most as many as those with one, evenly chosen: of a large picture most show nothing.
    """
    if tiles == (1, 1):
        return dataset
    parts = [
        _part(sample, part)
        for sample in dataset.samples
        for part in parts_of((sample.width, sample.height), tiles)
    ]
    empty = [part for part in parts if not len(part.labels)]
    step = max(1, -(-len(empty) // max(1, len(parts) - len(empty))))
    left_out = {id(part) for i, part in enumerate(empty) if i % step}
    kept = [part for part in parts if id(part) not in left_out]
    samples = (*(dataset.samples if whole else ()), *kept)
    numbered = tuple(replace(sample, image_id=i) for i, sample in enumerate(samples, 1))
    return replace(dataset, samples=numbered)


def _part(sample: Sample, part: Box) -> Sample:
    x1, y1, x2, y2 = part
    low, high = np.array([[x1, y1, x1, y1], [x2, y2, x2, y2]], np.float32)
    clipped = np.clip(sample.xyxy, low, high)  # (N, 4)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (clipped, sample.xyxy)]
    seen = areas[0] >= SHOWN * areas[1]
    return replace(
        sample,
        width=x2 - x1,
        height=y2 - y1,
        xyxy=(clipped - low)[seen],
        labels=sample.labels[seen],
        crowd=sample.crowd[seen],
        difficult=sample.difficult[seen],
        area=None,
        part=part,
    )
