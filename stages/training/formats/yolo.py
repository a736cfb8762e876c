"""YOLO txt: a text file a picture, rows of `class cx cy w h` in 0..1, names in a YAML or a list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import DataError
from stages.training.formats import (
    Problem,
    Raw,
    RawBox,
    RawPicture,
    canonical,
    number,
    pictures_below,
    read_text,
)

MAX_TEXT_BYTES = 64 << 20
_SPLITS = ("train", "val", "test")
_NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "names.txt")


def find(path: Path) -> bool:
    """A data YAML, a folder with one, or a folder with labels/**.txt."""
    if path.is_file():
        return path.suffix in (".yaml", ".yml")
    has_labels = next((path / "labels").rglob("*.txt"), None) is not None
    return _yaml(path) is not None or has_labels or any((path / n).is_file() for n in _NAME_FILES)


def read(path: Path, split: str | None, problems: list[Problem]) -> Raw:
    """Parse the labels of all pictures of `split`, or of all splits."""
    file = path if path.is_file() else _yaml(path)
    root = file.parent if file else path
    data = _data(file) if file else {}
    classes = _names(data, file) if file else _listed_names(path)
    pictures = []
    for picture in dict.fromkeys(_pictures(root, data, split)):
        label = _label_file(picture)
        raw = RawPicture(path=picture, annotation=label, normalised=True)
        try:
            if label.is_file():
                raw.boxes = list(_rows(label, classes, problems))
        except DataError as error:
            text = f"{str(error).removeprefix(f'{label}: ')}; its picture is skipped"
            problems.append(Problem(kind="annotation", file=label, line=None, text=text))
            continue
        pictures.append(raw)
    return Raw(root=root, pictures=pictures, classes=classes)


def _yaml(path: Path) -> Path | None:
    for file in sorted([*path.glob("*.yaml"), *path.glob("*.yml")]):
        text = read_text(file, MAX_TEXT_BYTES)
        if "names" in text and ("train" in text or "val" in text):
            return file
    return None


def _data(file: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(read_text(file, MAX_TEXT_BYTES))
    except yaml.YAMLError as error:
        raise DataError(f"{file}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict) or not any(key in data for key in (*_SPLITS, "names")):
        raise DataError(f"{file}: wanted the keys `names` and `train` or `val`; is it a data set?")
    return data


def _names(data: dict[str, Any], file: Path | None) -> tuple[str, ...]:
    names = data.get("names")
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise DataError(
                f"{file}: names must number the classes 0, 1, 2, …, got {sorted(names)}"
            )
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list):
        raise DataError(
            f"{file}: wanted `names` as a list or as numbers to names, got {names!r:.80}"
        )
    return tuple(str(name).strip() for name in names)


def _listed_names(path: Path) -> tuple[str, ...] | None:
    for name in _NAME_FILES:
        if (path / name).is_file():
            rows = read_text(path / name, MAX_TEXT_BYTES).splitlines()
            return tuple(row.strip() for row in rows if row.strip())
    return None


def _pictures(root: Path, data: dict[str, Any], split: str | None) -> Iterator[Path]:
    have = {canonical(key): data[key] for key in (*_SPLITS, "valid") if data.get(key)}
    if not have:
        parts = [folder / split for folder in (root / "images", root) if split]
        folder = next((part for part in parts if part.is_dir()), None if split else root)
        if folder is None:
            raise DataError(f"{root}: no split {split!r}: no such folder here or in images/")
        yield from pictures_below(folder)
        return
    if split and canonical(split) not in have:
        raise DataError(f"{root}: no split {split!r} in the YAML; there is: {', '.join(have)}")
    base = root / str(data.get("path") or ".")
    base = base if base.is_dir() else root  # `path` is often that of the author's machine
    for value in [have[canonical(split)]] if split else have.values():
        for entry in value if isinstance(value, list) else [value]:
            yield from _listed(_place(str(entry), base, root), root)


def _place(entry: str, base: Path, root: Path) -> Path:
    stripped = entry
    while stripped.startswith("../"):
        stripped = stripped[3:]
    places = (base / entry, root / entry, base / stripped, root / stripped)
    place = next((place for place in places if place.exists()), None)
    if place is None:
        raise DataError(f"{root}: the YAML names {entry!r}, which is neither folder nor list there")
    return place


def _listed(place: Path, root: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from pictures_below(place)
        return
    for row in read_text(place, MAX_TEXT_BYTES).splitlines():
        if row.strip():
            relative = row.strip().removeprefix("./")
            near = place.parent / relative
            yield near if near.is_file() else root / relative


def _label_file(picture: Path) -> Path:
    """labels/ in place of the last images/ or JPEGImages/ of the path, else beside the picture."""
    parts = list(picture.with_suffix(".txt").parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] in ("images", "JPEGImages"):
            return Path(*parts[:index], "labels", *parts[index + 1 :])
    return picture.with_suffix(".txt")


def _rows(file: Path, classes: tuple[str, ...] | None, problems: list[Problem]) -> Iterator[RawBox]:
    for line, row in enumerate(read_text(file, MAX_TEXT_BYTES).splitlines(), 1):
        fields = [number(field) for field in row.split()]
        if not fields:
            continue
        values = [value for value in fields if value is not None]
        polygon = len(values) >= 7 and len(values) % 2 == 1
        if len(values) != len(fields) or not (len(values) == 5 or polygon) or values[0] % 1:
            text = f"wanted `class cx cy w h` or a polygon, got {row.strip()[:80]!r}; it is dropped"
            problems.append(Problem(kind="box", file=file, line=line, text=text))
            continue
        index = int(values[0])
        if index < 0 or (classes is not None and index >= len(classes)):
            text = f"class {index} of {len(classes or ())} classes; the box is dropped"
            problems.append(Problem(kind="class", file=file, line=line, text=text))
            continue
        if polygon:
            xs, ys = values[1::2], values[2::2]
            xyxy = (min(xs), min(ys), max(xs), max(ys))
        else:
            cx, cy, w, h = values[1:]
            xyxy = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
        yield RawBox(xyxy=xyxy, name=classes[index] if classes else str(index), line=line)
