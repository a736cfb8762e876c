"""Detections without the pipeline, through the very functions that the pipeline calls; or from a file.

Predictor(bundle) → prepare → engine → detections_from → Detections     as preprocess … postprocess
read_detections(file, dataset)                                         COCO results, or our events
"""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.detections import Detections, Labels
from pipeline.errors import DataError, ModelError
from stages.detector.bundle import read_facts
from stages.detector.decode import Options, detections_from
from stages.detector.engines import load
from stages.imaging.letterbox import prepare
from stages.training.datasets import DataSet, Image, read_image
from stages.training.formats import read_text

MAX_JSON_BYTES = 2 << 30
TAIL = Options(score_threshold=0.001)  # for AP; a threshold is chosen later


class Predictor:
    """A bundle, TorchScript or ONNX, that finds things in BGR pictures.

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
    ) -> None:
        self.facts = read_facts(str(path))
        self.classes = self.facts.classes
        self.options = options or Options()
        self.batch = batch
        self._engine = load(
            str(path), self.facts, device=device, precision=precision, threads=threads
        )
        self._engine.warm_up((min(batch, max(self.facts.batch_sizes)),))
        self._ms = dict.fromkeys(("prepare", "infer", "decode"), 0.0)
        self._pictures = 0

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        """One Detections for each picture: uint8 (H, W, 3) BGR of any size. Blocks until done."""
        times = [time.perf_counter()]
        prepared = [prepare(image, self.facts.input, self.facts.resize) for image in images]
        times.append(time.perf_counter())
        outputs = self._engine.infer(np.stack([pixels for pixels, _ in prepared])) if images else []
        times.append(time.perf_counter())
        found = [
            detections_from(arrays, self.facts, fit, (image.shape[1], image.shape[0]), self.options)
            for arrays, (_, fit), image in zip(outputs, prepared, images, strict=True)
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
    device: str = "auto",
    batch: int = 8,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Detections], dict[str, float]]:
    """What `evaluate` is given: the detections of anything that has some, and ms per picture by phase.

    path: a bundle (TorchScript or ONNX), a checkpoint of `manyeyes train`, a file of detections.
    progress: called with the number of pictures done. Speed is empty but for bundles.
    Raises ModelError, DataError, ConfigError.
    """
    file = Path(path)
    if not file.is_file():
        raise ModelError(f"{file}: no such file; wanted a bundle, a checkpoint or detections")
    if file.suffix in (".json", ".jsonl"):
        return read_detections(file, dataset), {}
    if zipfile.is_zipfile(file) and not _is_torchscript(file):
        return _of_checkpoint(file, dataset, device, batch), {}
    predictor = Predictor(file, options=TAIL, device=device, batch=batch)
    return detect(predictor, dataset, progress), predictor.speed_ms


def _is_torchscript(file: Path) -> bool:
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _of_checkpoint(file: Path, dataset: DataSet, device: str, batch: int) -> list[Detections]:
    import torch

    from stages.detector.bundle import ResizeFacts
    from stages.training import checkpoint, models, validation

    state = checkpoint.load(file)
    config = models.ModelConfig.from_json(state["config"])
    model = models.build(config)
    try:
        model.load_state_dict(state["model"])
        resize = ResizeFacts(**state["resize"])
    except (RuntimeError, TypeError, KeyError) as error:
        raise ModelError(
            f"{file}: its weights do not fit {config.architecture}: {error}"
        ) from error
    mapping = class_map(config.classes, dataset.classes)
    chosen = "cuda" if torch.cuda.is_available() else "cpu"
    found = validation.detect(
        model,
        config,
        validation.facts_of(config, resize),
        dataset,
        device=torch.device(chosen if device == "auto" else device),
        batch=batch,
    )
    return [relabelled(one, mapping) for one in found]


def detect(
    predictor: Predictor, dataset: DataSet, progress: Callable[[int], None] | None = None
) -> list[Detections]:
    """What a model finds in each sample, with labels of the data set (others are left out).

    progress: called with the number of pictures done. Raises DataError if the class names of model
    and data set have nothing in common, or a picture is broken by now.
    """
    mapping = class_map(predictor.classes, dataset.classes)
    found: list[Detections] = []
    for start in range(0, len(dataset.samples), predictor.batch):
        images = [read_image(s) for s in dataset.samples[start : start + predictor.batch]]
        found += [relabelled(one, mapping) for one in predictor(images)]
        if progress is not None:
            progress(len(found))
    return found


def class_map(model: Sequence[str], dataset: Sequence[str]) -> Labels:
    """For each class of a model its label in a data set, by name; -1 where it has none.

    Raises DataError if no name agrees: every figure would be 0 for no good reason.

    >>> class_map(("person", "car"), ("Car", "dog")).tolist()
    [-1, 0]
    """
    index = {name.casefold(): label for label, name in enumerate(dataset)}
    index |= {name: label for label, name in enumerate(dataset)}
    labels = [index.get(name, index.get(name.casefold(), -1)) for name in model]
    if max(labels, default=-1) < 0:
        raise DataError(
            f"no class of the model ({_some(model)}) is one of the data set ({_some(dataset)}); "
            "rename the classes of one of them"
        )
    return np.array(labels, np.int32)


def relabelled(found: Detections, mapping: Labels) -> Detections:
    """The detections with labels mapped, without those of classes that map to -1."""
    labels = mapping[found.labels]
    return replace(found, labels=labels)[labels >= 0]


def read_detections(path: Path | str, dataset: DataSet) -> list[Detections]:
    """Detections of a file, one Detections for each sample of the data set; scores as they stand.

    COCO results (a JSON list; `image_id` and `category_id` as in the data set) or events (JSON Lines
    of a run over the data set's pictures: matched by their `name` where events have one, else frame N
    is the N-th picture by path; labels by name). A picture without a row has no detections.
    Raises DataError naming the row that does not fit.
    """
    file = Path(path)
    with file.open("rb") as opened:
        first = opened.read(4096).lstrip()[:1]
    if first == b"[":
        return _read_coco(file, dataset)
    if first == b"{" or not first:
        return _read_events(file, dataset)
    raise DataError(f"{file}: wanted COCO results (a JSON list) or events (JSON Lines)")


def _read_coco(file: Path, dataset: DataSet) -> list[Detections]:
    try:
        rows = json.loads(read_text(file, MAX_JSON_BYTES))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{file}: no JSON: {error}") from error
    label_of = {dataset.category_id(label): label for label in range(len(dataset.classes))}
    index = {sample.image_id: i for i, sample in enumerate(dataset.samples)}
    tables: list[list[tuple[float, ...]]] = [[] for _ in dataset.samples]
    for number, row in enumerate(rows):
        where = f"{file}: result {number}"
        try:
            x, y, w, h = (float(value) for value in row["bbox"])
            image_id, category_id, score = row["image_id"], row["category_id"], float(row["score"])
        except (TypeError, KeyError, ValueError) as error:
            wanted = "image_id, category_id, bbox [x, y, w, h] and score"
            raise DataError(f"{where}: wanted {wanted}, got {row!r:.120}") from error
        if image_id not in index:
            raise DataError(f"{where}: image {image_id!r} is not in {dataset.name}")
        if category_id not in label_of:
            raise DataError(f"{where}: category {category_id!r} is not in {dataset.name}")
        tables[index[image_id]].append((x, y, x + w, y + h, score, label_of[category_id]))
    return [
        _table(rows, f"{file}: image {s.image_id}")
        for s, rows in zip(dataset.samples, tables, strict=True)
    ]


def _read_events(file: Path, dataset: DataSet) -> list[Detections]:
    order = sorted(range(len(dataset.samples)), key=lambda i: dataset.samples[i].path)
    by_name: dict[str, int] = {}
    for i in order:
        known = dataset.samples[i].path.name
        by_name[known] = (
            -1 if known in by_name else i
        )  # -1: in two folders, so a name tells nothing
    label_of = {name: label for label, name in enumerate(dataset.classes)}
    found = [Detections.empty() for _ in dataset.samples]
    seen: set[int] = set()
    unknown: set[str] = set()
    for line, event in _events(file):
        where = f"{file}:{line}"
        try:
            name, frame_id = event.get("name"), int(event["frame_id"])
            index = by_name[Path(name).name] if name else order[frame_id]
            if index < 0 or frame_id < 0:
                raise ValueError(f"no one picture is {name or frame_id!r}")
            size = (event["width"], event["height"])
            rows = [
                (*map(float, row["xyxy"]), float(row["score"]), label_of.get(row["label"], -1))
                for row in event["detections"]
            ]
            unknown |= {row["label"] for row in event["detections"]} - label_of.keys()
        except (TypeError, KeyError, ValueError, IndexError, AttributeError) as error:
            raise DataError(
                f"{where}: no event of a picture of {dataset.name}: {error!r}; run over its folder, "
                "with policy every"
            ) from error
        sample = dataset.samples[index]
        if index in seen:
            raise DataError(
                f"{where}: a second event of {sample.path.name}; wanted one camera, one pass"
            )
        if size != (sample.width, sample.height):
            raise DataError(
                f"{where}: a frame of {size[0]}x{size[1]} px, but {sample.path.name} has "
                f"{sample.width}x{sample.height}; is this the run over {dataset.name}?"
            )
        seen.add(index)
        found[index] = _table([row for row in rows if row[5] >= 0], where)
    if unknown and not any(map(len, found)):
        class_map(sorted(unknown), dataset.classes)
    return found


def _events(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open(encoding="utf-8") as opened:
        for line, text in enumerate(opened, 1):
            try:
                event = json.loads(text)
            except (json.JSONDecodeError, RecursionError) as error:
                raise DataError(f"{file}:{line}: no JSON: {error}") from error
            if not isinstance(event, dict):
                raise DataError(f"{file}:{line}: wanted one event, an object, got {text[:80]!r}")
            yield line, event


def _table(rows: Sequence[tuple[float, ...]], where: str) -> Detections:
    table = np.array(rows, np.float64).reshape(-1, 6)
    try:
        return Detections(
            table[:, :4].astype(np.float32),
            table[:, 4].astype(np.float32),
            table[:, 5].astype(np.int32),
        )
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" … {len(names)} in all" if len(names) > 5 else "")
