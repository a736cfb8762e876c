"""What `train` says before it begins: which network, from what, on what, and what it will not learn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from stages.training.datasets import DataSet
from stages.training.plan import Plan


def sentences(plan: Plan, training: DataSet, validation: DataSet) -> list[str]:
    """Lines for a person; the first says what is trained, others what to be aware of.

    Raises ConfigError where nothing would be left to learn from.
    """
    model = plan.model
    config = plan.settled(len(training.samples), len(validation.samples)).train
    network = f"{model.architecture} on {model.backbone}" if model.backbone else model.architecture
    start = plan.weights if plan.weights != "none" else plan.backbone_weights or "random weights"
    parts = f" in parts of {config.part_px} px" if config.part_px else ""
    lines = [
        f"{network} from {start}, {len(model.classes)} class(es), canvas {model.width}x{model.height} px"
        f"{parts}; "
        f"{len(training.samples)} pictures, validated on {len(validation.samples)}; "
        f"up to {config.epochs} epochs in batches of {config.batch}, {config.optimizer}"
    ]
    sides = shorter_sides_px(training, plan)
    least = config.augment.min_box_px
    small = int((sides < least).sum())
    if small and small == len(sides):
        raise ConfigError(
            f"train: all {small} boxes are less than {least:g} px wide or high on the canvas of "
            f"{model.width}x{model.height} px, nothing would be learnt; take a larger --size, or --tiles"
        )
    if small:
        lines.append(
            f"{small} of {len(sides)} boxes are less than {least:g} px wide or high on this canvas and are "
            "not learnt from; a larger --size, or --tiles, would hold them"
        )
    if not any(len(sample.labels) for sample in validation.samples):
        lines.append(
            "validation has nothing to find, so no figure says which weights are best; the last are kept"
        )
    held = [int(flag.sum()) for flag in (_flags(training, "crowd"), _flags(training, "difficult"))]
    if any(held):
        lines.append(f"{held[0]} boxes of crowds and {held[1]} difficult ones are not learnt from")
    return lines


def shorter_sides_px(dataset: DataSet, plan: Plan) -> npt.NDArray[np.float32]:
    """The shorter side of each box that could be learnt from, on the canvas: float32 (N,) px."""
    sides = [np.zeros(0, np.float32)]
    for sample in dataset.samples:
        scale = np.array([plan.model.width / sample.width, plan.model.height / sample.height])
        if plan.resize.mode == "letterbox":
            scale[:] = scale.min()
        boxes = sample.xyxy[~(sample.crowd | sample.difficult)]
        wh = (boxes[:, 2:] - boxes[:, :2]) * scale  # (N, 2)
        sides.append(wh.min(axis=1, initial=np.inf).astype(np.float32))
    return np.concatenate(sides)


def _flags(dataset: DataSet, name: str) -> npt.NDArray[np.bool_]:
    return np.concatenate([np.zeros(0, bool), *(getattr(s, name) for s in dataset.samples)])
