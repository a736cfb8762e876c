"""Detections: the one value type for boxes, and Fit: the way from model pixels back to the frame.

All of it is pure: nothing waits, and nothing is raised but where it is said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]
TrackIds = npt.NDArray[np.int64]
_FLOAT32, _INT32, _INT64 = np.dtype(np.float32), np.dtype(np.int32), np.dtype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What was found in one frame: parallel arrays of one length N, in any order.

    xyxy: float32 (N, 4), left, top, right, bottom in pixels of the *source* frame, edge coordinates
        (the whole frame is 0, 0, width, height); finite, x1 <= x2, y1 <= y2.
    scores: float32 (N,), finite; 0..1 for all our models.
    labels: int32 (N,), 0-based index into the model's class list.
    track_ids: int64 (N,), -1: of no object (yet); or None where nothing tracks.

    Checked once, on construction; raises ValueError that says what was wanted and what was found.

    >>> found = Detections(np.float32([[0, 0, 4, 2]]), np.float32([0.9]), np.int32([1]))
    >>> len(found), len(found[found.scores > 0.95])
    (1, 0)
    """

    xyxy: Floats
    scores: Floats
    labels: Labels
    track_ids: TrackIds | None = None

    def __post_init__(self) -> None:
        n = len(self.scores) if isinstance(self.scores, np.ndarray) and self.scores.ndim else 0
        _check("xyxy", self.xyxy, _FLOAT32, (n, 4))
        _check("scores", self.scores, _FLOAT32, (n,))
        _check("labels", self.labels, _INT32, (n,))
        if self.track_ids is not None:
            _check("track_ids", self.track_ids, _INT64, (n,))
        if n == 0:
            return
        if not (np.isfinite(self.xyxy).all() and np.isfinite(self.scores).all()):
            raise ValueError("Detections: boxes and scores must be finite, got nan or infinity")
        if (self.xyxy[:, 2:] < self.xyxy[:, :2]).any():
            raise ValueError("Detections: boxes must have x1 <= x2 and y1 <= y2")

    @classmethod
    def empty(cls) -> Detections:
        """Nothing was found."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: npt.NDArray[Any] | slice) -> Detections:
        """The same detections, chosen by a boolean mask (N,), an index array or a slice.

        Arrays are views where numpy gives views. Raises IndexError for an index that is not there.
        """
        tracks = None if self.track_ids is None else self.track_ids[index]
        return Detections(self.xyxy[index], self.scores[index], self.labels[index], tracks)

    def scaled(self, x: float, y: float) -> Detections:
        """The same detections in a picture that is x times as wide and y times as high; x, y > 0.

        New memory for the boxes alone. Raises ValueError where the boxes would not be finite.
        """
        xyxy = self.xyxy * np.array([x, y, x, y], np.float32)
        return Detections(xyxy, self.scores, self.labels, self.track_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A source picture inside a model's input: input_px = source_px * scale + offset_px.

    Edge coordinates, x and y apart, so that stretching is a Fit, too.
    """

    scale_x: float  # input px to a px of the source
    scale_y: float  # the same of the other side
    offset_x_px: float = 0.0
    offset_y_px: float = 0.0

    def to_source(self, xyxy: Floats, size_wh_px: tuple[int, int]) -> Floats:
        """Boxes of the model's input as boxes of the source picture, clipped to it.

        xyxy: float32 (N, 4) in input pixels; size_wh_px: (width, height) of the source picture.
        Returns float32 (N, 4), new memory. Raises nothing for finite boxes.
        """
        offset = np.array([self.offset_x_px, self.offset_y_px] * 2, np.float32)  # (4,)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)  # (4,)
        limit = np.array([*size_wh_px, *size_wh_px], np.float32)  # (4,)
        source: Floats = np.clip((xyxy - offset) / scale, 0, limit).astype(np.float32, copy=False)
        return source

    def after(self, x: float, y: float) -> Fit:
        """Of a source that was made x times as wide and y times as high before it came here.

        >>> Fit(scale_x=0.5, scale_y=0.5, offset_y_px=8).after(0.25, 0.25)
        Fit(scale_x=0.125, scale_y=0.125, offset_x_px=0.0, offset_y_px=8)
        """
        if x == y == 1:
            return self
        return replace(self, scale_x=self.scale_x * x, scale_y=self.scale_y * y)

    def to_input(self, xyxy: Floats) -> Floats:
        """Boxes of the source picture as boxes of the model's input; float32 (N, 4), new memory."""
        offset = np.array([self.offset_x_px, self.offset_y_px] * 2, np.float32)  # (4,)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)  # (4,)
        return xyxy * scale + offset


def iou_matrix(a: Floats, b: Floats) -> Floats:
    """Intersection over union of boxes (N, 4) with boxes (M, 4), xyxy: (N, M); 0 without any area."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])  # (N, M, 2)
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.prod(np.maximum(high - low, 0), axis=2)
    area_a, area_b = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b))
    union = area_a[:, None] + area_b[None] - inter
    iou: Floats = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return iou


def _check(
    name: str, array: npt.NDArray[Any], dtype: np.dtype[Any], shape: tuple[int, ...]
) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
        got = (
            f"{array.dtype} {array.shape}"
            if isinstance(array, np.ndarray)
            else type(array).__name__
        )
        raise ValueError(f"Detections.{name}: must be {dtype} {shape}, got {got}")
