"""Data sets written to disk: as COCO JSON, YOLO txt or Pascal VOC, so that `load` reads them back."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import yaml

from pipeline.errors import DataError, ResourceError
from stages.training.datasets import DataSet, Sample
from stages.training.figures import coco_truth

TARGETS = ("coco", "yolo", "voc")
_PICTURE_FOLDERS = {"coco": "images", "yolo": "images", "voc": "JPEGImages"}


def convert(
    dataset: DataSet, output: Path | str, target: str, *, link: bool = False
) -> dict[str, int]:
    """Write a data set with its pictures into a new folder, in another format.

    target: coco, yolo or voc. link: symbolic links to the pictures, in place of copies.
    Returns how many boxes lost a flag that the format has no word for (`crowd`, `difficult`), by flag.
    The folder appears whole or not at all. Raises DataError (unknown target, folder exists),
    ResourceError (it cannot be written).
    """
    if target not in TARGETS:
        raise DataError(f"target {target!r}: wanted one of {', '.join(TARGETS)}")
    names = _names(dataset.samples)
    with new_folder(Path(output)) as folder:
        pictures = folder / _PICTURE_FOLDERS[target]
        for sample, name in zip(dataset.samples, names, strict=True):
            _place(sample.path, pictures / name, Path(output) / pictures.name / name, link)
        if target == "coco":
            document = coco_document(dataset, [f"{pictures.name}/{name}" for name in names])
            (folder / "annotations.json").write_text(json.dumps(document), encoding="utf-8")
        elif target == "yolo":
            _write_yolo(dataset, names, folder)
        else:
            _write_voc(dataset, names, folder)
    kept = {"coco": ("crowd", "difficult"), "yolo": (), "voc": ("difficult",)}[target]
    lost = {
        flag: sum(int(getattr(sample, flag).sum()) for sample in dataset.samples)
        for flag in ("crowd", "difficult")
        if flag not in kept
    }
    return {flag: count for flag, count in lost.items() if count}


def coco_document(dataset: DataSet, file_names: Sequence[str]) -> dict[str, Any]:
    """The data set as COCO JSON that keeps what `load` reads: difficult is a flag of its own."""
    document = coco_truth(dataset)
    for image, name in zip(document["images"], file_names, strict=True):
        image["file_name"] = name
    flags = [
        (bool(crowd), bool(difficult))
        for sample in dataset.samples
        for crowd, difficult in zip(sample.crowd, sample.difficult, strict=True)
    ]
    corners = (box for sample in dataset.samples for box in sample.xyxy)
    for row, (crowd, difficult), xyxy in zip(document["annotations"], flags, corners, strict=True):
        row["iscrowd"] = int(crowd)
        x1, y1, x2, y2 = (_decimal(value) for value in xyxy)
        row["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        if difficult:
            row["difficult"] = 1
    return document


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `output` at the end, or vanishes if something fails.

    Raises DataError if `output` exists, ResourceError if it cannot be written.
    """
    if output.exists():
        raise DataError(f"{output}: exists already; give the name of a new folder")
    partial = output.with_name(f".{output.name}.partial.{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(output)
    except OSError as error:
        raise ResourceError(f"{output}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _names(samples: Sequence[Sample]) -> list[str]:
    """A name below one folder for each picture: folder and name as they were, never twice the same.

    Where all pictures lie elsewhere, as those of a split do, the way there is left out.
    Stems differ, too, since YOLO and VOC name annotations by them.
    """
    names, taken = [], set()
    away = bool(samples) and all(sample.group.startswith("..") for sample in samples)
    common = Path(os.path.commonpath([s.group for s in samples])) if away else Path()
    for sample in samples:
        inner = Path(sample.group).relative_to(common)
        parts = [part for part in inner.parts if part not in ("..", "/")]
        while parts and parts[0] in ("images", "JPEGImages"):
            parts.pop(0)
        name = Path(*parts, sample.path.name)
        if name.with_suffix("") in taken:
            name = name.with_name(f"{name.stem}_{sample.image_id}{name.suffix}")
        taken.add(name.with_suffix(""))
        names.append(name.as_posix())
    return names


def _place(source: Path, target: Path, final: Path, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        target.symlink_to(os.path.relpath(source.resolve(), final.resolve().parent))
    else:
        shutil.copyfile(source, target)


def _decimal(value: np.float32) -> float:
    """The shortest decimal number that is this float32, as a float."""
    return float(str(value))


def _write_yolo(dataset: DataSet, names: Sequence[str], folder: Path) -> None:
    for sample, name in zip(dataset.samples, names, strict=True):
        size = np.array([sample.width, sample.height], np.float64)
        corners = sample.xyxy.astype(np.float64)  # (N, 4)
        centres = (corners[:, :2] + corners[:, 2:]) / 2 / size
        sides = (corners[:, 2:] - corners[:, :2]) / size
        rows = np.hstack([centres, sides])
        lines = [
            f"{label} " + " ".join(f"{value:.9g}" for value in row) + "\n"
            for label, row in zip(sample.labels, rows, strict=True)
        ]
        file = (folder / "labels" / name).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines), encoding="utf-8")
    data = {"path": ".", "train": "images", "names": dict(enumerate(dataset.classes))}
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")


def _write_voc(dataset: DataSet, names: Sequence[str], folder: Path) -> None:
    for sample, name in zip(dataset.samples, names, strict=True):
        sides = ("width", sample.width), ("height", sample.height), ("depth", 3)
        lines = ["<annotation>", f"  <filename>{escape(Path(name).name)}</filename>", "  <size>"]
        lines += [f"    <{side}>{value}</{side}>" for side, value in sides] + ["  </size>"]
        for xyxy, label, hard in zip(sample.xyxy, sample.labels, sample.difficult, strict=True):
            corners = zip(("xmin", "ymin", "xmax", "ymax"), xyxy, strict=True)
            lines += ["  <object>", f"    <name>{escape(dataset.classes[label])}</name>"]
            lines += [f"    <difficult>{int(hard)}</difficult>", "    <bndbox>"]
            lines += [f"      <{side}>{_decimal(value)}</{side}>" for side, value in corners]
            lines += ["    </bndbox>", "  </object>"]
        file = (folder / "Annotations" / name).with_suffix(".xml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join([*lines, "</annotation>", ""]), encoding="utf-8")
