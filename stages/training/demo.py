"""The recipe of the carried demo model: render scenes, train the tiny detector, measure, export.

    python -m stages.training.demo -o stages/detector/demo.bundle

Everything follows from the seeds; about 16 minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console

from stages.detector.bundle import Defaults, ResizeFacts
from stages.imaging.scenes import still
from stages.imaging.shapes import CLASSES
from stages.training import datasets, models
from stages.training.datasets import DataSet
from stages.training.evaluate import Evaluation
from stages.training.export import export
from stages.training.plan import Plan
from stages.training.runs import train
from stages.training.train import TrainConfig
from stages.training.trained import Trained, load
from stages.training.transforms import AugmentConfig
from stages.training.validation import facts_of, validate

# cameras are 16:9 more often than not
SIZES_WH_PX = (*[(640, 360)] * 6, (480, 360), (320, 180), (320, 180), (352, 288))
SEEDS = {"train": 1, "val": 2, "test": 3}  # of `scenes.still`
COUNTS = {"train": 5000, "val": 300, "test": 500}


def plan(seed: int = 0) -> Plan:
    """What is trained, and how."""
    return Plan(
        model=models.demo(CLASSES),
        resize=ResizeFacts(interpolation="area"),
        train=TrainConfig(
            epochs=6,
            batch=16,
            optimizer="adamw",
            lr=2e-3,
            weight_decay=0.02,
            precision="bf16",  # 1.6 times as fast as fp32 on a CPU with such instructions
            evaluate_every=2,
            # scenes vary by themselves
            augment=AugmentConfig(photometric=0, iou_crop=0, zoom_out=0, mosaic=0),
            workers=1,
            seed=seed,
        ),
    )


def render(folder: Path, split: str, count: int) -> DataSet:
    """Write `count` scenes as JPEG files with COCO annotations under `folder`, and load them."""
    pictures = folder / split
    pictures.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        size = SIZES_WH_PX[index % len(SIZES_WH_PX)]
        image, truth = still(SEEDS[split], index, size)
        name = f"{split}/{index:05d}.jpg"
        cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        images.append({"id": index, "width": size[0], "height": size[1], "file_name": name})
        boxes: npt.NDArray[np.float32] = truth.xyxy
        for (x1, y1, x2, y2), label in zip(boxes.tolist(), truth.labels.tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": index, "category_id": label + 1,
                 "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            )  # fmt: skip
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
    file = folder / "annotations" / f"{split}.json"
    file.parent.mkdir(exist_ok=True)
    tree = {"images": images, "annotations": annotations, "categories": categories}
    file.write_text(json.dumps(tree))
    return datasets.load(folder, split=split)


def even_threshold(best: Trained, val: DataSet) -> Defaults:
    """The highest score threshold at which as much is missed as is falsely found.

    Who watches the demo sees both alike; the best F1 of a model that is sure of itself misses more.
    """
    thresholds, precision, recall = judge(best, best.defaults, val).overall.scored.curve()
    even = float(thresholds[int((recall >= precision).argmax())])
    return replace(best.defaults, score_threshold=math.floor(even * 1000) / 1000)


def judge(best: Trained, defaults: Defaults, data: DataSet) -> Evaluation:
    """The best weights on a data set."""
    facts = replace(facts_of(best.config, best.resize), defaults=defaults)
    return validate(best.model, best.config, facts, data, device=torch.device("cpu"))


def measure(best: Trained, defaults: Defaults, test: DataSet) -> dict[str, Any]:
    """What the best weights reach on `test` at the threshold in `defaults`."""
    judged = judge(best, defaults, test)
    at = judged.overall.chosen
    metrics = {
        "map": judged.coco["AP"],
        "map_50": judged.coco["AP50"],
        "precision": at.precision,
        "recall": at.recall,
        "per_class_ap50": {result.name: result.ap50 for result in judged.per_class},
        "score_threshold": at.threshold,
        "iou": judged.iou,
        "pictures": judged.pictures,
    }
    plain: dict[str, Any] = json.loads(
        json.dumps(metrics),
        parse_float=lambda number: round(float(number), 4),
        parse_constant=lambda _: None,  # the precision of a model that finds nothing is 0/0
    )
    return plain


def main() -> None:
    """Build the bundle; prints what it reaches on scenes that training never saw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the bundle to write")
    parser.add_argument("--keep", type=Path, help="folder for scenes and run; default: temporary")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --keep")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order; scenes stay")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        build(folder, options.output, options.seed, resume=options.resume)


def build(folder: Path, output: Path, seed: int = 0, *, resume: bool = False) -> dict[str, Any]:
    """Scenes and run go to `folder`, the bundle to `output`; returns its figures on test scenes."""
    console = Console()
    data = {}
    scenes = folder / "scenes"
    for split, count in COUNTS.items():
        console.print(f"{split}: {count} scenes")
        known = (scenes / "annotations" / f"{split}.json").exists()
        data[split] = datasets.load(scenes, split=split) if known else render(scenes, split, count)
    run = folder / "run"
    outcome = train(plan(seed), data["train"], data["val"], run, resume=resume, console=console)
    best = load(outcome.folder)
    defaults = even_threshold(best, data["val"])
    metrics = measure(best, defaults, data["test"])
    console.print(metrics)
    export(
        best.model,
        best.config,
        output=output,
        pictures=[datasets.read_image(sample) for sample in data["test"].samples[:8]],
        name="demo",
        resize=best.resize,
        defaults=defaults,
        provenance={
            "recipe": "python -m stages.training.demo",
            "seed": seed,
            "data": {split: f"sha256:{d.sha256}" for split, d in data.items()},
            "metrics": metrics,
            "licence": "Apache-2.0",
        },
        k=500,
    )
    console.print(f"{output}: {output.stat().st_size / 1e6:.2f} MB")
    return metrics


if __name__ == "__main__":
    main()
