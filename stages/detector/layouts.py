"""What models return, in a few lines each: from the arrays of one picture to candidates.

    layout       arrays of one picture                                        NMS after
    candidates   boxes (K,4) xyxy, scores (K,) with 0 as padding, labels (K,)   yes
    yolox        (N, 5+C): cx, cy, w, h, objectness, class scores               yes
    yolox-raw    the same before the grid: c = (p + cell) * stride, wh = exp(p) * stride   yes
    ultralytics  (4+C+…, N): cx, cy, w, h, class scores, then what is no box    yes
                 (N, 6): x1, y1, x2, y2, score, label                           no
    detr         logits (Q, C), or (Q, C+1) for softmax, and boxes (Q, 4), in    no
                 either order: cx, cy, w, h as shares of the input
    gfl          (N, C+4R), or (n, C) and (n, 4R) of each stride: class scores, and   yes
                 the distances to left, top, right, bottom as R logits each
    yunet        of each stride (n, 1) twice and (n, 4), before the grid as yolox-raw: the yes
                 score is the root of the product of the two; (n, 10) are left alone
    torchvision  boxes (N,4) xyxy, scores (N,), labels (N,), of a list of dicts no
    final, rows  the same, as `outputs` takes them from where the facts say      no

In pixels of the model's input, but for detr, and for final and rows where the facts say so. A dense
prediction counts for its best class alone, one of gfl for every class above the threshold, as its makers
have it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.detections import Floats
from pipeline.errors import ModelError
from stages.detector import gfl
from stages.detector.bundle import Facts, InputFacts

Array = npt.NDArray[Any]
MAX_QUERIES = 300  # of detr with sigmoid, as its makers keep
STRIDES_PX = (8, 16, 32)  # of the YOLOX heads, in the order of their predictions


class Candidates(NamedTuple):
    """Boxes that may become detections: parallel arrays of one length, in any order."""

    xyxy: Floats  # (N, 4) in pixels of the model's input
    scores: Floats  # (N,)
    labels: npt.NDArray[np.int64]  # (N,) 0-based into the classes; may lie outside for a bad model
    final: bool = False  # True: the model has already done NMS


def candidates(arrays: Sequence[Array], facts: Facts, above: float) -> Candidates:
    """The candidates of one picture with a score above `above`; `check` has accepted the arrays."""
    return _LAYOUTS[facts.layout](arrays, facts, above)


def check(arrays: Sequence[Array], facts: Facts, where: str) -> None:
    """Raise ModelError if these arrays of one picture are not what the layout says."""
    n_classes = len(facts.classes) + facts.label_offset
    got = ", ".join(f"{array.dtype} {array.shape}" for array in arrays)
    shapes = [array.shape for array in arrays]
    wanted = ""
    if facts.layout in ("candidates", "torchvision", "final", "rows"):
        k = shapes[0][0] if shapes and shapes[0] else 0
        if shapes != [(k, 4), (k,), (k,)]:
            wanted = "boxes (K, 4), scores (K,) and labels (K,)"
    elif facts.layout in ("yolox", "yolox-raw"):
        if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] != 5 + n_classes:
            wanted = f"one array (N, {5 + n_classes}) for {n_classes} classes"
        elif facts.layout == "yolox-raw" and shapes[0][0] != len(_grid(facts.input)):
            wanted = f"{len(_grid(facts.input))} rows for {facts.input.width}x{facts.input.height}"
    elif facts.layout in ("gfl", "yunet"):
        is_gfl = facts.layout == "gfl"
        wanted = _no_gfl(arrays, n_classes, facts) if is_gfl else _no_yunet(arrays, facts)
    elif facts.layout == "detr":
        columns = n_classes + (facts.activation == "softmax")
        n = shapes[0][0] if shapes and shapes[0] else 0
        if sorted(shapes) != sorted([(n, 4), (n, columns)]):
            wanted = f"logits (Q, {columns}) and boxes (Q, 4)"
    elif (
        not shapes
        or (len(shapes) > 1 and not facts.ignored_rows)
        or len(shapes[0]) != 2
        or not (
            shapes[0][0] == 4 + n_classes + facts.ignored_rows or shapes[0][1] == _after_nms(facts)
        )
    ):
        rows = 4 + n_classes + facts.ignored_rows
        wanted = f"one array ({rows}, N) for {n_classes} classes, or (N, {_after_nms(facts)})"
    if wanted:
        raise ModelError(
            f"{where}: layout {facts.layout!r} needs {wanted} per picture, got {got or 'nothing'}; "
            "declare the layout, the classes and the size that the model really has"
        )
    # exp() is never negative, so a decoded size is not, either
    if facts.layout == "yolox" and (arrays[0][:, 2:4] < 0).any():
        raise ModelError(
            f"{where}: layout 'yolox' needs widths and heights in pixels, got negative ones: its boxes "
            "are not decoded; import it with --layout yolox-raw"
        )


def used(arrays: Sequence[Array], facts: Facts) -> Sequence[Array]:
    """The arrays of one picture that the layout looks at: masks and key points are left out."""
    if facts.layout == "yunet":
        return [array for array in arrays if array.shape[1] in (1, 4)]
    return arrays[:1] if facts.layout == "ultralytics" else arrays


def _after_nms(facts: Facts) -> int:
    """Columns of layout ultralytics where NMS, or a head that needs none, is inside."""
    return 6 + facts.ignored_rows


def _no_gfl(arrays: Sequence[Array], n_classes: int, facts: Facts) -> str:
    found = gfl.cells(arrays, n_classes)
    if found is None:
        return f"(N, {n_classes} + 4R), or (n, {n_classes}) and (n, 4R) of each stride"
    size = facts.input
    if gfl.grid(size.width, size.height, len(found.scores)) is None:
        return f"a prediction for each cell of 8, 16, 32 (, 64) px of {size.width}x{size.height}"
    return ""


def _no_yunet(arrays: Sequence[Array], facts: Facts) -> str:
    if _yunet_tables(arrays, facts) is None:
        return "for 8, 16 and 32 px (n, 1) twice and (n, 4), n cells of that size"
    return ""


def _candidates(arrays: Sequence[Array], facts: Facts, above: float) -> Candidates:
    xyxy, scores, labels = arrays
    keep = scores > above
    return Candidates(
        xyxy[keep].astype(np.float32, copy=False),
        scores[keep].astype(np.float32, copy=False),
        labels[keep].astype(np.int64, copy=False) - facts.label_offset,
    )


def _torchvision(arrays: Sequence[Array], facts: Facts, above: float) -> Candidates:
    return _candidates(arrays, facts, above)._replace(final=True)


def _final(arrays: Sequence[Array], facts: Facts, above: float) -> Candidates:
    """Labels below 0 pad what a GPU has left over."""
    boxes, scores, labels = arrays
    keep = (scores > above) & (labels >= 0)
    boxes, output, size = boxes[keep].astype(np.float32, copy=False), facts.output, facts.input
    if output.box == "yxyx":
        boxes = boxes[:, [1, 0, 3, 2]]
    elif output.box == "cxcywh":
        half = boxes[:, 2:] / 2
        boxes = np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1)
    if output.unit == "share":
        boxes = boxes * np.array([size.width, size.height] * 2, np.float32)
    return _candidates((boxes, scores[keep], labels[keep]), facts, above)._replace(final=True)


def _gfl(arrays: Sequence[Array], facts: Facts, above: float) -> Candidates:
    found = gfl.cells(arrays, len(facts.classes) + facts.label_offset)
    places = gfl.grid(
        facts.input.width, facts.input.height, 0 if found is None else len(found.scores)
    )
    if found is None or places is None:
        raise ModelError(f"layout 'gfl': {_no_gfl(arrays, len(facts.classes), facts)} was wanted")
    keep = found.scores.max(axis=1) > above
    scores = found.scores[keep]
    xyxy = gfl.xyxy(found.sides[keep], places[keep], facts)
    rows, labels = np.nonzero(scores > above)
    return _candidates((xyxy[rows], scores[rows, labels], labels), facts, above)


def _yolox(arrays: Sequence[Array], facts: Facts, above: float) -> Candidates:
    rows: Array = arrays[0]  # (N, 5+C)
    rows = rows[rows[:, 4] > above].astype(np.float32, copy=False)  # a class score is at most 1
    return _dense(rows[:, :4], rows[:, 5:] * rows[:, 4:5], facts, above)


def _yolox_raw(arrays: Sequence[Array], facts: Facts, above: float) -> Candidates:
    rows: Array = arrays[0]  # (N, 5+C)
    keep = rows[:, 4] > above
    rows = rows[keep].astype(np.float32, copy=False)
    grid = _grid(facts.input)[keep]  # (n, 3): cell x, cell y, stride
    with np.errstate(over="ignore"):
        sizes = np.exp(rows[:, 2:4]) * grid[:, 2:]
    cxcywh = np.concatenate(((rows[:, :2] + grid[:, :2]) * grid[:, 2:], sizes), axis=1)
    return _dense(cxcywh, rows[:, 5:] * rows[:, 4:5], facts, above)


def _yunet(arrays: Sequence[Array], facts: Facts, above: float) -> Candidates:
    tables = _yunet_tables(arrays, facts)
    if tables is None:
        raise ModelError("layout 'yunet': other arrays were checked")
    first, second, boxes = tables
    scores = np.sqrt(np.clip(first, 0, 1) * np.clip(second, 0, 1))  # (N, 1)
    keep = scores[:, 0] > above
    boxes, grid = boxes[keep].astype(np.float32, copy=False), _grid(facts.input)[keep]
    with np.errstate(over="ignore"):
        sizes = np.exp(boxes[:, 2:]) * grid[:, 2:]
    cxcywh = np.concatenate(((boxes[:, :2] + grid[:, :2]) * grid[:, 2:], sizes), axis=1)
    return _dense(cxcywh, scores[keep], facts, above)


def _yunet_tables(arrays: Sequence[Array], facts: Facts) -> tuple[Array, Array, Array] | None:
    """Both scores (N, 1) and boxes (N, 4) of all strides, in the order of the grid."""
    size, found = facts.input, []
    for stride in STRIDES_PX:
        n = (size.height // stride) * (size.width // stride)
        of_stride = [array for array in arrays if array.ndim == 2 and len(array) == n]
        scores = [array for array in of_stride if array.shape[1] == 1]
        boxes = [array for array in of_stride if array.shape[1] == 4]
        if len(scores) != 2 or len(boxes) != 1:
            return None
        found.append((*scores, *boxes))
    first, second, boxes_ = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return first, second, boxes_


def _ultralytics(arrays: Sequence[Array], facts: Facts, above: float) -> Candidates:
    table: Array = arrays[0]
    n_rows = 4 + len(facts.classes) + facts.label_offset
    if table.shape[0] != n_rows + facts.ignored_rows:  # (N, 6 and more): after NMS
        columns = (table[:, :4], table[:, 4], table[:, 5].astype(np.int64))
        return _candidates(columns, facts, above)._replace(final=True)
    table = table[:n_rows]
    best = table[4:].max(axis=0)  # (N,)
    rows = table[:, best > above].T.astype(np.float32, copy=False)  # (n, 4+C)
    return _dense(rows[:, :4], rows[:, 4:], facts, above)


def _detr(arrays: Sequence[Array], facts: Facts, above: float) -> Candidates:
    """Each query is a box: nothing is suppressed. Sigmoid: the best of all queries and classes, so that one
    query may stand for two classes; softmax: each query for its best class, and the last column is none."""
    logits, boxes = arrays if arrays[1].shape[1] == 4 else arrays[::-1]  # (Q, C), (Q, 4)
    logits = logits.astype(np.float32, copy=False)
    if facts.activation == "sigmoid":
        scores = 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
        best = np.argsort(-scores, axis=None, kind="stable")[:MAX_QUERIES]
        queries, labels = np.divmod(best, logits.shape[1])
        scores = scores.ravel()[best]
    else:
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares = (powers / powers.sum(axis=1, keepdims=True))[:, :-1]
        queries, labels, scores = np.arange(len(shares)), shares.argmax(axis=1), shares.max(axis=1)
    size = np.array([facts.input.width, facts.input.height], np.float32)
    centre, half = boxes[queries, :2] * size, boxes[queries, 2:] * size / 2
    xyxy = np.concatenate((centre - half, centre + half), axis=1)
    return _candidates((xyxy, scores, labels), facts, above)._replace(final=True)


def _dense(cxcywh: Floats, scores: Floats, facts: Facts, above: float) -> Candidates:
    """Boxes (N, 4) and class scores (N, C), each box for its best class."""
    half = cxcywh[:, 2:] / 2
    xyxy = np.concatenate((cxcywh[:, :2] - half, cxcywh[:, :2] + half), axis=1)
    labels = scores.argmax(axis=1)
    best = np.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
    return _candidates((xyxy, best, labels), facts, above)


def _grid(size: InputFacts) -> Floats:
    """float32 (N, 3): cell x, cell y and stride of every YOLOX prediction."""
    levels = []
    for stride in STRIDES_PX:
        y, x = np.mgrid[: size.height // stride, : size.width // stride]
        levels.append(np.stack((x, y, np.full_like(x, stride)), axis=-1).reshape(-1, 3))
    return np.concatenate(levels).astype(np.float32)


_LAYOUTS: dict[str, Callable[[Sequence[Array], Facts, float], Candidates]] = {
    "candidates": _candidates,
    "yolox": _yolox,
    "yolox-raw": _yolox_raw,
    "ultralytics": _ultralytics,
    "torchvision": _torchvision,
    "detr": _detr,
    "gfl": _gfl,
    "yunet": _yunet,
    "final": _final,
    "rows": _final,
}
