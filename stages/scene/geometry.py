"""Points, polygons and lines in a picture. Pure; px, y down."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.detections import Floats

Points = npt.NDArray[np.float64]  # (N, 2)
Anchor = Literal["feet", "center"]


def anchors(xyxy: Floats, anchor: Anchor) -> Points:
    """Where objects are: the middle of the lower edge of their boxes (N, 4), or of the boxes."""
    boxes = xyxy.astype(np.float64)
    x = (boxes[:, 0] + boxes[:, 2]) / 2
    y = boxes[:, 3] if anchor == "feet" else (boxes[:, 1] + boxes[:, 3]) / 2
    return np.stack([x, y], axis=1)


def depth(
    polygon: Points, points: Points, is_border: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.float64]:
    """How deep points (N, 2) are inside a polygon (M, 2): distance to its border, outside negative.

    is_border: (M,), whether the edge that begins at a corner counts; None: all do. Where none does, it
    is infinite.
    """
    a, b = polygon, np.roll(polygon, -1, axis=0)
    edge = b - a  # (M, 2)
    to_point = points[:, None] - a[None]  # (N, M, 2)
    length = np.maximum((edge**2).sum(axis=1), 1e-12)
    along = np.clip((to_point * edge).sum(axis=2) / length, 0, 1)  # (N, M)
    distances = np.linalg.norm(to_point - along[..., None] * edge, axis=2)  # (N, M)
    if is_border is not None:
        distances = np.where(is_border, distances, np.inf)
    distance = distances.min(axis=1)
    deep: npt.NDArray[np.float64] = np.where(inside(polygon, points), distance, -distance)
    return deep


def inside(polygon: Points, points: Points) -> npt.NDArray[np.bool_]:
    """Whether points (N, 2) are in a polygon (M, 2), by the even-odd rule."""
    a, b = polygon, np.roll(polygon, -1, axis=0)
    y = points[:, 1, None]  # (N, 1)
    spans = (a[:, 1] <= y) != (b[:, 1] <= y)  # (N, M): a ray to the right may meet the edge
    rise = np.where(a[:, 1] == b[:, 1], 1.0, b[:, 1] - a[:, 1])
    x = a[:, 0] + (y - a[:, 1]) / rise * (b[:, 0] - a[:, 0])
    hits: npt.NDArray[np.bool_] = (spans & (points[:, 0, None] < x)).sum(axis=1) % 2 == 1
    return hits


def edges_in_picture(polygon: Points) -> npt.NDArray[np.bool_]:
    """Which edges of a relative polygon (M, 2) run through the picture, and not along its border."""
    following = np.roll(polygon, -1, axis=0)
    along = [(polygon == side) & (following == side) for side in (0.0, 1.0)]  # (M, 2) each
    runs: npt.NDArray[np.bool_] = ~(along[0] | along[1]).any(axis=1)
    return runs


def beside(line: Points, points: Points) -> tuple[Points, Points]:
    """Where points (N, 2) are as seen from a line (2, 2): how far to its right, and how far along.

    Right is right of who stands on the first end and looks at the second. Along is 0 at the first end,
    1 at the second, and goes on beyond both. Returns two arrays (N,).
    """
    way = line[1] - line[0]
    length = np.hypot(*way)
    offset = points - line[0]
    to_right = (way[0] * offset[:, 1] - way[1] * offset[:, 0]) / length
    return to_right, offset @ way / length**2


def crosses_itself(polygon: Points) -> bool:
    """Whether edges of a polygon (M, 2) meet anywhere but at their common corners."""
    n = len(polygon)
    edges = [(polygon[i], polygon[(i + 1) % n]) for i in range(n)]
    return any(
        _meet(*edges[i], *edges[j])
        for i in range(n)
        for j in range(i + 1, n)
        if j - i not in (1, n - 1)
    ) or any(_folds(polygon[i - 1], polygon[i], polygon[(i + 1) % n]) for i in range(n))


def area(polygon: Points) -> float:
    """Of a polygon that does not cross itself."""
    (x, y), (u, v) = polygon.T, np.roll(polygon, -1, axis=0).T
    return abs(float((x * v - y * u).sum())) / 2


def perimeter(polygon: Points) -> float:
    """Length of the border of a polygon (M, 2)."""
    return float(np.linalg.norm(np.roll(polygon, -1, axis=0) - polygon, axis=1).sum())


def _turn(a: Any, b: Any, c: Any) -> float:
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def _meet(a: Any, b: Any, c: Any, d: Any) -> bool:
    """Whether the segments ab and cd have a point in common."""
    if max(_turn(a, b, c) * _turn(a, b, d), _turn(c, d, a) * _turn(c, d, b)) > 0:
        return False
    low = np.maximum(np.minimum(a, b), np.minimum(c, d))  # of one line they may be, and apart
    return bool((low <= np.minimum(np.maximum(a, b), np.maximum(c, d))).all())


def _folds(a: Any, b: Any, c: Any) -> bool:
    """Whether the way from a over b to c goes back on itself."""
    return _turn(a, b, c) == 0 and float(np.dot(b - a, c - b)) < 0
