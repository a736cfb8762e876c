"""Three well-known detectors as bundles, and how fast each is: α and β, and against torchvision (b2).

ssdlite320, ssd300 and Faster R-CNN of torchvision with 90 classes. Their weights are random, but made so
that they carry signal and noise as trained ones do (conditioned.py): scores differ from picture to
picture and NMS has work. Exported by `stages.training.export`, whose parity gate they pass.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.conditioned import conditioned, scenes
from benchmarks.exported import check
from benchmarks.rig.measure import MIN_PAIRS, Figure, interleaved, median, ratio
from pipeline.detections import Detections, Fit
from pipeline.errors import ConfigError
from pipeline.hop.pool import PoolReader, PoolWriter, pool_bytes
from pipeline.hop.slots import Slots
from pipeline.host import memory
from pipeline.host.speed import fit
from pipeline.messages import ArraySpec, SlotRef
from stages.detector import archive, engines
from stages.detector.bundle import Facts
from stages.detector.decode import Options, detections_from
from stages.imaging.letterbox import prepare
from stages.training.export import export
from stages.training.models import ModelConfig

ARCHITECTURES = {  # and the canvas, width × height in px
    "ssdlite320": ("ssdlite320_mobilenet_v3_large", (320, 320)),
    "ssd300": ("ssd300_vgg16", (300, 300)),
    "fasterrcnn": ("fasterrcnn_resnet50_fpn", (800, 448)),
}
CLASSES = tuple(f"class {i}" for i in range(90))  # as many as COCO's numbers
BATCHES = (1, 2, 4, 8, 16, 32, 64)
CHECKED = 4  # pictures whose detections are compared with torchvision's
PASSING = 100  # candidates of a picture above the threshold, about
ROUND_S = 0.3  # of one batch size, at least
Image = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A model, its bundle, and pictures for both."""

    name: str
    model: Any  # torchvision's own, eval mode, on the CPU
    path: Path
    facts: Facts
    pictures: Image  # uint8 (n, H, W, 3) RGB, letterboxed
    threshold: float  # that PASSING candidates of a typical picture pass


def make(name: str, folder: Path, batches: Sequence[int] = BATCHES) -> Detector:
    """Build and export one of ARCHITECTURES, once for each folder. Takes from seconds to a minute."""
    architecture, (width, height) = ARCHITECTURES[name]
    config = ModelConfig(architecture=architecture, classes=CLASSES, width=width, height=height)
    model: Any = conditioned(config, proposals=None)
    path = folder / f"{name}.bundle"
    facts = export(model, config, output=path, pictures=scenes(2), twin=False)
    facts = dataclasses.replace(facts, batch_sizes=tuple(batches))
    part = path.with_suffix(".part")
    archive.write_text(path, part, facts.to_json())
    os.replace(part, path)
    drawn = [prepare(scene, facts.input, facts.resize)[0] for scene in scenes(8)]
    pictures = np.stack([drawn[i % len(drawn)] for i in range(max(CHECKED, *batches))])
    engine = engines.load(str(path), facts, device="cpu", precision="fp32", max_batch=1)
    scores = np.sort(engine.infer(pictures[:1])[0][1])[::-1]  # candidates: boxes, scores, labels
    threshold = max(float(scores[min(PASSING, len(scores) - 1)]), 0.01)
    return Detector(
        name=name, model=model, path=path, facts=facts, pictures=pictures, threshold=threshold
    )


# -- α and β ---------------------------------------------------------------------------------------


def speeds(detector: Detector, device: str, precision: str, *, graphs: bool) -> list[Figure]:
    """α and β of S(b) = α + βb, from slots to arrays on the host; empty if there is no such graph."""
    try:
        engine = load(detector, device, precision, graphs=graphs)
    except ConfigError as error:
        if not graphs:
            raise
        print(f"{detector.name}: {error}")
        return []
    sizes = detector.facts.batch_sizes
    laws, rounds = [], []
    with in_slots(detector.pictures[: max(sizes)]) as pictures:
        for _ in range(MIN_PAIRS):
            seconds = {b: seconds_of(partial(engine.infer_pictures, pictures[:b])) for b in sizes}
            laws.append(fit(seconds))
            rounds.append(seconds)
    typical = {b: float(np.median([s[b] for s in rounds])) for b in sizes}
    best = max(sizes, key=lambda b: b / typical[b])
    law = ", ".join(f"{b}: {s * 1e3:.2f}" for b, s in typical.items())
    how = f"{detector.name} {precision}{', CUDA graphs' if graphs else ''}"
    return [
        median("α", f"{how}, ms", [1e3 * alpha for alpha, _ in laws], detail=f"S(b) in ms: {law}"),
        median(
            "β", f"{how}, ms a picture", [1e3 * beta for _, beta in laws],
            detail=f"{best / typical[best]:.0f} pictures/s in batches of {best}",
        ),
    ]  # fmt: skip


