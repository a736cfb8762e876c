"""Which detections are right: greedy matching with a known truth, class by class, best score first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.detections import Detections, iou_matrix


def match(found: Detections, truth: Detections, iou_threshold: float) -> list[tuple[int, int]]:
    """Pairs (index in found, index in truth) of one class with IoU >= iou_threshold.

    The best score chooses first, and takes the free box that it overlaps most; each box counts once.
    """
    iou: npt.NDArray[np.float32] = iou_matrix(found.xyxy, truth.xyxy)  # (N, M)
    iou[found.labels[:, None] != truth.labels[None]] = -1
    pairs = []
    for i in np.argsort(-found.scores, kind="stable"):
        if len(truth) and iou[i].max() >= max(iou_threshold, 1e-9):
            j = int(iou[i].argmax())
            iou[:, j] = -1
            pairs.append((int(i), j))
    return pairs
