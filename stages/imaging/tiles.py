"""Large pictures in parts: where they lie, and one list of what was found in all of them.

A model sees the whole picture, too: what is larger than the overlap of two parts may be whole in none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.detections import Detections, Fit, Floats
from stages.detector.nms import batched_nms

Box = tuple[int, int, int, int]

OVERLAP = 0.2  # of a part's side with its neighbour's: as SAHI has it (Akyon et al. 2022)
EDGE_PX = 2.0  # a box that comes so close to the inner edge of its part is cut off by it
COVERED = 0.5  # of a box that is cut off, by one that is not: it is of the same object


def parts_of(size_wh_px: tuple[int, int], tiles: tuple[int, int]) -> tuple[Box, ...]:
    """x1, y1, x2, y2 of columns x rows overlapping parts of a picture, row by row, in even px.

    They cover it; of a picture too small for them some are equal.

    >>> parts_of((1920, 1080), (2, 1))
    ((0, 0, 1066, 1080), (854, 0, 1920, 1080))
    """
    columns, rows = (_spans(side, n) for side, n in zip(size_wh_px, tiles, strict=True))
    return tuple((x1, y1, x2, y2) for y1, y2 in rows for x1, x2 in columns)


def of_part(fit: Fit, part: Box) -> Fit:
    """How a picture lies in the input that shows a part of it; fit: of the part as its own picture."""
    return Fit(
        scale_x=fit.scale_x,
        scale_y=fit.scale_y,
        offset_x_px=fit.offset_x_px - part[0] * fit.scale_x,
        offset_y_px=fit.offset_y_px - part[1] * fit.scale_y,
    )


def merged(
    found: Sequence[Detections],
    parts: Sequence[Box],
    size_wh_px: tuple[int, int],
    iou_threshold: float,
    limit: int,
) -> Detections:
    """What was found in the whole picture, found[0], and in each part, each object once.

    What fits into the overlap of two parts is whole in one of them, and seen larger there than in the
    whole picture: of that, only what is larger is taken. A box that an inner edge of its part cuts off
    goes if half of it lies in a box of its class that is not cut off; then NMS over all. Pure.

    All boxes are in pixels of the picture, size_wh_px large; the result is sorted by score.
    """
    sides = found[0].xyxy[:, 2:] - found[0].xyxy[:, :2]  # (N, 2)
    large = np.flatnonzero((sides > _overlap(parts, size_wh_px)).any(axis=1))
    whole = found[0][large]
    tiles = [
        _cut_off(one.xyxy, part, size_wh_px) for one, part in zip(found[1:], parts, strict=True)
    ]
    cut = np.concatenate([np.zeros(len(whole), bool), *tiles])
    everything = [whole, *found[1:]]
    xyxy, scores, labels = (
        np.concatenate([getattr(one, name) for one in everything])
        for name in ("xyxy", "scores", "labels")
    )
    kept = ~cut
    kept[cut] = ~_covered(
        (xyxy[cut], scores[cut], labels[cut]), (xyxy[~cut], scores[~cut], labels[~cut])
    )
    xyxy, scores, labels = xyxy[kept], scores[kept], labels[kept]
    best = batched_nms(xyxy, scores, labels, iou_threshold, limit)
    return Detections(xyxy[best], scores[best], labels[best])


def _spans(side: int, count: int) -> list[tuple[int, int]]:
    length = side / (count - (count - 1) * OVERLAP)
    spans = []
    for i in range(count):
        exact = i * length * (1 - OVERLAP)
        start = min(2 * round(exact / 2), max(0, side - 2) // 2 * 2)
        end = side if i == count - 1 else max(start + 2, 2 * round((exact + length) / 2))
        spans.append((start, min(side, end)))
    return spans


def _overlap(parts: Sequence[Box], size_wh_px: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Width and height that two neighbours share; those of the picture where there is one part alone."""
    edges = np.array(parts, np.float64)  # (T, 4)
    sides = (edges[:, 2:] - edges[:, :2]).min(axis=0)
    alone = sides >= size_wh_px
    return np.where(alone, size_wh_px, sides * OVERLAP)


def _cut_off(xyxy: Floats, part: Box, size_wh_px: tuple[int, int]) -> npt.NDArray[np.bool_]:
    inner = np.array([part[0] > 0, part[1] > 0, part[2] < size_wh_px[0], part[3] < size_wh_px[1]])
    near = np.abs(xyxy - np.array(part, np.float32)) <= EDGE_PX  # (N, 4)
    cut: npt.NDArray[np.bool_] = (near & inner).any(axis=1)
    return cut


_Boxes = tuple[Floats, Floats, npt.NDArray[np.integer]]


def _covered(cut: _Boxes, whole: _Boxes) -> npt.NDArray[np.bool_]:
    """Which boxes that are cut off lie in a whole one that is not much less sure."""
    (a, a_scores, a_labels), (b, b_scores, b_labels) = cut, whole
    low = np.maximum(a[:, None, :2], b[None, :, :2])  # (N, M, 2)
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.prod(np.maximum(high - low, 0), axis=2)
    area = np.prod(a[:, 2:] - a[:, :2], axis=1)
    over = inter >= COVERED * area[:, None]
    over &= a_labels[:, None] == b_labels[None]
    over &= b_scores[None] >= 0.5 * a_scores[:, None]
    covered: npt.NDArray[np.bool_] = over.any(axis=1)
    return covered
