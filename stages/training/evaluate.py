"""How good detections are: COCO's figures, precision and recall at a threshold, kinds of errors.

COCO's figures come from faster-coco-eval; everything at one IoU from the one matcher in `matching`.
Difficult objects count as crowds do: whoever finds them is neither right nor wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.detections import Detections
from pipeline.errors import DataError
from stages.training.datasets import DataSet, Sample
from stages.training.figures import areas_px2, coco_figures
from stages.training.matching import ERRORS, Matches, confusion, errors, match
from stages.training.scores import Point, Scored, ratio

Array = npt.NDArray[Any]

SIZES_PX2 = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, math.inf)}
BINS = 10  # of calibration
LEAST_SCORE = 0.05  # of a detection that counts for calibration; below it nobody sets a threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassResult:
    """One class, or "all" with the detections of all classes together."""

    name: str
    ap: float  # COCO's AP (IoU 0.5 … 0.95) of this class; nan where there is nothing to find
    ap50: float
    voc_ap50: float  # at `Evaluation.iou`; for "all" the mean of the classes
    chosen: Point  # at Evaluation.score_threshold
    best: Point  # at the threshold with the largest F1
    scored: Scored

    def to_json(self) -> dict[str, Any]:
        """All but the curve."""
        points = {"chosen": self.chosen.to_json(), "best": self.best.to_json()}
        aps = {"ap": self.ap, "ap50": self.ap50, "voc_ap50": self.voc_ap50}
        return {"name": self.name, "truths": self.scored.truths, **aps, **points}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Detections with a score in [low, high): where score and precision agree, it is calibrated."""

    low: float
    high: float
    n: int
    mean_score: float
    precision: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """Everything that is known about detections on a data set."""

    dataset: str
    sha256: str  # of the data set
    pictures: int
    classes: tuple[str, ...]
    iou: float  # least overlap of a match
    score_threshold: float
    coco: dict[str, float]  # FIGURES
    overall: ClassResult
    per_class: tuple[ClassResult, ...]
    confusion: npt.NDArray[np.int64]  # (C + 1, C + 1), rows truth, columns said, last background
    errors: dict[str, int]  # at score_threshold
    bins: tuple[Bin, ...]
    calibration_error: float
    """D-ECE over the score alone (Küppers et al., "Multivariate Confidence Calibration for Object
    Detection", CVPR-W 2020): mean |score - precision| over the bins, weighed by detections."""
    sizes: dict[
        str, dict[str, float]
    ]  # per size of COCO: truths, recall and mean_iou at the threshold
    wrong: tuple[int, ...]  # per picture: false detections and missed objects at the threshold
    speed: dict[str, float]  # ms per picture and phase, where it was measured

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and texts; null where a ratio has no value."""
        tree = {
            "dataset": self.dataset,
            "sha256": self.sha256,
            "pictures": self.pictures,
            "classes": list(self.classes),
            "iou": self.iou,
            "score_threshold": self.score_threshold,
            "coco": self.coco,
            "overall": self.overall.to_json(),
            "per_class": [result.to_json() for result in self.per_class],
            "confusion": {
                "labels": [*self.classes, "background"],
                "counts": self.confusion.tolist(),
            },
            "errors": self.errors,
            "calibration": {
                "d_ece": self.calibration_error,
                "bins": [asdict(b) for b in self.bins],
            },
            "sizes": self.sizes,
            "speed_ms": self.speed,
        }
        return dict(_without_nan(tree))


def evaluate(
    predictions: Sequence[Detections],
    dataset: DataSet,
    *,
    score_threshold: float,
    iou: float = 0.5,
    speed: Mapping[str, float] | None = None,
) -> Evaluation:
    """Judge detections against a data set.

    predictions: one for each sample of the data set, in its order, in pixels of the source picture,
        labels by the data set's classes (`labels.relabelled` maps a model's by name). Give all
        down to a score of about 0.001: AP needs the tail.
    score_threshold: where precision, recall, confusion and errors are read, 0..1.
    iou: least overlap of a match, 0..1.
    speed: ms per picture and phase, handed through.

    Raises DataError if there is not one prediction a sample, or a label that is no class.
    """
    _check(predictions, dataset)
    n_classes = len(dataset.classes)
    pairs = list(zip(predictions, dataset.samples, strict=True))
    matches = [match(found, sample, iou=iou) for found, sample in pairs]
    figures, class_ap = coco_figures(predictions, dataset)
    of_all, of_class = _scored(pairs, matches, n_classes)
    per_class = tuple(
        _result(name, of_class[label], class_ap[label], score_threshold)
        for label, name in enumerate(dataset.classes)
    )
    means = (figures["AP"], figures["AP50"])
    all_ap = (math.nan, math.nan) if figures["AP"] < 0 else means
    overall = _result("all", of_all, all_ap, score_threshold, per_class)
    table = np.zeros((n_classes + 1, n_classes + 1), np.int64)
    split = dict.fromkeys(ERRORS, 0)
    wrong = []
    for (found, sample), matched in zip(pairs, matches, strict=True):
        above = found.scores >= np.float32(score_threshold)
        kept = Matches(
            truth=matched.truth[above], iou=matched.iou[above], ignored=matched.ignored[above]
        )
        table += confusion(found[above], sample, kept, n_classes, iou=iou)
        for name, count in errors(found[above], sample, kept, iou=iou).items():
            split[name] += count
        hits = int((kept.truth >= 0).sum())
        to_find = int((~(sample.crowd | sample.difficult)).sum())
        wrong.append(int((~kept.ignored).sum()) - hits + to_find - hits)
    bins = _bins(overall.scored)
    counted = sum(b.n for b in bins)
    gaps = sum(b.n * abs(b.mean_score - b.precision) for b in bins if b.n)
    return Evaluation(
        dataset=dataset.name,
        sha256=dataset.sha256,
        pictures=len(pairs),
        classes=dataset.classes,
        iou=iou,
        score_threshold=score_threshold,
        coco=figures,
        overall=overall,
        per_class=per_class,
        confusion=table,
        errors=split,
        bins=bins,
        calibration_error=ratio(gaps, counted),
        sizes=_by_size(pairs, matches, score_threshold),
        wrong=tuple(wrong),
        speed=dict(speed or {}),
    )


def _check(predictions: Sequence[Detections], dataset: DataSet) -> None:
    if len(predictions) != len(dataset.samples):
        raise DataError(
            f"evaluate: wanted one Detections for each of the {len(dataset.samples)} pictures of "
            f"{dataset.name}, got {len(predictions)}"
        )
    n_classes = len(dataset.classes)
    highest = max((int(found.labels.max(initial=-1)) for found in predictions), default=-1)
    if highest >= n_classes:
        raise DataError(
            f"evaluate: label {highest}, but {dataset.name} has {n_classes} classes; map the "
            "model's classes to the data set's by name"
        )


def _scored(
    pairs: Sequence[tuple[Detections, Sample]], matches: Sequence[Matches], n_classes: int
) -> tuple[Scored, list[Scored]]:
    """The detections of all classes together, and of each."""
    counted = [~matched.ignored for matched in matches]
    there = [sample.labels[~(sample.crowd | sample.difficult)] for _, sample in pairs]
    scores = _joined(np.float32, (f.scores[c] for (f, _), c in zip(pairs, counted, strict=True)))
    labels = _joined(np.int32, (f.labels[c] for (f, _), c in zip(pairs, counted, strict=True)))
    right = _joined(np.bool_, (m.truth[c] >= 0 for m, c in zip(matches, counted, strict=True)))
    iou = _joined(np.float64, (m.iou[c] for m, c in zip(matches, counted, strict=True)))
    order = np.argsort(-scores, kind="stable")
    scores, labels, right, iou = scores[order], labels[order], right[order], iou[order]
    truths = np.bincount(_joined(np.int32, there), minlength=n_classes)
    per_class = [
        Scored(scores=scores[mine], right=right[mine], iou=iou[mine], truths=int(truths[label]))
        for label in range(n_classes)
        for mine in [labels == label]
    ]
    return Scored(scores=scores, right=right, iou=iou, truths=int(truths.sum())), per_class


def _joined(dtype: type, arrays: Iterable[Array]) -> Array:
    joined: Array = np.concatenate([np.zeros(0, dtype), *arrays])
    return joined


def _result(
    name: str,
    scored: Scored,
    ap: tuple[float, float],
    score_threshold: float,
    mean_of: Sequence[ClassResult] = (),
) -> ClassResult:
    known = [result.voc_ap50 for result in mean_of if not math.isnan(result.voc_ap50)]
    voc = scored.voc_ap() if not mean_of else float(np.mean(known)) if known else math.nan
    return ClassResult(
        name=name,
        ap=ap[0],
        ap50=ap[1],
        voc_ap50=voc,
        chosen=scored.at(score_threshold),
        best=scored.best(),
        scored=scored,
    )


def _bins(scored: Scored) -> tuple[Bin, ...]:
    bins = []
    for i in range(BINS):
        low, high = i / BINS, (i + 1) / BINS
        last = i == BINS - 1  # a score of 1 belongs to the last bin
        inside = (scored.scores >= max(low, LEAST_SCORE)) & ((scored.scores < high) | last)
        n = int(inside.sum())
        mean = float(scored.scores[inside].mean()) if n else math.nan
        precision = ratio(int(scored.right[inside].sum()), n)
        bins.append(Bin(low=low, high=high, n=n, mean_score=mean, precision=precision))
    return tuple(bins)


def _by_size(
    pairs: Sequence[tuple[Detections, Sample]], matches: Sequence[Matches], score_threshold: float
) -> dict[str, dict[str, float]]:
    areas, ious = [np.zeros(0)], [np.zeros(0)]
    for (found, sample), matched in zip(pairs, matches, strict=True):
        overlap = np.zeros(len(sample.labels))
        hits = (matched.truth >= 0) & (found.scores >= np.float32(score_threshold))
        overlap[matched.truth[hits]] = matched.iou[hits]
        there = ~(sample.crowd | sample.difficult)
        areas.append(areas_px2(sample)[there])
        ious.append(overlap[there])
    area, iou = np.concatenate(areas), np.concatenate(ious)
    table = {}
    for name, (low, high) in SIZES_PX2.items():
        of_size = iou[(area >= low) & (area < high)]
        hit = of_size[of_size > 0]
        mean_iou = float(hit.mean()) if len(hit) else math.nan
        recall = ratio(len(hit), len(of_size))
        table[name] = {"truths": len(of_size), "recall": recall, "mean_iou": mean_iou}
    return table


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
