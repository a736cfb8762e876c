"""What a model of somebody else finds in its maker's hands and in ours, and how both differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.detections import Detections, iou_matrix
from pipeline.messages import Image
from stages.detector.decode import Options
from stages.detector.importing import import_model
from stages.training.predict import Predictor

SCORE, NMS_IOU, MOST = 0.3, 0.7, 300  # the second is Ultralytics' own
EDGE = 0.002  # of a score: nearer to SCORE, rounding decides
SAME_IOU = 0.9  # from which two boxes are compared
LEAST_PX = 2.0  # a side, of a box that is compared

Find = Callable[[Image], Detections]  # in BGR, above SCORE


@dataclass(frozen=True, kw_only=True)
class Made:
    """A model that was exported, and its maker's way to use it."""

    file: Path
    find: Find
    nms_iou: float = NMS_IOU
    find_otherwise: Find | None = None  # the maker's, too: its other code, or on whole grey levels
    exact_wh: tuple[int, int] | None = None  # its canvas, if it resizes floats: see `exact`


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that its maker can export."""

    name: str
    make: Callable[[Path, Sequence[Image]], Made]  # into a folder, after these frames
    shape_wh: tuple[int, int] | None = None  # to which frames are cut, since makers have no bars


def seen(video: Path, every: int) -> list[Image]:
    """Every so many frames of a video, uint8 (H, W, 3) BGR."""
    capture: Any = cv2.VideoCapture(str(video))
    frames = []
    while capture.grab():
        if int(capture.get(cv2.CAP_PROP_POS_FRAMES)) % every == 1:
            frames.append(capture.retrieve()[1])
    return frames


def compared(model: Model, folder: Path, frames: Sequence[Image]) -> dict[str, Any]:
    """How many boxes the maker finds in these frames, and how ours differ."""
    if model.shape_wh:
        frames = [cut(frame, model.shape_wh) for frame in frames]
    made = model.make(folder, frames)
    bundle = folder / "m.bundle"
    facts = import_model(str(made.file), str(bundle))
    wanted = Options(score_threshold=SCORE, iou_threshold=made.nms_iou, max_detections=MOST)
    ours = Predictor(bundle, options=wanted, device="cpu", precision="fp32")
    found = tally(lambda frame: ours([frame])[0], made.find, frames)
    if made.find_otherwise is not None:
        theirs = tally(made.find_otherwise, made.find, frames)
        found |= {f"{key}_by_its_maker": theirs[key] for key in ("missed", "extra")}
    if made.exact_wh is not None:
        same = [exact(frame, made.exact_wh) for frame in frames]
        alike = tally(lambda frame: ours([frame])[0], made.find, same)
        found |= {f"{key}_where_exact": value for key, value in alike.items()}
    return {**found, "batches": facts.batch_sizes[-1]}


def tally(one: Find, other: Find, frames: Sequence[Image]) -> dict[str, Any]:
    """What `one` misses of the boxes of `other`, and finds beside them."""
    found = {"boxes": 0, "missed": 0, "extra": 0, "least_iou": 1.0, "score_off": 0.0}
    for frame in frames:
        count(found, one(frame), other(frame))
    return found


def exact(frame: Image, shape_wh: tuple[int, int]) -> Image:
    """A frame of three times this size, which any linear resize brings to it without a fraction.

    Who resizes floats has levels between those of a byte, and other boxes for that alone; here both sides
    see the same pixels.
    """
    small = cv2.resize(frame, shape_wh, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small.repeat(3, axis=0).repeat(3, axis=1))


def cut(frame: Image, shape_wh: tuple[int, int]) -> Image:
    """The middle of a frame, in exactly this shape."""
    height, width = frame.shape[:2]
    common = math.gcd(*shape_wh)
    wide, high = shape_wh[0] // common, shape_wh[1] // common
    unit = min(width // wide, height // high)
    w, h = wide * unit, high * unit
    left, top = (width - w) // 2, (height - h) // 2
    return np.ascontiguousarray(frame[top : top + h, left : left + w])


def count(found: dict[str, Any], our: Detections, their: Detections) -> None:
    """Add what the boxes of a frame differ in; those in the bars leave none, or a sliver, in it."""
    our, their = _seen(our), _seen(their)
    overlap = iou_matrix(our.xyxy, their.xyxy)
    overlap[our.labels[:, None] != their.labels[None]] = 0
    for one, side, others in (("missed", 0, their), ("extra", 1, our)):
        best = overlap.max(axis=side, initial=0.0)
        sure = others.scores > SCORE + EDGE
        found[one] += int(((best < SAME_IOU) & sure).sum())
    found["boxes"] += len(their)
    if len(our) and len(their):
        near = overlap.argmax(axis=0)
        alike = overlap.max(axis=0) >= SAME_IOU
        least = overlap.max(axis=0)[alike].min(initial=1.0)
        off = np.abs(our.scores[near] - their.scores)[alike].max(initial=0.0)
        found["least_iou"] = round(min(found["least_iou"], float(least)), 4)
        found["score_off"] = round(max(found["score_off"], float(off)), 5)


def _seen(found: Detections) -> Detections:
    return found[(found.xyxy[:, 2:] - found.xyxy[:, :2] > LEAST_PX).all(axis=1)]
