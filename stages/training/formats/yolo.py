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
    RawPicture,
    canonical,
    pictures_below,
    read_text,
)
from stages.training.formats.finder import Finder
from stages.training.formats.yolo_rows import MAX_TEXT_BYTES, Rows

_SPLITS = ("train", "val", "test")
_NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "names.txt")
_PICTURE_FOLDERS = ("images", "jpegimages")  # what labels/ may stand for


def find(path: Path) -> bool:
    """A data YAML or obj.data, a folder with one, or one whose pictures have labels."""
    if path.is_file():
        return path.suffix in (".yaml", ".yml", ".data")
    if _description(path) is not None or any((path / name).is_file() for name in _NAME_FILES):
        return True
    if next((path / "labels").rglob("*.txt"), None) is not None:
        return True
    labels = _Labels()
    found = (labels(picture) for picture in pictures_below(path)[:100])
    return any(label.is_file() and _is_table(label) for label in found)


def read(path: Path, split: str | None, problems: list[Problem]) -> Raw:
    """Parse the labels of all pictures of `split`, or of all splits."""
    file = path if path.is_file() else _description(path)
    root = file.parent if file else path
    data = _data(file) if file else {}
    labels, found = _Labels(), {}
    for picture in dict.fromkeys(_pictures(root, data, split, file, problems)):
        found[picture] = labels(picture)
    names = _names(data, file, root, found)
    rows = Rows(names, data.get("kpt_shape"), problems)
    pictures = []
    for picture, label in found.items():
        raw = RawPicture(path=picture, annotation=label, normalised=True)
        try:
            if label.is_file():
                rows.add(label, raw)
        except DataError as error:
            text = f"{str(error).removeprefix(f'{label}: ')}; its picture is skipped"
            problems.append(Problem(kind="annotation", file=label, line=None, text=text))
            continue
        pictures.append(raw)
    rows.finish()
    _tell_lonely(found, problems)
    classes = tuple(dict.fromkeys(names.values())) if names else None
    if names and classes and len(classes) < len(names):
        twice = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
        text = f"more than one class is called {', '.join(twice)}; those of one name are one class"
        problems.append(Problem(kind="names", file=file or root, line=None, text=text))
    return Raw(root=root, pictures=pictures, classes=classes)


def _description(path: Path) -> Path | None:
    for file in sorted([*path.glob("*.yaml"), *path.glob("*.yml")]):
        text = read_text(file, MAX_TEXT_BYTES)
        if ("names" in text or "nc" in text) and ("train" in text or "val" in text):
            return file
    return next(iter(sorted(path.glob("*.data"))), None)


