"""A CSV with a header and a row a box: filename, class, xmin, ymin, xmax, ymax, in px."""

from __future__ import annotations

import csv
from pathlib import Path

from pipeline.errors import DataError
from stages.training.formats import Problem, Raw, RawBox, RawPicture, chosen, merged, number, words
from stages.training.formats.finder import Finder

_COLUMNS = {
    "picture": ("filename", "file_name", "image", "image_path", "image_name", "path", "file"),
    "class": ("class", "label", "name", "class_name", "category"),
    "x1": ("xmin", "x1", "x_min", "left"),
    "y1": ("ymin", "y1", "y_min", "top"),
    "x2": ("xmax", "x2", "x_max", "right"),
    "y2": ("ymax", "y2", "y_max", "bottom"),
}
_SIZE = ("width", "height")


def find(path: Path) -> bool:
    """A CSV with such columns, or a folder that holds some (itself or in a folder of it)."""
    return bool(_files(path))


def read(path: Path, split: str | None, problems: list[Problem]) -> Raw:
    """Parse the files that `split` names, or all."""
    files = [path] if path.is_file() else chosen(_files(path), split, "CSV")
    root = path if path.is_dir() else path.parent
    return merged(root, [_read(file, root, problems) for file in files])


def _files(path: Path) -> list[Path]:
    files = [path] if path.is_file() else sorted([*path.glob("*.csv"), *path.glob("*/*.csv")])
    return [file for file in files if file.suffix.lower() == ".csv" and _columns(_header(file))]


def _header(file: Path) -> list[str]:
    with file.open("rb") as opened:
        line = opened.readline(4096).decode("utf-8-sig", "replace").strip()
    return [field.strip(' "') for field in line.replace(";", ",").split(",")]


def _columns(header: list[str]) -> dict[str, int]:
    """Which column holds what; empty if one is missing."""
    names = [name.strip().lower() for name in header]
    found = {
        what: next((names.index(name) for name in known if name in names), -1)
        for what, known in _COLUMNS.items()
    }
    return found if min(found.values()) >= 0 else {}


def _read(file: Path, root: Path, problems: list[Problem]) -> Raw:
    header = _header(file)
    at = _columns(header)
    lower = [name.lower() for name in header]
    size_at = [lower.index(side) for side in _SIZE if side in lower]
    place = Finder(root, (file.parent, file.parent / "images", root / "images"), words(file))
    pictures: dict[str, RawPicture] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            first = opened.readline()
            rows = csv.reader(opened, delimiter=";" if ";" in first else ",")
            for row in rows:
                if not row:
                    continue
                line = rows.line_num + 1
                if len(row) < len(header):
                    text = f"wanted {len(header)} columns, got {len(row)}; the box is dropped"
                    problems.append(Problem(kind="box", file=file, line=line, text=text))
                    continue
                name = row[at["picture"]].strip()
                if name not in pictures:
                    pictures[name] = RawPicture(path=place(name), annotation=file)
                    sides = [int(number(row[index]) or 0) for index in size_at]
                    if len(sides) == 2 and min(sides) > 0:
                        pictures[name].size_wh_px = (sides[0], sides[1])
                _add_box(row, at, pictures[name], line, problems)
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{file}: no readable CSV: {error}") from error
    return Raw(root=root, pictures=list(pictures.values()))


def _add_box(
    row: list[str], at: dict[str, int], picture: RawPicture, line: int, problems: list[Problem]
) -> None:
    texts = [row[at[side]] for side in ("x1", "y1", "x2", "y2")]
    name = row[at["class"]].strip()
    if not name and not any(text.strip() for text in texts):
        return  # a picture without objects, as some write it
    x1, y1, x2, y2 = (number(text) for text in texts)
    if not name or x1 is None or y1 is None or x2 is None or y2 is None:
        text = f"wanted a class and four finite corners, got {name!r}, {', '.join(texts)}; it is dropped"
        problems.append(Problem(kind="box", file=picture.annotation, line=line, text=text))
        return
    picture.boxes.append(RawBox(xyxy=(x1, y1, x2, y2), name=name, line=line))
