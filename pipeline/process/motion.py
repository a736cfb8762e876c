"""Where things are between two results: every box goes straight on at its own speed. Pure."""

from __future__ import annotations

import numpy as np

from pipeline.detections import Detections, iou_matrix

_SAME_IOU = 0.1  # boxes of one class in two results are one thing if they overlap by this much


def moved(first: Detections, last: Detections, share: float) -> Detections:
    """The detections of `last` at another time: share 0 is the time of `first`, 1 that of `last`.

    A box keeps its size and takes its speed from its partner in `first`: the same object where objects are
    followed, else of the same class, each the one that the other overlaps most. One without a partner has
    no known speed and is left out: a box that stays behind where its object was is worse than none.
    """
    if not len(first) or not len(last):
        return last[:0]
    iou = iou_matrix(first.xyxy, last.xyxy)  # (N, M)
    iou[first.labels[:, None] != last.labels[None]] = 0
    if first.track_ids is not None and last.track_ids is not None:
        ids, other_ids = first.track_ids[:, None], last.track_ids[None]
        iou[(ids >= 0) | (other_ids >= 0)] = 0
        iou[(ids >= 0) & (ids == other_ids)] = 1
    partner = iou.argmax(axis=0)  # (M,)
    index = np.arange(len(last))
    is_mutual = iou.argmax(axis=1)[partner] == index
    kept = index[is_mutual & (iou[partner, index] >= _SAME_IOU)]
    step = last.xyxy[kept] - first.xyxy[partner[kept]]  # (K, 4)
    middle = (step[:, :2] + step[:, 2:]) / 2
    here = last[kept]
    xyxy = here.xyxy + np.float32(share - 1) * np.hstack((middle, middle))
    return Detections(xyxy.astype(np.float32, copy=False), here.scores, here.labels, here.track_ids)
