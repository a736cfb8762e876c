"""Detections without the pipeline, through the very functions that the pipeline calls.

Predictor(bundle) → prepare → engine → detections_from → Detections     as preprocess … postprocess
read_detections(file, dataset)                                         COCO results, or our events
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.detections import Detections, Labels
from pipeline.errors import ConfigError, ModelError
from pipeline.messages import Image
from stages.detector.bundle import Facts, read_facts, with_tiles
from stages.detector.decode import Options, by_frame, detections_of_all
from stages.detector.engine import Engine
from stages.detector.engines import load
from stages.imaging.letterbox import prepare_all
from stages.training.datasets import DataSet, read_image
from stages.training.detection_files import Found, read_detections
from stages.training.labels import class_map, relabelled, some

TAIL = Options(score_threshold=0.001)  # for AP; a threshold is chosen later


class Predictor:
    """A bundle, TorchScript or ONNX, or a checkpoint, that finds things in BGR pictures.

    Raises what `read_facts` and `engines.load` raise: ModelError, ConfigError.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        options: Options | None = None,
        device: str = "auto",
        precision: str = "auto",
        threads: int = 0,
        batch: int = 8,
        tiles: tuple[int, int] | None = None,
    ) -> None:
        """path: a bundle, a checkpoint of `manyeyes train`, or its run folder.

        tiles: columns and rows of parts that it looks at, too; None: as the bundle says.
        """
        file = Path(path)
        if _is_checkpoint(file):
            facts, self._engine = _of_checkpoint(file, device)
        else:
            facts = read_facts(str(path))
            self._engine = load(
                str(path), facts, device=device, precision=precision, threads=threads
            )
        self.facts = facts if tiles is None else with_tiles(facts, tiles)
        self.classes = self.facts.classes
        self.options = options or Options()
        self.batch = batch
        self._engine.warm_up((min(batch, max(self.facts.batch_sizes)),))
        self._ms = dict.fromkeys(("prepare", "infer", "decode"), 0.0)
        self._pictures = 0

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        """One Detections for each picture: uint8 (H, W, 3) BGR of any size. Blocks until done."""
        times = [time.perf_counter()]
        prepared = [prepare_all(image, self.facts.input, self.facts.resize) for image in images]
        times.append(time.perf_counter())
        rows = self._engine.infer(np.concatenate([seen for seen, _ in prepared])) if images else []
        outputs = by_frame(rows, self.facts.resize.pictures)
        times.append(time.perf_counter())
        found = [
            detections_of_all(arrays, self.facts, fits, image.shape[1::-1], self.options)
            for arrays, (_, fits), image in zip(outputs, prepared, images, strict=True)
        ]
        times.append(time.perf_counter())
        for name, start, end in zip(self._ms, times, times[1:], strict=False):
            self._ms[name] += 1e3 * (end - start)
        self._pictures += len(images)
        return found

    @property
    def speed_ms(self) -> dict[str, float]:
        """Mean ms of a picture so far, by phase; reading files is not among them."""
        return {name: ms / max(self._pictures, 1) for name, ms in self._ms.items()}


def found_by(
    path: Path | str,
    dataset: DataSet,
    *,
    rename: Mapping[str, str] | None = None,
    device: str = "auto",
    batch: int = 8,
    tiles: tuple[int, int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Found:
    """What `evaluate` is given: the detections of anything that has some.

    path: a bundle (TorchScript or ONNX), a checkpoint or run folder of `manyeyes train`, a file of
        detections.
    rename: class of the model → class of the data set, where the names differ.
    tiles: as `Predictor` has them; ConfigError for a file of detections.
    progress: called with the number of pictures done.
    Raises ModelError, DataError, ConfigError.
    """
    file = Path(path)
    if not file.exists():
        raise ModelError(f"{file}: no such file; wanted a bundle, a checkpoint or detections")
    if file.suffix in (".json", ".jsonl"):
        if tiles is not None:
            raise ConfigError(f"--tiles: {file} holds detections; leave it out")
        return read_detections(file, dataset, rename)
    predictor = Predictor(file, options=TAIL, device=device, batch=batch, tiles=tiles)
    facts = predictor.facts
    mapping = class_map(facts.classes, dataset.classes, rename)
    return Found(
        detections=[relabelled(found, mapping) for found in detect(predictor, dataset, progress)],
        speed_ms=predictor.speed_ms,
        notes=_notes(facts.classes, dataset, mapping),
        score_threshold=facts.defaults.score_threshold,
    )


def threshold(text: str) -> float:
    """A score, or the one at which a bundle is meant to be used. Raises ConfigError, ModelError.

    >>> threshold("0.4")
    0.4
    """
    try:
        score = float(text)
    except ValueError:
        return read_facts(text).defaults.score_threshold
    if not 0 <= score <= 1:
        raise ConfigError(f"--score {text}: wanted a score within 0..1, or a bundle")
    return score


def _is_checkpoint(file: Path) -> bool:
    """A run folder, or what torch.save writes: a zip that is no TorchScript."""
    if file.is_dir() or not zipfile.is_zipfile(file):
        return file.is_dir()
    with zipfile.ZipFile(file) as archive:
        return not any(name.endswith("/constants.pkl") for name in archive.namelist())


def _of_checkpoint(file: Path, device: str) -> tuple[Facts, Engine]:
    import torch

    from stages.training import trained, validation
    from stages.training.eager import Eager

    known = trained.load(file)
    facts = validation.facts_of(known.config, known.resize, file.stem)
    chosen = "cuda" if torch.cuda.is_available() else "cpu"
    place = torch.device(chosen if device == "auto" else device)
    facts = replace(facts, defaults=known.defaults)
    return facts, Eager(known.model, known.config, facts, place)


def detect(
    predictor: Predictor, dataset: DataSet, progress: Callable[[int], None] | None = None
) -> list[Detections]:
    """What a model finds in each sample, with the model's own labels (see `class_map`).

    progress: called with the number of pictures done. Raises DataError if a picture is broken by now.
    """
    found: list[Detections] = []
    for start in range(0, len(dataset.samples), predictor.batch):
        images = [read_image(s) for s in dataset.samples[start : start + predictor.batch]]
        found += predictor(images)
        if progress is not None:
            progress(len(found))
    return found


def _notes(classes: Sequence[str], dataset: DataSet, mapping: Labels) -> tuple[str, ...]:
    missing = [name for label, name in enumerate(dataset.classes) if label not in mapping]
    left_out = [name for name, label in zip(classes, mapping, strict=True) if label < 0]
    notes = []
    if missing:
        notes.append(f"the model knows no {some(missing)}: all of them count as missed")
    if left_out:
        notes.append(f"the data set knows no {some(left_out)}: detections of them are left out")
    return tuple(notes)
