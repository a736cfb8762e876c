"""torchvision's detectors, scripted as its own pages say, and what the model itself finds."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.conditioned import conditioned
from benchmarks.peers.makers.comparing import MOST, SCORE, Made, Model
from benchmarks.stand_ins import COCO_ROWS, as_published
from pipeline.detections import Detections
from pipeline.messages import Image
from stages.detector import zoo

SHORT_PX, LONG_PX = 180, 320  # instead of 800 and 1333, which take minutes
_NEVER = -100.0  # a logit
_FIXED_PX = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}


def models(only: str) -> Iterator[Model]:
    """Every architecture of the list of models whose name contains `only`."""
    for entry in zoo.entries().values():
        name = entry.recipe.get("torchvision", "")
        if name and only in name:
            shape = None if name.startswith("ssd") else (16, 9)
            yield Model(name=name, make=partial(_make, name), shape_wh=shape)


def _make(name: str, folder: Path, frames: Sequence[Image]) -> Made:
    """A script of 91 rows, COCO's, of which an import takes the names."""
    import torch
    from torchvision.models import get_model

    sizes = {} if name.startswith("ssd") else {"min_size": SHORT_PX, "max_size": LONG_PX}
    model: Any = get_model(
        name, weights=None, weights_backbone=None, num_classes=COCO_ROWS, **sizes
    )
    model.load_state_dict(conditioned(as_published(name, LONG_PX)).state_dict())
    model.eval()
    if name.startswith(("fcos", "retinanet")):
        # their row 0 is never found, since nothing was labelled so
        with torch.no_grad():
            model.head.classification_head.cls_logits.bias.view(-1, COCO_ROWS)[:, 0] = _NEVER
    file = folder / f"{name}.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model).save(str(file))

    side = _FIXED_PX.get(name)
    canvas = (side, side) if side else (LONG_PX, SHORT_PX)

    @torch.no_grad()
    def found(rgb: Any) -> Detections:
        """Of floats (3, H, W)."""
        [answer] = model([rgb])
        sure = answer["scores"] > SCORE
        xyxy, scores, labels = (answer[key][sure].numpy() for key in ("boxes", "scores", "labels"))
        return Detections(xyxy[:MOST], scores[:MOST], (labels[:MOST] - 1).astype(np.int32))

    def rounded(frame: Image) -> Detections:
        """As `found`, of what its transform makes of a frame, rounded to the levels of a byte."""
        resized = torch.nn.functional.interpolate(
            _floats(frame)[None], canvas[::-1], mode="bilinear"
        )
        seen = found((resized[0] * 255).round() / 255)
        ratio = np.array(frame.shape[1::-1] * 2, np.float32) / np.array(canvas * 2, np.float32)
        return Detections(seen.xyxy * ratio, seen.scores, seen.labels)

    return Made(
        file=file,
        find=lambda frame: found(_floats(frame)),
        find_otherwise=rounded,
        exact_wh=canvas,
    )


def _floats(frame: Image) -> Any:
    import torch

    rgb = np.ascontiguousarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).transpose(2, 0, 1))
    return torch.from_numpy(rgb).float() / 255
