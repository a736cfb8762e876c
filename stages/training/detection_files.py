"""Detections read from files: COCO results, or the events of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.detections import Detections
from pipeline.errors import DataError
from stages.detector.bundle import Defaults
from stages.imaging.order import by_number
from stages.training.datasets import DataSet
from stages.training.formats import read_text
from stages.training.labels import class_map, some

MAX_JSON_BYTES = 2 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Detections of a whole data set."""

    detections: list[Detections]  # one for each sample, labels of the data set
    speed_ms: dict[str, float]  # per picture, by phase; empty where nothing was run by a Predictor
    notes: tuple[str, ...]  # what a reader of the figures should know, a sentence each
    score_threshold: float = Defaults().score_threshold  # at which the model is meant to be used


def read_detections(
    path: Path | str, dataset: DataSet, rename: Mapping[str, str] | None = None
) -> Found:
    """Detections of a file, one Detections for each sample of the data set; scores as they stand.

    COCO results (a JSON list; `image_id` and `category_id` as in the data set) or events (JSON Lines
    of a run over the data set's pictures: matched by their `name` where events have one, else frame N
    is the N-th picture by path; labels by name, renamed as asked). A picture without a row has no
    detections. Raises DataError naming the row that does not fit.
    """
    file = Path(path)
    with file.open("rb") as opened:
        first = opened.read(4096).lstrip()[:1]
    if first == b"[":
        return _read_coco(file, dataset)
    if first == b"{" or not first:
        return _read_events(file, dataset, rename or {})
    raise DataError(f"{file}: wanted COCO results (a JSON list) or events (JSON Lines)")


def _read_coco(file: Path, dataset: DataSet) -> Found:
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
    found = [
        _table(rows, f"{file}: image {sample.image_id}")
        for sample, rows in zip(dataset.samples, tables, strict=True)
    ]
    return Found(detections=found, speed_ms={}, notes=())


def _read_events(file: Path, dataset: DataSet, rename: Mapping[str, str]) -> Found:
    order = sorted(range(len(dataset.samples)), key=lambda i: by_number(dataset.samples[i].path))
    by_name: dict[str, int] = {}
    for i in order:
        known = dataset.samples[i].path.name
        by_name[known] = (
            -1 if known in by_name else i
        )  # -1: in two folders, so a name tells nothing
    label_of = {name: label for label, name in enumerate(dataset.classes)}
    label_of |= {name: label_of.get(other, -1) for name, other in rename.items()}
    found = [Detections.empty() for _ in dataset.samples]
    seen: set[int] = set()
    unknown: set[str] = set()
    for line, event in events_of(file):
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
                f"{sample.width}x{sample.height}; was this the run over {dataset.name}, with a "
                "max_size that no picture exceeds?"
            )
        seen.add(index)
        found[index] = _table([row for row in rows if row[5] >= 0], where)
    if unknown and not any(map(len, found)):
        class_map(sorted(unknown), dataset.classes)
    left_out = f"the data set knows no {some(sorted(unknown))}: detections of them are left out"
    return Found(detections=found, speed_ms={}, notes=(left_out,) if unknown else ())


def events_of(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line of a run's events. Raises DataError for a line that is none."""
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
