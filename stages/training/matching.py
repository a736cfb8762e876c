"""Which detection found which object: one greedy matcher, and what follows from its matches.

COCO's rule: detections in order of score; each takes the free object of its class with the largest
IoU at or above the threshold; a detection that takes none but overlaps an *ignored* one (a crowd, a
difficult object) by its own area is neither right nor wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.detections import Detections
from stages.training.datasets import Sample

Array = npt.NDArray[Any]

NEAR_IOU = 0.1  # an error that overlaps an object by less is one of the background (TIDE)
ERRORS = ("classification", "localisation", "both", "duplicate", "background", "missed")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matches:
    """The matches of one picture: D detections in their own order, N annotated objects.

    A detection that is neither matched nor ignored is a false positive, an object that is neither
    found nor to be ignored is a false negative.
    """

    truth: npt.NDArray[np.int64]  # (D,) index of the object that a detection found, or -1
    iou: npt.NDArray[np.float64]  # (D,) with that object; 0 where there is none
    ignored: npt.NDArray[np.bool_]  # (D,) lies on an ignored object

    def of(self, index: npt.NDArray[np.bool_]) -> Matches:
        """The matches of some of the detections, chosen by a mask (D,)."""
        return Matches(truth=self.truth[index], iou=self.iou[index], ignored=self.ignored[index])


def iou_matrix(a: Array, b: Array, own_area: Array | None = None) -> npt.NDArray[np.float64]:
    """IoU of each box of `a` (D, 4) with each of `b` (N, 4): float64 (D, N); 0 for empty boxes.

    own_area: bool (N,); there the intersection is divided by the area of the box of `a` alone, as
    COCO does for crowds.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    corner1 = np.maximum(a[:, None, :2], b[None, :, :2])  # (D, N, 2)
    corner2 = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.clip(corner2 - corner1, 0, None).prod(axis=2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(axis=1), (b[:, 2:] - b[:, :2]).prod(axis=1)
    total = area_a[:, None] + area_b[None, :] - inter
    if own_area is not None:
        total = np.where(own_area[None, :], area_a[:, None], total)
    quotient: npt.NDArray[np.float64] = inter / np.where(total > 0, total, 1)
    return quotient


def match(found: Detections, sample: Sample, *, iou: float = 0.5, classes: bool = True) -> Matches:
    """Match the detections of one picture with what is in it.

    Since the best score chooses first, the matches of the detections above any score are those that
    matching them alone would give. Equal scores: the earlier detection chooses first.

    iou: least overlap of a match, 0..1. classes: whether labels must agree.
    """
    ignore = sample.crowd | sample.difficult
    overlap = iou_matrix(found.xyxy, sample.xyxy, ignore)
    if classes:
        overlap = np.where(found.labels[:, None] == sample.labels[None, :], overlap, -1.0)
    least = min(iou, 1 - 1e-10)
    truth = np.full(len(found), -1, np.int64)
    best = np.zeros(len(found))
    free = ~ignore
    for i in np.argsort(-found.scores, kind="stable"):
        candidates = np.where(free, overlap[i], -1.0)
        # The last of equals, as COCO has it.
        j = len(candidates) - 1 - int(np.argmax(candidates[::-1])) if len(candidates) else -1
        if j >= 0 and candidates[j] >= least:
            truth[i], best[i], free[j] = j, candidates[j], False
    over_ignored = ((overlap >= least) & ignore[None, :]).any(axis=1)
    return Matches(truth=truth, iou=best, ignored=over_ignored & (truth < 0))


def confusion(
    found: Detections, sample: Sample, matches: Matches, n_classes: int, *, iou: float = 0.5
) -> npt.NDArray[np.int64]:
    """Counts (C + 1, C + 1) of one picture: rows are what was there, columns what was said.

    The last row and column are the background. Right detections are those of `matches`; what they
    leave is matched again without regard to class.
    """
    counts = np.zeros((n_classes + 1, n_classes + 1), np.int64)
    hits = matches.truth >= 0
    np.add.at(counts, (found.labels[hits], found.labels[hits]), 1)
    rest_found, rest = found[~hits & ~matches.ignored], _without(sample, matches.truth[hits])
    wrong = match(rest_found, rest, iou=iou, classes=False)
    said = np.where(wrong.ignored, n_classes + 1, rest_found.labels)
    there = np.where(wrong.truth >= 0, np.append(rest.labels, n_classes)[wrong.truth], n_classes)
    np.add.at(counts, (there[~wrong.ignored], said[~wrong.ignored]), 1)
    unseen = ~(rest.crowd | rest.difficult)
    unseen[wrong.truth[wrong.truth >= 0]] = False
    np.add.at(counts[:, n_classes], rest.labels[unseen], 1)
    return counts


def errors(
    found: Detections, sample: Sample, matches: Matches, *, iou: float = 0.5
) -> dict[str, int]:
    """What went wrong in one picture, each false detection and missed object once.

    The categories of TIDE (Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection
    Errors", ECCV 2020, section 2.2), counted and not weighed by their effect on AP. `missed` are
    the objects that no classification or localisation error accounts for.
    """
    counts = dict.fromkeys(ERRORS, 0)
    false = np.flatnonzero((matches.truth < 0) & ~matches.ignored)
    there = ~(sample.crowd | sample.difficult)
    taken = np.zeros(len(sample.labels), bool)
    taken[matches.truth[matches.truth >= 0]] = True
    excused = np.zeros(len(sample.labels), bool)
    overlap = iou_matrix(found.xyxy, sample.xyxy) * there[None, :]
    for i in false:
        row = overlap[i]
        same = np.where(sample.labels == found.labels[i], row, 0.0)
        other = np.where(sample.labels == found.labels[i], 0.0, row)
        if row.max(initial=0.0) < NEAR_IOU:
            counts["background"] += 1
        elif NEAR_IOU <= same.max() < iou:
            counts["localisation"] += 1
            excused[same.argmax()] = True
        elif other.max() >= iou and same.max() < iou:
            counts["classification"] += 1
            excused[other.argmax()] = True
        elif same.max() >= iou:
            counts["duplicate"] += 1
        else:
            counts["both"] += 1
    counts["missed"] = int((there & ~taken & ~excused).sum())
    return counts


def _without(sample: Sample, indices: Array) -> Sample:
    keep = np.ones(len(sample.labels), bool)
    keep[indices] = False
    return replace(
        sample,
        xyxy=sample.xyxy[keep],
        labels=sample.labels[keep],
        crowd=sample.crowd[keep],
        difficult=sample.difficult[keep],
        area=None,
    )