def load(detector: Detector, device: str, precision: str, *, graphs: bool = False) -> Any:
    """The engine of the pipeline, every batch size warm."""
    engine = engines.load(
        str(detector.path), detector.facts, device=device, precision=precision,
        threads=torch.get_num_threads(), cuda_graphs=graphs,
    )  # fmt: skip
    engine.warm_up(detector.facts.batch_sizes)
    return engine


class in_slots:  # noqa: N801  (read as `with in_slots(pictures)`)
    """The pictures as inference gets them: read-only views of a sealed pool in shared memory."""

    def __init__(self, pictures: Image) -> None:
        n, size = len(pictures), pictures[0].nbytes
        self._fd = memory.create("bench", pool_bytes(n, size))
        writer = PoolWriter(self._fd, n, size)
        memory.seal(self._fd)
        reader, slots = PoolReader(self._fd, n, size), Slots(writer.generations)
        spec = ArraySpec(dtype="|u1", shape=pictures[0].shape, offset=0)
        self._views = []
        for picture in pictures:
            slot = slots.take()
            assert slot is not None
            writer.slot(slot)[:] = picture.reshape(-1)
            ref = SlotRef(pool_epoch=1, slot=slot, generation=slots.ready(slot, {"bench"}))
            self._views += reader.arrays(ref, [spec])

    def __enter__(self) -> list[Image]:
        return self._views

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def seconds_of(call: Callable[[], object]) -> float:
    """Median of as many calls as fit into ROUND_S, three at least."""
    durations: list[float] = []
    while len(durations) < 3 or sum(durations) < ROUND_S:
        start = time.perf_counter()
        call()
        durations.append(time.perf_counter() - start)
    return float(np.median(durations))


# -- against torchvision ---------------------------------------------------------------------------


def against_stock(detector: Detector, device: str, precision: str, batch: int) -> Figure:
    """b2: pictures a second from uint8 in slots to detections, against `model(images)`.

    Stock is handed float pictures that lie on the device. Both in the same process, in turns, after
    the same detections were found (in fp32; fp16 may move a score by 5e-3).
    """
    stock = Stock(detector, device, batch)
    exact = Ours(detector, device, "fp32", CHECKED)
    check(detector.name, stock.run(CHECKED), exact.run(CHECKED))
    ours = Ours(detector, device, precision, batch)
    rates = interleaved(
        MIN_PAIRS,
        {
            "ours": lambda: batch / seconds_of(partial(ours.run, batch)),
            "stock": lambda: batch / seconds_of(partial(stock.run, batch)),
        },
        progress=detector.name,
    )
    how = f"{detector.name} {precision} + postprocess"
    return ratio(
        "b2", f"{how} / torchvision's model(images), batches of {batch}",
        rates["ours"], rates["stock"],
        detail=f"{np.median(rates['ours']):.1f}/s : {np.median(rates['stock']):.1f}/s",
    )  # fmt: skip


class Stock:
    """torchvision's own detector on the device."""

    def __init__(self, detector: Detector, device: str, batch: int) -> None:
        self._model = detector.model.to(device)
        self._roi = getattr(self._model, "roi_heads", self._model)
        self._roi.score_thresh = detector.threshold
        planes = torch.from_numpy(detector.pictures[: max(batch, CHECKED)]).to(device)
        self._images = list(planes.permute(0, 3, 1, 2).float() / 255)

    @torch.inference_mode()
    def run(self, n: int) -> list[Detections]:
        """The detections of the first n pictures, on the host."""
        return [
            Detections(
                found["boxes"].cpu().numpy(), found["scores"].cpu().numpy(),
                found["labels"].cpu().numpy().astype(np.int32) - 1,
            )
            for found in self._model(self._images[:n])
        ]  # fmt: skip


class Ours:
    """The bundle in the engine of the pipeline, and the pipeline's postprocess."""

    def __init__(self, detector: Detector, device: str, precision: str, batch: int) -> None:
        facts, model = detector.facts, detector.model
        roi = getattr(model, "roi_heads", model)
        self._facts, self._size = facts, (facts.input.width, facts.input.height)
        self._engine = load(detector, device, precision)
        self._options = Options(
            score_threshold=detector.threshold, iou_threshold=roi.nms_thresh,
            max_detections=roi.detections_per_img,
        )  # fmt: skip
        self._pictures = list(detector.pictures[:batch])
        self._fit = Fit(scale_x=1, scale_y=1, offset_x_px=0, offset_y_px=0)

    def run(self, n: int) -> list[Detections]:
        """The detections of the first n pictures."""
        return [
            detections_from(arrays, self._facts, self._fit, self._size, self._options)
            for arrays in self._engine.infer_pictures(self._pictures[:n])
        ]
