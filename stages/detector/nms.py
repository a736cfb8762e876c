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

BLOCK = 64  # boxes that are compared with each other at once; the next block meets only survivors


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
    kept: list[Indices] = []
    rest = np.arange(len(order))
    while len(rest) and (limit is None or sum(map(len, kept)) < limit):
        block, rest = rest[:BLOCK], rest[BLOCK:]
        over = _iou(boxes[block], boxes[block]) > iou_threshold  # (b, b)
        alive = np.ones(len(block), np.bool_)
        for i in range(len(block)):
            if alive[i]:
                alive[i + 1 :] &= ~over[i, i + 1 :]
        kept.append(block[alive])
        rest = rest[~(_iou(boxes[kept[-1]], boxes[rest]) > iou_threshold).any(axis=0)]
    return order[np.concatenate(kept)[:limit]] if kept else order[:0]


def _iou(a: Floats, b: Floats) -> npt.NDArray[np.float64]:
    """(N, M) of boxes (N, 4) and (M, 4), computed in float32 as torchvision does; 0/0 is nan."""
    ax1, ay1, ax2, ay2 = a.T[:, :, None]
    bx1, by1, bx2, by2 = b.T[:, None]
    width = np.minimum(ax2, bx2) - np.maximum(ax1, bx1)
    height = np.minimum(ay2, by2) - np.maximum(ay1, by1)
    inter: Floats = np.maximum(width, 0) * np.maximum(height, 0)
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - inter
    with np.errstate(invalid="ignore"):
        iou: Floats = inter / union
    return iou.astype(np.float64)  # compared with the threshold as a double
