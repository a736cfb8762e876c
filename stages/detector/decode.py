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
from stages.imaging.tiles import Box, merged, parts_of


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
    part: Box | None = None,
) -> Detections:
    """Threshold, clip to the picture, NMS, best `max_detections`, back to the picture: in this order.

    arrays: of one picture, in the layout of the facts (`layouts.check` has accepted such); fit: where
    the picture, size_wh_px large, lies in the model's input, which shows `part` of it (None: the whole).
    The result is sorted by score, best first.
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
    seen = np.array([part or (0, 0, *size_wh_px)], np.float32)
    # torchvision clips to the picture before NMS, so a box that looks out of it into the bars counts
    # with the part that is seen
    left, top, right, bottom = fit.to_input(seen)[0]
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


def detections_of_all(
    arrays: Sequence[npt.NDArray[Any]],
    facts: Facts,
    fits: Sequence[Fit],
    size_wh_px: tuple[int, int],
    options: Options = _DEFAULTS,
) -> Detections:
    """The same of all that the model saw of a picture: the whole, and its tiles, if there are any.

    fits: of the whole and each tile; with tiles, arrays have one dimension more, in front.
    """
    if len(fits) == 1:
        return detections_from(arrays, facts, fits[0], size_wh_px, options)
    parts = parts_of(size_wh_px, facts.resize.tiles)
    found = [
        detections_from([array[i] for array in arrays], facts, fit, size_wh_px, options, part)
        for i, (fit, part) in enumerate(zip(fits, (None, *parts), strict=True))
    ]
    limit = _or(options.max_detections, facts.defaults.max_detections)
    iou_threshold = _or(options.iou_threshold, facts.defaults.iou_threshold)
    return merged(found, parts, size_wh_px, iou_threshold, limit)


def by_frame(
    outputs: Sequence[Sequence[npt.NDArray[Any]]], pictures: int
) -> list[Sequence[npt.NDArray[Any]]]:
    """The arrays of each picture as those of each frame, of which the model sees so many pictures.

    With several they have one dimension more, in front. Where results differ in number, all are as long as
    the longest, with zeros behind: the score of a result that is none.
    """
    if pictures == 1:
        return list(outputs)
    frames = [outputs[i : i + pictures] for i in range(0, len(outputs), pictures)]
    return [tuple(map(_stacked, zip(*frame, strict=True))) for frame in frames]


def _stacked(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    if len({len(array) for array in arrays}) == 1:
        return np.stack(arrays)
    first = arrays[0]
    out = np.zeros((len(arrays), max(map(len, arrays)), *first.shape[1:]), first.dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return out


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
