"""How alike a predicted and a found box are: by overlap, distance, and class where these tell little."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pipeline.detections import Labels

Array = npt.NDArray[np.float64]

_SURE_IOU = 0.3  # of boxes that are one object, whatever class it was taken for this time
_ALIKE = 1.2  # of who was seen once: at most so many times as high or as low
_NEVER = -9.0  # less than any threshold
# Of who was seen once nobody knows the speed: at a low rate its next box is beside the first one.
_FRESH_DIOU = -0.3
_FRESH_A_SECOND = 2.0
_FRESH_FROM_S = 0.05
_TINY = 1e-7  # px², as in the library


class Likeness:
    """The library's DIoU, with class and time where boxes hardly meet.

    Distance counts, so that small and fast objects whose boxes do not meet any more are still the same
    (Zheng et al.: Distance-IoU Loss, 2020). But then whoever is near to where a hidden object should be
    may be taken for it, and such a one is often of another class.
    """

    def __init__(self) -> None:
        self._next: tuple[Callable[[], Labels], Labels, float] | None = None
        self.least = 0.0  # the tracker's threshold

    def expect(self, of_tracks: Callable[[], Labels], of_boxes: Labels, interval_s: float) -> None:
        """Classes of the next comparison; later ones are of boxes alone. interval_s: since the last one.

        of_tracks: called when it comes, since a tracker forgets who is lost for too long just before; -1:
        seen once, so nothing is known.
        """
        self._next = of_tracks, of_boxes, interval_s

    def compute(self, boxes_1: Array, boxes_2: Array) -> Array:
        """Likeness (N, M) of boxes (N, 4) of tracks and found ones (M, 4), at most 1; below 0: apart."""
        given, self._next = self._next, None
        if not len(boxes_1) or not len(boxes_2):
            return np.zeros((len(boxes_1), len(boxes_2)))
        iou, diou = _iou_and_diou(boxes_1, boxes_2)
        if given is None:
            return diou
        of_tracks, of_boxes, interval_s = given
        widest = max(_FRESH_DIOU, -_FRESH_A_SECOND * max(0.0, interval_s - _FRESH_FROM_S))
        if not ((iou < _SURE_IOU) & (diou >= min(widest, self.least))).any():
            return diou  # as most often: nobody is near to another
        labels = of_tracks()[:, None]
        fresh, other = labels < 0, (labels >= 0) & (labels != of_boxes[None])
        first_px, found_px = (boxes[:, 3] - boxes[:, 1] for boxes in (boxes_1, boxes_2))
        high, low = (pick.outer(first_px, found_px) for pick in (np.maximum, np.minimum))
        alike = high <= _ALIKE * low
        beside = fresh & alike & (diou >= widest) & (diou < self.least)
        barely = self.least + 0.01 * (1 + diou)  # so that it takes nobody's box who is known
        return np.where(other & (iou < _SURE_IOU), _NEVER, np.where(beside, barely, diou))


def _iou_and_diou(boxes_1: Array, boxes_2: Array) -> tuple[Array, Array]:
    a, b = boxes_1[:, None], boxes_2[None].astype(np.float64)
    shared = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0)
    around = np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])
    overlap = shared.prod(axis=2)
    areas = (a[..., 2:] - a[..., :2]).prod(axis=2) + (b[..., 2:] - b[..., :2]).prod(axis=2)
    iou = overlap / np.maximum(areas - overlap, _TINY)
    apart = (((a[..., :2] + a[..., 2:]) - (b[..., :2] + b[..., 2:])) ** 2).sum(axis=2) / 4
    return iou, iou - apart / ((around**2).sum(axis=2) + _TINY)
