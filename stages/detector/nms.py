"""Non-maximum suppression within classes, in numpy, equal to torchvision.ops.batched_nms on the CPU."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.detections import Floats

Indices = npt.NDArray[np.intp]
MAX_CANDIDATES = 1000
"""Boxes that enter NMS at most, the best by score: greedy NMS on a prefix sorted by score is a prefix
of greedy NMS on the whole list, so only detections beyond those of the best 1000 candidates are lost.
It is also the number up to which torchvision separates classes by moving them apart, as done here."""


def top_candidates(scores: Floats, k: int = MAX_CANDIDATES) -> Indices:
    """The indices of the best k scores, best first; equal scores in their order of appearance.

    >>> top_candidates(np.float32([0.1, 0.9, 0.9, 0.3]), 3)
    array([1, 2, 3])
    """
    return np.argsort(-scores, kind="stable")[:k]


def batched_nms(
    xyxy: Floats,
    scores: Floats,
    labels: npt.NDArray[np.integer],
    iou_threshold: float,
    limit: int | None = None,
) -> Indices:
    """Greedy NMS: a box goes if a better one of its class overlaps it by IoU > iou_threshold.

    xyxy: float32 (N, 4), finite, x1 <= x2, y1 <= y2, N <= MAX_CANDIDATES for equality with torchvision
    to the last bit; scores: float32 (N,); labels: integers (N,), >= 0. Returns at most `limit` indices
    (all if None), best score first, ties in their order of appearance. Boxes without area keep each
    other: their IoU is 0/0.
    """
    order = top_candidates(scores, len(scores))
    if len(order) == 0:
        return order
    # torchvision's coordinate trick, in the same arithmetic: classes moved so far apart that they
    # cannot meet; rounding at these coordinates is part of being equal
    apart = labels.astype(np.float32) * (xyxy.max() + np.float32(1))
    boxes = (xyxy + apart[:, None])[order]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    with np.errstate(invalid="ignore"):
        while len(order) and (limit is None or len(kept) < limit):
            kept.append(int(order[0]))
            low = np.maximum(boxes[0, :2], boxes[1:, :2])
            high = np.minimum(boxes[0, 2:], boxes[1:, 2:])
            sides = np.maximum(high - low, np.float32(0))
            inter = sides[:, 0] * sides[:, 1]
            iou = inter / (areas[0] + areas[1:] - inter)
            rest = np.flatnonzero(~(iou.astype(np.float64) > iou_threshold)) + 1
            order, boxes, areas = order[rest], boxes[rest], areas[rest]
    return np.array(kept, np.intp)
