"""Ultralytics' models, exported by its own exporter, and what `YOLO(file).predict` finds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.peers.makers.comparing import MOST, NMS_IOU, SCORE, Made, Model
from pipeline.detections import Detections
from pipeline.messages import Image
from stages.detector import golden

SIZE_PX = 320
EXPORTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("yolov8n", "onnx", {}),
    ("yolov8n", "onnx", {"nms": True}),
    ("yolov8n", "torchscript", {}),
    ("yolov8n", "torchscript", {"nms": True}),
    ("yolov10n", "onnx", {}),
    ("yolo11n", "onnx", {}),
    ("yolo11n", "torchscript", {}),
    ("yolo12n", "onnx", {}),
    ("yolo12n", "torchscript", {}),
    ("yolo26n", "onnx", {}),
    ("yolo26n", "onnx", {"nms": False}),
    ("yolo26n", "torchscript", {}),
)


def models(only: str) -> Iterator[Model]:
    """Every export whose name contains `only`."""
    for name, form, more in EXPORTS:
        words = "".join(f"-{key}-{value}".lower() for key, value in more.items())
        full = f"{name}{words}.{form}"
        if only in full:
            yield Model(name=full, make=partial(_make, name, form, more, full))


def _make(
    name: str, form: str, more: dict[str, Any], full: str, folder: Path, frames: Sequence[Image]
) -> Made:
    """A file of Ultralytics' own exporter, of a model that finds something."""
    import torch
    from ultralytics import YOLO

    torch.manual_seed(1)
    model = YOLO(f"{name}.yaml")
    pictures = [
        *frames[::3],
        golden.picture(SIZE_PX, SIZE_PX),
        *golden.pattern(2, SIZE_PX, SIZE_PX),
    ]
    shown = [cv2.resize(picture, (SIZE_PX, SIZE_PX))[:, :, ::-1] for picture in pictures]
    stacked = np.stack(shown).transpose(0, 3, 1, 2)
    condition(model.model.eval(), torch.from_numpy(stacked.copy()).float() / 255)
    thresholds = {"conf": SCORE - 0.05, "iou": NMS_IOU} if more.get("nms") else {}
    written = model.export(format=form, imgsz=SIZE_PX, **more, **thresholds)
    file = Path(shutil.move(written, folder / full))
    theirs = YOLO(str(file), task="detect")

    def find(frame: Image) -> Detections:
        boxes = theirs.predict(
            frame, conf=SCORE, iou=NMS_IOU, imgsz=SIZE_PX, max_det=MOST, verbose=False
        )[0].boxes
        return Detections(
            boxes.xyxy.numpy(), boxes.conf.numpy(), boxes.cls.numpy().astype(np.int32)
        )

    return Made(file=file, find=find)


def condition(net: Any, pictures: Any) -> None:
    """Weights with which features depend on the picture, some scores are high, and boxes are small.

    Random ones give boxes larger than the picture, on which the order of clipping and NMS decides.
    """
    import torch

    norms = [layer for layer in net.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    head, answers = net.model[-1], []
    with torch.no_grad():
        net(pictures)
        net.eval()
        branches = [b for n in ("cv3", "one2one_cv3") if (b := getattr(head, n, None)) is not None]
        last = [scale[-1] for branch in branches for scale in branch]
        hooks = [
            layer.register_forward_hook(lambda layer, _, out: answers.append((layer, out)))
            for layer in last
        ]
        net(pictures)
        for hook in hooks:
            hook.remove()
        for layer, out in answers:
            gain = 1 / float(out.std() + 1e-6)
            high = torch.quantile(out.amax(dim=1).flatten(), 0.98)
            layer.weight.mul_(gain)
            layer.bias.copy_((layer.bias - high) * gain - 0.6)
        for name in ("cv2", "one2one_cv2"):
            for scale in getattr(head, name, None) or ():
                scale[-1].weight.mul_(0.2 if head.reg_max > 1 else 0.05)
                if head.reg_max > 1:
                    bins = torch.arange(head.reg_max).float()
                    scale[-1].bias.copy_((-0.5 * (bins - 1.5) ** 2).repeat(4))
                else:
                    scale[-1].bias.fill_(1.5)
