"""From the arrays of a batch, as a model returns them, to those of each picture, as its layout has them.

Most models put the batch on the first axis of each output. Those with NMS inside often do not: all boxes
of all pictures stand in one table, or an output says how many of its rows count. What leaves here is the
same for all of those: boxes (N, 4), scores (N,), labels (N,), of one picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.errors import ModelError
from stages.detector.bundle import Column, Facts
from stages.detector.engine import Array, Outputs

MAX_FINAL_ROWS = 1000  # of a picture, of the layouts whose number of boxes has no other bound
FINAL_ROW_BYTES = 4 * 4 + 4 + 8  # box, score and label


def per_picture(arrays: Sequence[Array], n: int, facts: Facts, where: str) -> list[Outputs]:
    """The arrays of each of n pictures; raises ModelError if they are not for n, or have another form."""
    if facts.layout == "rows":
        return [_final(table, facts) for table in _tables(arrays, n, facts, where)]
    if facts.layout == "final":
        return _by_role(arrays, n, facts, where)
    if facts.layout == "detr" and facts.output.roles:
        of = _of_roles(arrays, facts, where)
        arrays = (of["scores"], of["boxes"])
    return _split(arrays, n, where)


def wrong_batch(where: str, wanted: int, got: int) -> ModelError:
    """The error of a model that returns results for another number of pictures."""
    return ModelError(
        f"{where}: a batch of {wanted} pictures must give results for {wanted}, got {got}; "
        "a traced model may have one batch size baked in: script it, or import it with batch 1"
    )


def _split(arrays: Sequence[Array], n: int, where: str) -> list[Outputs]:
    for array in arrays:
        if array.ndim < 1 or len(array) != n:
            raise wrong_batch(where, n, len(array) if array.ndim else 0)
    return [tuple(array[i] for array in arrays) for i in range(n)]


def _by_role(arrays: Sequence[Array], n: int, facts: Facts, where: str) -> list[Outputs]:
    of = _of_roles(arrays, facts, where)
    kept = [of[role] for role in ("boxes", "scores", "labels")]
    if n == 1 and kept[0].ndim == 2:  # of one picture at a time, as torchvision's
        kept = [array[None] for array in kept]
    counts = of["count"].reshape(-1).astype(np.int64) if "count" in of else None
    if counts is not None and len(counts) != n:
        raise wrong_batch(where, n, len(counts))
    found: list[Outputs] = []
    for i, (boxes, scores, labels) in enumerate(_split(kept, n, where)):
        rows = slice(MAX_FINAL_ROWS if counts is None else min(int(counts[i]), MAX_FINAL_ROWS))
        found.append((boxes[rows], _column(scores)[rows], _column(labels)[rows]))
    return found


def _of_roles(arrays: Sequence[Array], facts: Facts, where: str) -> dict[str, Array]:
    roles = facts.output.roles
    if len(roles) != len(arrays):
        raise ModelError(
            f"{where}: its facts give roles to {len(roles)} outputs ({', '.join(roles)}), the model has "
            f"{len(arrays)}; import it again with --roles for each"
        )
    return dict(zip(roles, arrays, strict=True))


def _tables(arrays: Sequence[Array], n: int, facts: Facts, where: str) -> list[Array]:
    """A table (N, columns) for each picture."""
    roles, columns = facts.output.roles or ("rows",), facts.output.columns
    of = dict(zip(roles, arrays, strict=False))
    table, width = of["rows"], len(columns) + 3
    if table.ndim < 2 or table.shape[-1] != width or len(roles) > len(arrays):
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise ModelError(
            f"{where}: layout 'rows' needs a table of {width} columns ({', '.join(columns)}), got "
            f"{shapes}; declare the columns that the model really has"
        )
    if "count" in of:  # one after the other
        counts = of["count"].reshape(-1).astype(np.int64)
        if len(counts) != n or counts.sum() > len(table.reshape(-1, width)):
            raise wrong_batch(where, n, len(counts))
        return np.split(table.reshape(-1, width)[: counts.sum()], np.cumsum(counts)[:-1])
    if "picture" not in columns:
        if table.ndim != 3 or len(table) != n:
            raise wrong_batch(where, n, len(table) if table.ndim == 3 else 1)
        return list(table)
    table = table.reshape(-1, width)
    pictures = table[:, _place("picture", columns)]
    ends = np.flatnonzero(pictures < 0)  # what lies behind is memory that was never written
    if len(ends):
        table, pictures = table[: ends[0]], pictures[: ends[0]]
    if len(pictures) and pictures.max() >= n:
        raise wrong_batch(where, n, int(pictures.max()) + 1)
    return [table[pictures == i] for i in range(n)]


def _final(table: Array, facts: Facts) -> Outputs:
    columns, table = facts.output.columns, table[:MAX_FINAL_ROWS]
    box, score, label = (_place(column, columns) for column in ("box", "score", "label"))
    parts = table[:, box : box + 4], table[:, score], table[:, label]
    return tuple(np.ascontiguousarray(part) for part in parts)


def _place(column: Column, columns: Sequence[Column]) -> int:
    at = columns.index(column)
    return at + 3 * ("box" in columns[:at])


def _column(array: Array) -> Array:
    """(N,) of (N,) or (N, 1)."""
    return np.ascontiguousarray(array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array)
