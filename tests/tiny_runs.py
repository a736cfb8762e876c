"""A data set of a few drawn pictures, and a plan that trains on it in seconds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from stages.training import datasets, parallel
from stages.training.backbones import freeze_norms
from stages.training.batches import Pictures, Steps, loader
from stages.training.datasets import DataSet
from stages.training.models import ModelConfig
from stages.training.plan import Plan
from stages.training.runs import train
from stages.training.tiny import Pyramid
from stages.training.train import TrainConfig, new_state, train_one_epoch
from stages.training.transforms import Augment, AugmentConfig
from stages.training.validation import facts_of

CLASSES = ("disc", "bar")


def draw(folder: Path, split: str, count: int, seed: int = 0) -> DataSet:
    """`count` pictures of 80x64 px with discs and bars, as a COCO data set; the last has no object."""
    rng = np.random.default_rng([seed, len(split)])
    (folder / split).mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        image = rng.integers(60, 120, (64, 80, 3)).astype(np.uint8)
        for label in range(2 if index < count - 1 else 0):
            x, y, side = (
                int(v) for v in (label * 40 + rng.integers(2, 10), rng.integers(4, 30), 26)
            )
            if label == 0:
                cv2.circle(image, (x + 13, y + 13), 13, (40, 40, 230), cv2.FILLED)
            else:
                cv2.rectangle(image, (x, y), (x + 25, y + 25), (220, 60, 40), cv2.FILLED)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": index, "category_id": label + 1,
                 "bbox": [x, y, side, side], "area": side * side, "iscrowd": 0}
            )  # fmt: skip
        name = f"{split}/{index}.png"
        cv2.imwrite(str(folder / name), image)
        images.append({"id": index, "width": 80, "height": 64, "file_name": name})
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
    tree = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / f"{split}.json").write_text(json.dumps(tree))
    return datasets.load(folder, split=split)


def plan(**changes: Any) -> Plan:
    """fcos_tiny at 96x64; `changes` are fields of TrainConfig."""
    quick = {"epochs": 2, "batch": 4, "workers": 0, "optimizer": "adamw", "lr": 2e-3}
    config = TrainConfig(**{**quick, **changes})
    model = ModelConfig(architecture="fcos_tiny", classes=CLASSES, width=96, height=64)
    return Plan(model=model, train=config)


def retinanet() -> RetinaNet:
    """A small one with frozen norms: the loss of a picture does not depend on its batch mates."""
    torch.manual_seed(0)
    backbone = Pyramid()
    freeze_norms(backbone)
    anchors = AnchorGenerator(((16,), (32,), (48,)), ((1.0,),) * 3)
    return RetinaNet(backbone, len(CLASSES), min_size=64, max_size=96, anchor_generator=anchors)


def steps_of_retinanet(data: DataSet) -> None:
    """Seven epochs of the loop in this process or, under torchrun, this one's share of them."""
    made = plan(
        epochs=7, augment=AugmentConfig.off(), optimizer="sgd", lr=0.01, weight_decay=1e-4, ema=0.0,
        precision="fp32",  # or their sums would differ by more than 1e-4
    )  # fmt: skip
    facts = facts_of(made.model, made.resize)
    with parallel.group() as device:
        state = new_state(retinanet(), made.train, device)
        steps = Steps(len(data.samples), 4, seed=0, rank=parallel.rank(), world=parallel.world())
        augment = Augment(made.train.augment, facts.input, facts.resize)
        pictures = Pictures(data, augment, seed=0, cache_bytes=1 << 24)
        for steps.epoch in range(made.train.epochs):
            train_one_epoch(
                state,
                loader(pictures, steps, 0),
                made.train,
                total=21,
                device=device,
                label_offset=0,
                after_step=lambda state, losses: _tell(state.step, losses),
            )


def main() -> None:
    """Train as a process of its own: `tiny_runs.py KIND DATA RUN RESUME CHANGES`, steps on stdout."""
    kind, data, run, resume, changes = sys.argv[1:]
    torch.set_num_threads(1)
    sets = [datasets.load(Path(data), split=split) for split in ("train", "val")]
    if kind == "retinanet":
        steps_of_retinanet(sets[0])
        return
    made = plan(**json.loads(changes))
    train(made, sets[0], sets[1], Path(run), resume=resume == "resume", on_step=_tell)


def _tell(step: int, losses: dict[str, float]) -> None:
    if parallel.rank() == 0:
        print("step", step, json.dumps(losses), flush=True)


if __name__ == "__main__":
    main()
