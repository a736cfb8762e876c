"""How fast is an exported model, against the one that it was made of? Figure b2.

    python -m benchmarks.exported [--pairs 7] [--json FILE]

Part of `benchmarks.training`, too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.rig.measure import Figure, Machine, Target, interleaved, ratio, report
from pipeline.detections import Detections, Fit
from stages.detector import engines
from stages.detector.decode import Options, detections_from
from stages.imaging.scenes import still
from stages.training import models
from stages.training.candidates import candidates
from stages.training.export import export
from stages.training.models import ModelConfig

CONFIG = ModelConfig(
    architecture="ssdlite320_mobilenet_v3_large",
    classes=tuple(f"class {i}" for i in range(90)),  # as many as COCO's numbers
    width=320,
    height=320,
)
BATCH = 8
PASSING = 100  # candidates of a typical picture above the threshold, before NMS
CALLS = 3  # of one measurement
ENGINES = {"torchscript": "frozen TorchScript", "onnx": "ONNX Runtime"}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7, help="how often each side is measured")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args()
    machine = Machine()
    with tempfile.TemporaryDirectory(prefix="manyeyes-bench-") as name:
        report("exported", figures(Path(name), options.pairs), machine, options.json)


def figures(folder: Path, pairs: int) -> list[Figure]:
    """b2: pictures a second from canvases to detections, on the CPU with the same threads."""
    pixels = np.stack([still(12, i, (320, 320), objects=1 + i)[0] for i in range(BATCH)])
    pixels = np.ascontiguousarray(pixels[..., ::-1])  # (B, H, W, 3) RGB
    stock = Stock(pixels)
    ours = {format: Exported(stock.model, pixels, folder, format) for format in ENGINES}
    thresholds = {
        f"score ≥ {stock.model.score_thresh:g} as torchvision has it": stock.model.score_thresh,
        f"a score that {PASSING} boxes pass": stock.passed_by(PASSING),
    }
    rows = []
    for at, threshold in thresholds.items():
        wanted = stock.run(threshold)
        for format, exported in ours.items():
            check(format, wanted, exported.run(threshold))
        runs = {"stock": partial(_rate, stock.run, threshold)}
        runs |= {format: partial(_rate, o.run, threshold) for format, o in ours.items()}
        rates = interleaved(pairs, runs, progress="engines")
        rows += [
            ratio(
                "b2", f"{name} / torchvision's model(images), {at}",
                rates[format], rates["stock"],
                Target(sign="≥", limit=3) if format == "torchscript" else None,
                detail=f"{np.median(rates[format]):.1f}/s : {np.median(rates['stock']):.1f}/s",
            )
            for format, name in ENGINES.items()
        ]  # fmt: skip
    return rows


class Stock:
    """torchvision's own `model(images)`; it is handed float pictures that are ready."""

    def __init__(self, pixels: npt.NDArray[np.uint8]) -> None:
        self._planes = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        self._images = list(self._planes.float() / 255)
        self.model: Any = calibrated(self._images)

    def passed_by(self, count: int) -> float:
        """The score that so many candidates of the typical picture exceed."""
        with torch.inference_mode():
            _, scores, _ = candidates(self.model, CONFIG, count + 1)(self._planes)  # best first
        return float(scores[:, count].median())

    @torch.inference_mode()
    def run(self, threshold: float) -> list[Detections]:
        """The detections of the batch."""
        self.model.score_thresh = threshold
        return [
            Detections(
                found["boxes"].numpy(), found["scores"].numpy(),
                found["labels"].numpy().astype(np.int32) - 1,
            )
            for found in self.model(self._images)
        ]  # fmt: skip


class Exported:
    """The same model as a bundle in the engine that the pipeline uses, and the pipeline's postprocess."""

    def __init__(
        self, model: Any, pixels: npt.NDArray[np.uint8], folder: Path, format: str
    ) -> None:
        path = folder / f"{format}.bundle"
        self._facts = export(
            model, CONFIG, output=path, pictures=list(pixels[:2]), format=format, twin=False
        )
        self._engine = engines.load(
            str(path), self._facts, device="cpu", precision="fp32",
            threads=torch.get_num_threads(), max_batch=BATCH,
        )  # fmt: skip
        self._engine.warm_up((BATCH,))
        self._options = partial(
            Options, iou_threshold=model.nms_thresh, max_detections=model.detections_per_img
        )
        self._pixels = pixels
        self._fit = Fit(scale_x=1, scale_y=1, offset_x_px=0, offset_y_px=0)

    def run(self, threshold: float) -> list[Detections]:
        """The detections of the batch."""
        options, size = self._options(score_threshold=threshold), (CONFIG.width, CONFIG.height)
        return [
            detections_from(arrays, self._facts, self._fit, size, options)
            for arrays in self._engine.infer(self._pixels)
        ]


def calibrated(images: list[Tensor], seed: int = 0) -> nn.Module:
    """The model with random weights whose scores differ from picture to picture and box to box.

    In an untrained network activations die out, all scores tie, and NMS has nothing to do. So the batch
    norms get the statistics of the pictures, and the last layers are scaled until they spread.
    """
    torch.manual_seed(seed)
    model: Any = models.build(CONFIG).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over what it sees
            module.reset_running_stats()
            module.train()
    heads = [model.head.classification_head, model.head.regression_head]
    last = [block[-1] for head in heads for block in head.module_list]
    hooks = [layer.register_forward_hook(_spread) for layer in last]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    trained: nn.Module = model.eval()
    return trained


def _spread(layer: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    layer.weight /= output.std()


def check(format: str, wanted: list[Detections], found: list[Detections]) -> None:
    """The same detections, but for a few where two boxes compete by a difference of rounding."""
    missed = [_missing(a, b) + _missing(b, a) for a, b in zip(wanted, found, strict=True)]
    total = sum(len(detections.scores) for detections in wanted)
    if total < BATCH or sum(missed) > total / 100:
        raise RuntimeError(
            f"{format}: {sum(missed)} of {total} detections differ from torchvision's"
        )


def _missing(ours: Detections, theirs: Detections) -> int:
    away = np.abs(ours.xyxy[:, None] - theirs.xyxy[None]).max(axis=2, initial=0) < 0.1  # (N, M)
    close = np.abs(ours.scores[:, None] - theirs.scores[None]) < 1e-3
    same = ours.labels[:, None] == theirs.labels[None]
    return int((~(away & close & same).any(axis=1)).sum())


def _rate(run: Callable[[float], list[Detections]], threshold: float) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        run(threshold)
    return CALLS * BATCH / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