def _data(file: Path) -> dict[str, Any]:
    if file.suffix == ".data":  # of darknet, as CVAT writes it
        pairs = (row.partition("=") for row in read_text(file, MAX_TEXT_BYTES).splitlines())
        return {key.strip(): value.strip() for key, _, value in pairs if value.strip()}
    try:
        data = yaml.safe_load(read_text(file, MAX_TEXT_BYTES))
    except yaml.YAMLError as error:
        raise DataError(f"{file}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict) or not any(key in data for key in (*_SPLITS, "names")):
        raise DataError(f"{file}: wanted the keys `names` and `train` or `val`; is it a data set?")
    return data


def _names(
    data: dict[str, Any], file: Path | None, root: Path, found: dict[Path, Path]
) -> dict[int, str]:
    """Number of each class to its name; empty if nothing names them."""
    names = data.get("names")
    if names is None or isinstance(names, str):
        listed = _listed_names(root, found)
        count = data.get("nc")
        if not listed and isinstance(count, int) and count <= 100_000:
            return {number: str(number) for number in range(count)}
        return listed
    if isinstance(names, list):
        names = dict(enumerate(names))
    numbers = list(names) if isinstance(names, dict) else []
    if not numbers or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise DataError(
            f"{file}: wanted `names` as a list or as numbers to names, got {names!r:.80}"
        )
    return {number: str(names[number]).strip() for number in sorted(numbers)}


def _listed_names(root: Path, found: dict[Path, Path]) -> dict[int, str]:
    near = dict.fromkeys(label.parent for label in found.values())
    for file in (
        *(root / name for name in _NAME_FILES),
        *(f / n for f in near for n in _NAME_FILES),
    ):
        if file.is_file():
            rows = read_text(file, MAX_TEXT_BYTES).splitlines()
            return dict(enumerate(row.strip() for row in rows if row.strip()))
    return {}


def _pictures(
    root: Path, data: dict[str, Any], split: str | None, file: Path | None, problems: list[Problem]
) -> Iterator[Path]:
    have = {canonical(key): data[key] for key in (*_SPLITS, "valid") if data.get(key)}
    if not have:
        yield from pictures_below(root if split is None else _folder(root, split))
        return
    if split and canonical(split) not in have:
        raise DataError(f"{root}: no split {split!r} in the YAML; there is: {', '.join(have)}")
    base = root / str(data.get("path") or ".")
    base = base if base.is_dir() else root  # `path` is often that of the author's machine
    finder, missing = Finder(root, (base, root)), []
    for value in [have[canonical(split)]] if split else have.values():
        for entry in value if isinstance(value, list) else [value]:
            place = _place(str(entry), base, root)
            if place is None:
                missing.append(str(entry))
            else:
                yield from _listed(place, finder)
    for entry in missing:
        text = f"names {entry!r}, which is neither folder nor list there"
        if split or len(missing) == len(have):
            raise DataError(f"{root}: the YAML {text}")
        problems.append(Problem(kind="split", file=file or root, line=None, text=text))


def _folder(root: Path, split: str) -> Path:
    for base in (root / "images", root):
        parts = sorted(base.iterdir()) if base.is_dir() else []
        named = [part for part in parts if canonical(part.name) == canonical(split)]
        exact = [part for part in named if part.name == split and part.is_dir()]
        for part in (*exact, *named):
            if part.is_dir():
                return part
    raise DataError(f"{root}: no split {split!r}: no such folder here or in images/")


def _place(entry: str, base: Path, root: Path) -> Path | None:
    stripped = entry = entry.replace("\\", "/")
    while stripped.startswith("../"):
        stripped = stripped[3:]
    places = (base / entry, root / entry, base / stripped, root / stripped, root / Path(entry).name)
    return next((place for place in places if place.exists()), None)


def _listed(place: Path, finder: Finder) -> Iterator[Path]:
    if place.is_dir():
        yield from pictures_below(place)
        return
    for row in read_text(place, MAX_TEXT_BYTES).splitlines():
        if row.strip():
            near = place.parent / row.strip()
            yield near if near.is_file() else finder(row)


class _Labels:
    """The label file of a picture: in labels/ in place of images/, or beside it; capitals are alike."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, Path]] = {}

    def __call__(self, picture: Path) -> Path:
        """That file; where there is none, where it should be."""
        places = [*self._mirrored(picture.parent), picture.parent]
        name = picture.with_suffix(".txt").name
        for place in places:
            files = self._of(place)
            if name.casefold() in files:
                exact = place / name
                return exact if exact in files.values() else files[name.casefold()]
        return places[0] / name

    @staticmethod
    def _mirrored(folder: Path) -> Iterator[Path]:
        parts = folder.parts
        for index in range(len(parts) - 1, -1, -1):
            if parts[index].casefold() in _PICTURE_FOLDERS:
                for labels in ("labels", "Labels"):
                    yield Path(*parts[:index], labels, *parts[index + 1 :])

    def _of(self, folder: Path) -> dict[str, Path]:
        if folder not in self._folders:
            files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
            self._folders[folder] = {file.name.casefold(): file for file in files}
        return self._folders[folder]


def _is_table(label: Path) -> bool:
    """Whether a text file begins like labels: a caption beside a picture is none."""
    with label.open("rb") as opened:
        fields = opened.read(200).decode("utf-8-sig", "replace").split()[:5]
    return len(fields) == 5 and all(field[:1] in "-.0123456789" for field in fields)


def _tell_lonely(found: dict[Path, Path], problems: list[Problem]) -> None:
    """Labels of no picture; and that no picture has labels, which looks like pictures of nothing."""
    if found and not any(label.is_file() for label in found.values()):
        picture, label = next(iter(found.items()))
        text = f"none of {len(found)} pictures has labels; wanted {label} for this one, say"
        problems.append(Problem(kind="unlabelled", file=picture, line=None, text=text))
    folders = dict.fromkeys((picture.parent, label.parent) for picture, label in found.items())
    stems: dict[Path, set[str]] = {}  # of a folder of labels: all that lies beside the pictures
    for pictures, labels in folders:
        beside = pictures.iterdir() if pictures.is_dir() else ()
        stems.setdefault(labels, set()).update(
            p.stem.casefold() for p in beside if p.suffix != ".txt"
        )
    for folder, known in stems.items():
        for label in sorted(folder.glob("*.txt")) if folder.is_dir() else []:
            if label.stem.casefold() not in known and _is_table(label):
                text = "labels without a picture of this name; they are left out"
                problems.append(Problem(kind="orphan", file=label, line=None, text=text))
