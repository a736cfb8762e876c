"""What a model has to show before it becomes a bundle: each gate is a mistake that was made in silence.

All of them look at what the model finds in the same few pictures; a mistake of one picture may be chance,
so a gate closes only for what no right model does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.errors import ModelError
from stages.detector import layouts
from stages.detector.bundle import Facts
from stages.detector.engine import Array, Engine, Image, Outputs
from stages.detector.layouts import Candidates

SURE = 0.35  # a score that a person would look at
TINY_PX = 2.0  # boxes in shares of the picture are at most 1 wide
FLOOD = 0.5  # share of all predictions that are sure: no picture is so full
COMPARED = 100  # scores of a picture
_LOW = 0.05
_SLACK = 1e-3


def check(outputs: Sequence[Outputs], facts: Facts, where: str) -> None:
    """Raise ModelError if what the model found in these pictures is none of boxes, scores and labels.

    outputs: copies, of one picture each.
    """
    everything = [layouts.candidates(arrays, facts, -np.inf) for arrays in outputs]
    scores = np.concatenate([found.scores for found in everything])
    if scores.size and (scores.min() < -_SLACK or scores.max() > 1 + _SLACK):
        raise ModelError(
            f"{where}: scores must be within 0..1, got {scores.min():.3g}..{scores.max():.3g}: they are "
            "logits, or another column; export it with its last activation, or declare another layout"
        )
    _labels(everything, facts, where)
    boxes = np.concatenate([found.xyxy for found in everything])[scores > _LOW]
    if not len(boxes):
        return
    sides = boxes[:, 2:] - boxes[:, :2]
    if everything[0].final and (sides < -_SLACK).any():
        raise ModelError(
            f"{where}: boxes must be x1, y1, x2, y2, got some with x2 < x1 or y2 < y1: they are centre "
            "and size, or another order; declare the layout that the model really has"
        )
    if np.abs(boxes).max() < TINY_PX:
        raise ModelError(
            f"{where}: boxes must be in pixels of the input, got all within "
            f"{np.abs(boxes).max():.3g}: they are shares of the picture; export it with boxes in pixels"
        )
    sure = (scores > SURE).mean()
    if not everything[0].final and sure > FLOOD:
        raise ModelError(
            f"{where}: {sure:.0%} of all its predictions have a score above {SURE}, which no picture "
            f"shows: its input is scaled wrongly (now pixel * {facts.input.scale:g}), or the layout is "
            "another"
        )


def _labels(everything: Sequence[Candidates], facts: Facts, where: str) -> None:
    labels = np.concatenate([found.labels[found.scores > _LOW] for found in everything])
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(facts.classes):
        raise ModelError(
            f"{where}: wanted labels 0..{len(facts.classes) - 1} after label_offset "
            f"{facts.label_offset}, got {labels.min()}..{labels.max()}; name all classes of the "
            "model, or change label_offset"
        )


def whole_labels(arrays: Sequence[Array], facts: Facts, where: str) -> None:
    """Raise ModelError unless labels are whole numbers, where they come with others in a table."""
    if facts.layout in ("final", "rows"):
        labels, hint = (
            arrays[2],
            "they are scores, or another column; declare where labels really are",
        )
    elif facts.layout == "ultralytics" and arrays[0].ndim == 2 and arrays[0].shape[1] == 6:
        labels = arrays[0][:, 5]
        hint = (
            "rows of 6 are taken for x1, y1, x2, y2, score, label, and these are centre, size, "
            "objectness and one class; declare layout yolox with one class"
        )
    else:
        return
    if labels.size and np.abs(labels - np.round(labels)).max() > _SLACK:
        raise ModelError(f"{where}: layout {facts.layout!r}: labels are no whole numbers: {hint}")


def batches(engine: Engine, pictures: Image, sizes: Sequence[int], facts: Facts) -> tuple[int, ...]:
    """Those of the batch sizes in which each picture gives what it gives alone.

    pictures: uint8 (n, H, W, 3). A trace may lose all pictures but the first, and give no error; where
    nothing is found in any picture, nothing shows that it does not.
    """
    alone = [_best(engine.infer(picture[None])[0], facts) for picture in pictures]
    good = [1]
    for size in sizes if any(map(len, alone)) else ():
        rows = [i % len(pictures) for i in range(1, size + 1)]  # another one in the first place
        try:
            found = engine.infer(pictures[rows])
        except ModelError:
            break  # a model traced for one batch size takes no other
        if size > 1:
            ours = [_best(arrays, facts) for arrays in found]
            if not all(_alike(a, alone[i]) for a, i in zip(ours, rows, strict=True)):
                break
            good.append(size)
    return tuple(good)


def _best(arrays: Outputs, facts: Facts) -> Array:
    """The best scores of a picture, (n,), falling; a score of 0 is padding."""
    return np.sort(layouts.candidates(arrays, facts, 0.0).scores)[::-1][:COMPARED].copy()


def _alike(ours: Array, theirs: Array) -> bool:
    n = min(len(ours), len(theirs))
    return abs(len(ours) - len(theirs)) <= 2 and np.allclose(ours[:n], theirs[:n], atol=1e-2)
