"""Detections of one class in order of score: what is right and wrong above each threshold."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Right and wrong above one score threshold. Ratios are nan where they would be 0/0."""

    threshold: float
    tp: int
    fp: int
    fn: int
    mean_iou: float  # of the matched boxes: how well they are placed

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
        return ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def accuracy(self) -> float:
        """TP / (TP + FP + FN); detection has no true negatives."""
        return ratio(self.tp, self.tp + self.fp + self.fn)

    def to_json(self) -> dict[str, Any]:
        """Counts and ratios."""
        ratios = {name: getattr(self, name) for name in ("precision", "recall", "f1", "accuracy")}
        return {**asdict(self), **ratios}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """All detections of one class (or of all) that count, best first: which of them were right."""

    scores: npt.NDArray[np.float32]  # (D,) descending
    right: npt.NDArray[np.bool_]  # (D,)
    iou: npt.NDArray[np.float64]  # (D,) of the match; 0 where wrong
    truths: int  # objects to be found

    def at(self, threshold: float) -> Point:
        """Counts of the detections with score >= threshold."""
        n = int((self.scores >= np.float32(threshold)).sum())
        tp = int(self.right[:n].sum())
        placed = self.iou[:n][self.right[:n]]
        mean_iou = float(placed.mean()) if tp else math.nan
        return Point(threshold=threshold, tp=tp, fp=n - tp, fn=self.truths - tp, mean_iou=mean_iou)

    def curve(self) -> tuple[Array, Array, Array]:
        """Thresholds (descending), precision and recall at each distinct score."""
        ends = np.flatnonzero(np.diff(self.scores, append=-np.inf))  # equal scores stand together
        tp = np.cumsum(self.right)[ends]
        return self.scores[ends], tp / (ends + 1), tp / max(self.truths, 1)

    def best(self) -> Point:
        """At the threshold with the largest F1; the highest such; 1 if nothing right was detected."""
        thresholds, precision, recall = self.curve()
        if not self.right.any():
            return self.at(1.0)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        return self.at(float(thresholds[int(f1.argmax())]))

    def voc_ap(self) -> float:
        """Area under the precision envelope (PASCAL VOC 2010 and later); nan without any truth."""
        if not self.truths:
            return math.nan
        _, precision, recall = self.curve()
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        return float((np.diff(recall, prepend=0.0) * envelope).sum())


def ratio(part: float, whole: float) -> float:
    """part / whole; nan for 0 / 0."""
    return part / whole if whole else math.nan
