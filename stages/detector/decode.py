"""From what a model returned for one picture to detections in pixels of that picture.

One pure function, for postprocess, evaluate, predict and the parity gate of export alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.detections import Detections, Fit
from stages.detector.bundle import Facts
from stages.detector.layouts import candidates
from stages.detector.nms import batched_nms, top_candidates


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to keep of the candidates. None: the bundle's default."""

    score_threshold: float | None = None  # 0..1; a score has to be above it
    per_class: Mapping[int, float] = field(default_factory=dict)  # label → its own threshold
    classes: frozenset[int] | None = None  # labels to keep; None: all
    iou_threshold: float | None = None  # 0..1, of NMS within a class
    max_detections: int | None = None  # of one picture


_DEFAULTS = Options()


def detections_from(
    arrays: Sequence[npt.NDArray[Any]],
    facts: Facts,
    fit: Fit,
    size_wh_px: tuple[int, int],
    options: Options = _DEFAULTS,
) -> Detections:
    """Threshold, clip to the picture, NMS, best `max_detections`, back to the picture: in this order.

    arrays: of one picture, in the layout of the facts (`layouts.check` has accepted such); fit: where
    the picture, size_wh_px large, lies in the model's input. The result is sorted by score, best first.
    Candidates that are not finite, have x2 < x1 or a label outside the classes are ignored. Boxes that
    clipping leaves without area stay, as in torchvision. Pure.
    """
    defaults = facts.defaults
    threshold = _or(options.score_threshold, defaults.score_threshold)
    lowest = min([threshold, *options.per_class.values()])
    found = candidates(arrays, facts, lowest)
    xyxy, scores, labels = found.xyxy, found.scores, found.labels

    keep = np.isfinite(xyxy).all(axis=1) & np.isfinite(scores)
    keep &= (xyxy[:, 0] <= xyxy[:, 2]) & (xyxy[:, 1] <= xyxy[:, 3])
    keep &= (labels >= 0) & (labels < len(facts.classes))
    if options.classes is not None:
        keep &= np.isin(labels, sorted(options.classes))
    if options.per_class:
        own = np.full(len(facts.classes), threshold, np.float64)
        for label, value in options.per_class.items():
            own[label] = value
        keep[keep] &= scores[keep] > own[labels[keep]]
    xyxy, scores, labels = xyxy[keep], scores[keep], labels[keep]

    best = top_candidates(scores)
    xyxy, scores, labels = xyxy[best], scores[best], labels[best]
    # torchvision clips to the picture before NMS, so a box that looks out of it into the bars counts
    # with the part that is seen
    left, top, right, bottom = fit.to_input(np.array([[0, 0, *size_wh_px]], np.float32))[0]
    xyxy = np.clip(xyxy, (left, top, left, top), (right, bottom, right, bottom), dtype=np.float32)
    limit = _or(options.max_detections, defaults.max_detections)
    if found.final:
        kept = np.arange(min(limit, len(scores)))
    else:
        kept = batched_nms(
            xyxy, scores, labels, _or(options.iou_threshold, defaults.iou_threshold), limit
        )
    return Detections(
        fit.to_source(xyxy[kept], size_wh_px), scores[kept], labels[kept].astype(np.int32)
    )


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
