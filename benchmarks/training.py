"""How fast do we train, and how fast is what training exports? Figures t1 and b2.

    python -m benchmarks.training [--pairs 7] [--only loop,engine] [--json FILE]

The loop is `stages.training.runs.train` as `manyeyes train` calls it, with its defaults. It is held in
its own callback after the last step of each epoch while its rivals have their turns; so a turn is all
that lies between two such calls: the checkpoint, the journal, decoding, augmentation and the steps.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from benchmarks import exported
from benchmarks.peers.references import Reference, collate
from benchmarks.rig.measure import Figure, Machine, Target, interleaved, ratio, report
from stages.imaging.scenes import CLASSES, still
from stages.training import datasets, models, runs, settings
from stages.training.datasets import DataSet
from stages.training.plan import Plan
from stages.training.train import Losses

ARCHITECTURE, SIZE_WH_PX = "ssdlite320_mobilenet_v3_large", (320, 320)
STILLS, STILL_WH_PX = 64, (640, 480)  # an epoch; a usual size of COCO's pictures
BATCH, WORKERS = 8, 1
LR, WEIGHT_DECAY = 1e-3, 1e-4  # slow: the weights are random, and the reference does not clip
PARTS = ("loop", "engine")
VARIANTS = {  # what is measured: how it differs from the defaults, as `manyeyes train --set` says it
    "training, pictures/s / torchvision's reference loop": (),
    "the same, no picture kept in memory": ("cache_mb=0",),
    "the same, nor any augmentation that the reference has not": (
        "cache_mb=0", "augment.mosaic=0", "augment.zoom_out=0", "augment.photometric=0",
    ),
}  # fmt: skip


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7, help="how often each side is measured")
    parser.add_argument("--only", default=",".join(PARTS), help="loop, engine")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if not set(chosen) <= set(PARTS):
        parser.error(f"--only: wanted some of {', '.join(PARTS)}, got {options.only}")
    machine = Machine()
    found: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="manyeyes-bench-") as name:
        if "engine" in chosen:
            found += exported.figures(Path(name), options.pairs)
        if "loop" in chosen:
            found += figures(Path(name), options.pairs)
    report("training", found, machine, options.json)


def figures(folder: Path, pairs: int) -> list[Figure]:
    """t1: epochs of our loop and of torchvision's in turns."""
    annotations = render(folder / "stills")
    data = datasets.load(folder / "stills", split="train")
    plans = {what: plan(data, pairs + 2, changes) for what, changes in VARIANTS.items()}
    reference = rival(folder, annotations, next(iter(plans.values())))
    check(reference, data, next(iter(plans.values())))
    ours = [Ours(p, data, folder / f"run-{i}") for i, p in enumerate(plans.values())]
    try:
        epochs = dict(zip(VARIANTS, (partial(_rate, run.epoch) for run in ours), strict=True))
        rates = interleaved(
            pairs, {**epochs, "reference": partial(_rate, reference.epoch)}, progress="training"
        )
    finally:
        for run in ours:
            run.close()
    theirs = rates.pop("reference")
    target = Target(sign="≥", limit=1)
    return [
        ratio(
            "t1", what, rates[what], theirs, None if VARIANTS[what] else target,
            detail=f"{_median(rates[what])} : {_median(theirs)}",
        )
        for what in rates
    ]  # fmt: skip


def render(folder: Path) -> Path:
    """Write the stills as JPEG files with COCO annotations; returns the annotation file."""
    (folder / "train").mkdir(parents=True)
    (width, height), images, annotations = STILL_WH_PX, [], []
    stills = (still(11, i, STILL_WH_PX, objects=1 + i % 8) for i in itertools.count())
    # the reference leaves out pictures without objects
    shown = ((image, truth) for image, truth in stills if len(truth.labels))
    for index, (image, truth) in enumerate(itertools.islice(shown, STILLS)):
        name = f"train/{index:05d}.jpg"
        cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        images.append({"id": index, "width": width, "height": height, "file_name": name})
        for (x1, y1, x2, y2), label in zip(truth.xyxy.tolist(), truth.labels.tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": index, "category_id": label + 1,
                 "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            )  # fmt: skip
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
    file = folder / "annotations" / "train.json"
    file.parent.mkdir()
    tree = {"images": images, "annotations": annotations, "categories": categories}
    file.write_text(json.dumps(tree))
    return file


def plan(data: DataSet, epochs: int, changes: Sequence[str]) -> Plan:
    """What `manyeyes train` would do with these options; it validates at its end, which never comes."""
    return settings.plan(
        data, architecture=ARCHITECTURE, size_wh_px=SIZE_WH_PX,
        train={"epochs": epochs, "batch": BATCH, "workers": WORKERS, "lr": LR,
               "weight_decay": WEIGHT_DECAY, "precision": "fp32", "evaluate_every": epochs,
               "plain_epochs": 0.0},  # every epoch is one of the many with mosaics
        changes=changes,
    )  # fmt: skip


def rival(folder: Path, annotations: Path, plan: Plan) -> Reference:
    """The reference loop for the same model, with the weights that a run of ours begins with."""
    torch.manual_seed(plan.train.seed)
    model = ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=len(CLASSES) + 1
    )
    return Reference(
        model, folder / "stills", annotations, batch=BATCH, workers=WORKERS, lr=LR,
        weight_decay=WEIGHT_DECAY, checkpoint=folder / "reference.pt",
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
    )  # fmt: skip


