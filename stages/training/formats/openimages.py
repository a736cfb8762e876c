"""Open Images CSV, FiftyOne's, too: a row a box, corners in 0..1, classes by id, named elsewhere."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import DataError
from stages.training.formats import (
    Problem,
    Raw,
    RawBox,
    RawPicture,
    chosen,
    merged,
    number,
    pictures_below,
)

_CORNERS = ("XMin", "YMin", "XMax", "YMax")
_COLUMNS = {"ImageID", "LabelName", *_CORNERS}


def find(path: Path) -> bool:
    """A CSV with Open Images' columns, or a folder that holds one (itself or in a folder of it)."""
    return bool(_files(path))


def read(path: Path, split: str | None, problems: list[Problem]) -> Raw:
    """Parse the file of boxes that `split` names, or all."""
    files = [path] if path.is_file() else chosen(_files(path), split, "Open Images")
    root = path if path.is_dir() else path.parent
    parts = [_read(file, root, split if len(files) == 1 else None, problems) for file in files]
    raw = merged(root, parts)
    named = {picture.path for picture in raw.pictures}
    for folder in {folder for file in files for folder in [_folder(root, split, file)]}:
        for picture in (p for p in pictures_below(folder) if p not in named):
            text = "no row of the boxes' CSV names this picture; it is left out"
            problems.append(Problem(kind="unlisted", file=picture, line=None, text=text))
    return raw


def _read(file: Path, root: Path, split: str | None, problems: list[Problem]) -> Raw:
    names = _names(root)
    folder = _folder(root, split, file)
    found = {picture.stem: picture for picture in reversed(pictures_below(folder))}
    pictures: dict[str, RawPicture] = {}
    for key in _listed(root, file):
        _picture(key, pictures, found, root, file)
    for line, row in _rows(file):
        if not row.keys() >= _COLUMNS:
            text = f"wanted {len(_header(file))} columns, got {len(row)}; the box is dropped"
            problems.append(Problem(kind="box", file=file, line=line, text=text))
            continue
        picture = _picture(row["ImageID"], pictures, found, root, file)
        x1, y1, x2, y2 = (number(row.get(corner)) for corner in _CORNERS)
        if x1 is None or y1 is None or x2 is None or y2 is None:
            got = ", ".join(repr(row.get(corner)) for corner in _CORNERS)
            text = f"wanted four finite corners, got {got}; the box is dropped"
            problems.append(Problem(kind="box", file=file, line=line, text=text))
            continue
        name = names.get(row["LabelName"], row["LabelName"])
        crowd = row.get("IsGroupOf") == "1"
        picture.boxes.append(RawBox(xyxy=(x1, y1, x2, y2), name=name, crowd=crowd, line=line))
    # All that is described, so that every split numbers its classes alike.
    classes = tuple(dict.fromkeys(names.values())) or None
    if classes and any(
        box.name not in names.values() for p in pictures.values() for box in p.boxes
    ):
        classes = None
    return Raw(root=root, pictures=[pictures[key] for key in sorted(pictures)], classes=classes)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix == ".csv" and set(_header(path)) >= _COLUMNS else []
    files = [*path.glob("*.csv"), *path.glob("*/*.csv")]
    return sorted(file for file in files if set(_header(file)) >= _COLUMNS)


def _header(file: Path) -> list[str]:
    with file.open("rb") as opened:
        return opened.readline(4096).decode("utf-8-sig", "replace").strip().split(",")


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    lines = _lines(file)
    _, head = next(lines, (0, []))
    for line, row in lines:
        yield line, dict(zip(head, row, strict=False))


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.reader(opened)
            for row in reader:
                if row:
                    yield reader.line_num, row
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{file}: no readable CSV: {error}") from error


def _names(root: Path) -> dict[str, str]:
    """Machine ids (/m/0k4j) to names (Car), of class-descriptions*.csv, with a header or not."""
    patterns = ("*class*descriptions*.csv", "*/*class*descriptions*.csv", "metadata/classes.csv")
    for file in (found for pattern in patterns for found in sorted(root.glob(pattern))):
        rows = [row for _, row in _lines(file) if len(row) >= 2]
        return {row[0]: row[1] for row in rows if row[0] != "LabelName"}
    return {}


def _listed(root: Path, boxes: Path) -> Iterator[str]:
    """Ids of a list of pictures beside the boxes, so that pictures without objects are known."""
    split = boxes.stem.split("-annotations")[0]
    for file in sorted(boxes.parent.glob(f"{split}-images*.csv")):
        if "ImageID" in _header(file):
            yield from (row["ImageID"] for _, row in _rows(file) if "ImageID" in row)


def _folder(root: Path, split: str | None, file: Path) -> Path:
    word = file.stem.split("-")[0]
    for name in (split, word):
        for base in (root / "images", root):
            if name and (base / name).is_dir():
                return base / name
    return root


def _picture(
    key: str, pictures: dict[str, RawPicture], found: dict[str, Path], root: Path, file: Path
) -> RawPicture:
    if key not in pictures:
        path = found.get(key, root / f"{key}.jpg")
        pictures[key] = RawPicture(path=path, annotation=file, normalised=True)
    return pictures[key]
