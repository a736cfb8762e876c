"""PicoDet in the hands of PaddleDetection: its own steps before and after a network of that form.

PADDLEDETECTION is the folder of a clone; its two files that are used need no Paddle, which could not have
written ONNX without it either: the network here is a small one with PicoDet's eight outputs.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.peers.makers.comparing import MOST, NMS_IOU, SCORE, Made, Model
from pipeline.detections import Detections
from pipeline.messages import Image

SIDE_PX, STRIDES_PX, CLASSES, BINS = 416, (8, 16, 32, 64), 80, 8
_STEPS = [  # as configs/picodet/_base_/picodet_416_reader.yml has them
    {"type": "Resize", "target_size": [SIDE_PX, SIDE_PX], "keep_ratio": False, "interp": 2},
    {
        "type": "NormalizeImage",
        "is_scale": True,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
    {"type": "Permute"},
]
_SURE_SHARE = 0.0002  # of all scores that are to be above SCORE


def models(only: str) -> Iterator[Model]:
    """The one that is published without its own end."""
    if only in "picodet":
        yield Model(name="picodet", make=_make)


def _make(folder: Path, frames: Sequence[Image]) -> Made:
    import onnxruntime
    import torch

    deploy = Path(os.environ["PADDLEDETECTION"]) / "deploy"
    sys.path[:0] = [str(deploy / "third_engine" / "onnx"), str(deploy / "python")]
    steps = importlib.import_module("preprocess").Compose(_STEPS)
    after = importlib.import_module("picodet_postprocess").PicoDetPostProcess
    picture = folder / "frame.png"

    def before(frame: Image) -> dict[str, Any]:
        cv2.imwrite(str(picture), frame)
        return dict(steps(str(picture)))

    network = _network(torch.from_numpy(np.stack([before(f)["image"] for f in frames[::3]])))
    file = folder / "picodet.onnx"
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, SIDE_PX, SIDE_PX),),
        str(file),
        dynamo=False,
        input_names=["image"],
    )
    session = onnxruntime.InferenceSession(str(file))

    def find(frame: Image) -> Detections:
        seen = before(frame)
        tables = session.run(None, {"image": seen["image"][None].astype(np.float32)})
        decoded = after(
            (SIDE_PX, SIDE_PX),
            seen["im_shape"][None],
            seen["scale_factor"][None],
            strides=STRIDES_PX,
            score_threshold=SCORE,
            nms_threshold=NMS_IOU,
        )
        rows, _ = decoded(tables[: len(STRIDES_PX)], tables[len(STRIDES_PX) :])
        rows = rows.reshape(-1, 6).astype(np.float32)  # label, score, box
        rows = rows[np.argsort(-rows[:, 1], kind="stable")[:MOST]]
        return Detections(rows[:, 2:], rows[:, 1], rows[:, 0].astype(np.int32))

    return Made(file=file, find=find)


def _network(pictures: Any) -> Any:
    """Random features of every stride, spread so that some scores are high and boxes of a few strides."""
    import torch

    torch.manual_seed(1)
    stem = torch.nn.Conv2d(3, 32, 8, stride=8)
    heads = torch.nn.ModuleList(
        torch.nn.Conv2d(32, CLASSES + 4 * BINS, 3, padding=1) for _ in STRIDES_PX
    )
    bump = -0.5 * (torch.arange(BINS) - 2.0) ** 2  # around two strides to a side

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.heads = stem, heads

        def forward(self, image: Any) -> tuple[Any, ...]:
            features = self.stem(image).tanh()
            levels = []
            for head, stride in zip(self.heads, STRIDES_PX, strict=True):
                size = -(-SIDE_PX // stride)
                seen = torch.nn.functional.interpolate(features, (size, size), mode="bilinear")
                levels.append(head(seen).flatten(2).transpose(1, 2))
            scores = [level[..., :CLASSES].sigmoid() for level in levels]
            return *scores, *(level[..., CLASSES:] for level in levels)

    network = Network().eval()
    with torch.no_grad():
        features = stem(pictures).tanh()
        for head in heads:
            out = head(features)
            head.weight.mul_(1.5 / out.std(dim=(0, 2, 3))[:, None, None, None])
            out = head(features)
            head.bias.sub_(out.mean(dim=(0, 2, 3)))
            logits = head(features)[:, :CLASSES].flatten()[::7]
            head.bias[:CLASSES] -= logits.quantile(1 - _SURE_SHARE) + 0.85
            head.bias[CLASSES:] += bump.repeat(4)
    return network