def check(reference: Reference, data: DataSet, plan: Plan) -> None:
    """Both sides learn the same from the same: pictures, boxes, weights, losses, gradients."""
    if len(reference.data) != len(data.samples):
        raise RuntimeError(f"{len(reference.data)} pictures of {len(data.samples)}")
    stored = reference.data._dataset.coco  # the boxes as pycocotools read them
    for sample in data.samples:
        rows = stored.imgToAnns[sample.image_id]
        boxes = np.array([row["bbox"] for row in rows], np.float32)
        boxes[:, 2:] += boxes[:, :2]
        if not np.allclose(boxes, sample.xyxy, atol=0.1):
            raise RuntimeError(f"{sample.path}: the two loops read different boxes")
    torch.manual_seed(plan.train.seed)
    sides = [models.build(plan.model), copy.deepcopy(reference.model).cpu().train()]
    images, targets = collate([reference.data[i] for i in range(2)])
    canvas = [torch.nn.functional.interpolate(image[None], SIZE_WH_PX)[0] for image in images]
    truth = [
        {
            "boxes": target["boxes"] * (SIZE_WH_PX[0] / torch.tensor(image.shape[:0:-1]).repeat(2)),
            "labels": target["labels"],
        }
        for image, target in zip(images, targets, strict=True)
    ]
    found = [sum(model(canvas, truth).values()) for model in sides]
    for loss in found:
        loss.backward()
    norms = [torch.nn.utils.get_total_norm([p.grad for p in m.parameters()]) for m in sides]
    if not (torch.allclose(*found, rtol=1e-3) and torch.allclose(*norms, rtol=1e-2)):
        raise RuntimeError(f"the two models differ: losses {found}, gradients {norms}")


class Ours:
    """A run in a thread of its own that goes on by one epoch whenever it is told to."""

    def __init__(self, plan: Plan, data: DataSet, folder: Path) -> None:
        self._steps = -(-len(data.samples) // plan.train.batch)
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="training")
        self._run = self._thread.submit(self._train, plan, data, folder)
        self._run.add_done_callback(lambda _: self._done.release())

    def epoch(self) -> int:
        """One epoch with the checkpoint of the one before; returns its pictures."""
        self._go.release()
        self._done.acquire()
        if self._run.done():
            self._run.result()  # raises what ended it
            raise RuntimeError("the run came to its end before the measurement did")
        return STILLS

    def close(self) -> None:
        """End the run where it is held."""
        self._closed = True
        self._go.release()
        self._thread.shutdown()

    def _train(self, plan: Plan, data: DataSet, folder: Path) -> None:
        def hold(step: int, losses: Losses) -> None:
            if step % self._steps == 0:
                self._done.release()
                self._wait()

        with open(os.devnull, "w") as nowhere:  # the bar is drawn, and nobody sees it
            self._wait()
            console = Console(file=nowhere, force_terminal=True)
            runs.train(plan, data, data, folder, console=console, on_step=hold)

    def _wait(self) -> None:
        self._go.acquire()
        if self._closed:
            raise InterruptedError("closed")


def _rate(epoch: Callable[[], int]) -> float:
    start = time.perf_counter()
    return epoch() / (time.perf_counter() - start)


def _median(rates: Sequence[float]) -> str:
    return f"{np.median(rates):.1f}/s"


if __name__ == "__main__":
    main()
