"""Imported models against their makers' own inference code: box for box, on videos of yours.

    PYTHONPATH=. out/makers/bin/python -m benchmarks.peers.makers VIDEO… [--every 24] [--size 320] [--json]

Run by hand, in an environment of its own: Ultralytics' package is AGPL, and nothing here depends on it. Its
models are built from their descriptions, with random weights that are set so that some boxes have a score
above SCORE, exported by its own exporter, and imported here without an option. Both sides then see the same
frames: Ultralytics through `YOLO(file).predict`, we through what the pipeline calls.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.detections import Detections, iou_matrix
from pipeline.messages import Image
from stages.detector import golden
from stages.detector.decode import Options
from stages.detector.importing import import_model
from stages.training.predict import Predictor

SCORE, NMS_IOU = 0.3, 0.7  # the second is Ultralytics' own
EDGE = 0.002  # of a score: nearer to SCORE, rounding decides
SAME_IOU = 0.9  # from which two boxes are compared
LEAST_PX = 2.0  # a side, of a box that is compared
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


def main() -> None:
    """Export, import, compare, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--every", type=int, default=24, help="frames from one look to the next")
    parser.add_argument("--size", type=int, default=320, help="px, of the models' input")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args()
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_OFFLINE", "true")
    frames = [frame for video in options.videos for frame in seen(video, options.every)]
    with tempfile.TemporaryDirectory(prefix="manyeyes-makers-") as folder:
        os.environ.setdefault("YOLO_CONFIG_DIR", folder)
        for name, form, more in EXPORTS:
            file = exported(Path(folder), name, form, more, frames, options.size)
            row = {"export": file.name, **compared(file, frames, options.size)}
            print(
                json.dumps(row) if options.json else "  ".join(f"{k} {v}" for k, v in row.items())
            )


def seen(video: Path, every: int) -> list[Image]:
    """Every so many frames of a video, uint8 (H, W, 3) BGR."""
    capture: Any = cv2.VideoCapture(str(video))
    frames = []
    while capture.grab():
        if int(capture.get(cv2.CAP_PROP_POS_FRAMES)) % every == 1:
            frames.append(capture.retrieve()[1])
    return frames


def exported(
    folder: Path, name: str, form: str, more: dict[str, Any], frames: Sequence[Image], size: int
) -> Path:
    """A file of Ultralytics' own exporter, of a model that finds something."""
    import torch
    from ultralytics import YOLO

    torch.manual_seed(1)
    model = YOLO(f"{name}.yaml")
    pictures = [*frames[::3], golden.picture(size, size), *golden.pattern(2, size, size)]
    shown = [cv2.resize(picture, (size, size))[:, :, ::-1] for picture in pictures]
    stacked = np.stack(shown).transpose(0, 3, 1, 2)
    condition(model.model.eval(), torch.from_numpy(stacked.copy()).float() / 255)
    thresholds = {"conf": SCORE - 0.05, "iou": NMS_IOU} if more.get("nms") else {}
    written = model.export(format=form, imgsz=size, **more, **thresholds)
    words = "".join(f"-{key}-{value}".lower() for key, value in more.items())
    return Path(shutil.move(written, folder / f"{name}{words}.{form}"))


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


def compared(file: Path, frames: Sequence[Image], size: int) -> dict[str, Any]:
    """How many boxes the maker finds, and how ours differ."""
    from ultralytics import YOLO

    bundle = file.with_suffix(f"{file.suffix}.bundle")
    facts = import_model(str(file), str(bundle))
    wanted = Options(score_threshold=SCORE, iou_threshold=NMS_IOU, max_detections=300)
    ours = Predictor(bundle, options=wanted, device="cpu", precision="fp32")
    theirs = YOLO(str(file), task="detect")
    found = {"boxes": 0, "missed": 0, "extra": 0, "least_iou": 1.0, "score_off": 0.0}
    for frame in frames:
        boxes = theirs.predict(
            frame, conf=SCORE, iou=NMS_IOU, imgsz=size, max_det=300, verbose=False
        )[0].boxes
        their = Detections(
            boxes.xyxy.numpy(), boxes.conf.numpy(), boxes.cls.numpy().astype(np.int32)
        )
        count(found, ours([frame])[0], their)
    return {**found, "batches": facts.batch_sizes[-1]}


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
        off = np.abs(our.scores[near] - their.scores)[alike]
        found["least_iou"] = round(min(found["least_iou"], overlap.max(axis=0)[alike].min()), 4)
        found["score_off"] = round(max(found["score_off"], float(off.max(initial=0))), 5)


def _seen(found: Detections) -> Detections:
    return found[(found.xyxy[:, 2:] - found.xyxy[:, :2] > LEAST_PX).all(axis=1)]


if __name__ == "__main__":
    main()
