"""How good the weights of a run are right now: the path of the exported bundle, without the export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pipeline.detections import Detections
from stages.detector.bundle import Facts, InputFacts, ResizeFacts
from stages.detector.decode import Options, by_frame, detections_of_all
from stages.imaging.letterbox import prepare_all
from stages.training.candidates import candidates
from stages.training.datasets import DataSet, Sample, read_image
from stages.training.evaluate import Evaluation, evaluate
from stages.training.models import ModelConfig, layout

LEAST_SCORE = 0.001  # AP needs the tail


def facts_of(config: ModelConfig, resize: ResizeFacts, name: str = "training") -> Facts:
    """The facts that a bundle of this model will carry."""
    return Facts(
        name=name,
        architecture=config.architecture,
        classes=config.classes,
        input=InputFacts(width=config.width, height=config.height),
        **layout(config),
        resize=resize,
    )


@torch.no_grad()
def detect(
    model: nn.Module,
    config: ModelConfig,
    facts: Facts,
    data: DataSet,
    *,
    device: torch.device,
    batch: int = 8,
    read: Callable[[Sample], npt.NDArray[np.uint8]] = read_image,
    progress: Callable[[int], None] | None = None,
) -> list[Detections]:
    """What the model finds in each picture, down to LEAST_SCORE, in pixels of the source picture.

    Letterbox, candidates and decoding are the functions that the pipeline calls. The model is not
    changed. progress: called with the number of pictures done.
    """
    network = candidates(model, config).to(device).eval()
    found: list[Detections] = []
    for start in range(0, len(data.samples), batch):
        samples = data.samples[start : start + batch]
        prepared = [prepare_all(read(sample), facts.input, facts.resize) for sample in samples]
        seen = np.concatenate([pixels for pixels, _ in prepared])  # (B, H, W, 3)
        rows: list[Any] = []
        for pixels in np.split(seen, range(batch, len(seen), batch)):
            outputs = network(torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2))
            rows += zip(*(output.cpu().numpy() for output in outputs), strict=True)
        frames = by_frame(rows, facts.resize.pictures)
        for sample, arrays, (_, fits) in zip(samples, frames, prepared, strict=True):
            size, options = (sample.width, sample.height), Options(score_threshold=LEAST_SCORE)
            found.append(detections_of_all(arrays, facts, fits, size, options))
        if progress is not None:
            progress(len(found))
    return found


def validate(
    model: nn.Module,
    config: ModelConfig,
    facts: Facts,
    data: DataSet,
    *,
    device: torch.device,
    read: Callable[[Sample], npt.NDArray[np.uint8]] = read_image,
) -> Evaluation:
    """The model judged on a data set, at the default threshold of its facts."""
    found = detect(model, config, facts, data, device=device, read=read)
    return evaluate(found, data, score_threshold=facts.defaults.score_threshold)
