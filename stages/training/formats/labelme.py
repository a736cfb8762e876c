"""labelme JSON: a file a picture, shapes as points in px."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from stages.training.formats import Problem, Raw, RawBox, RawPicture, number, read_text
from stages.training.formats.finder import Finder

MAX_JSON_BYTES = 256 << 20  # the picture may be in it
_LEAST_POINTS = {"rectangle": 2, "circle": 2, "polygon": 3, "linestrip": 2, "line": 2}


def find(path: Path) -> bool:
    """A folder with labelme's JSON files, beside the pictures or anywhere in it."""
    if not path.is_dir():
        return False
    files = [*sorted(path.glob("*.json"))[:3], *sorted(path.glob("*/*.json"))[:3]]
    return any(_is_one(file) for file in files)


def read(path: Path, split: str | None, problems: list[Problem]) -> Raw:
    """Parse all JSON files of a folder, or of that of a split."""
    folder = path if split is None else path / split
    if not folder.is_dir():
        raise DataError(f"{path}: no split {split!r}: no such folder; labelme knows no lists")
    place = Finder(path)
    pictures = []
    for file in sorted(folder.rglob("*.json")):
        try:
            data = json.loads(read_text(file, MAX_JSON_BYTES))
            if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
                raise DataError("no object with a list `shapes`")
        except (DataError, ValueError, RecursionError) as error:
            text = f"no labelme JSON ({error}); its picture is skipped"
            problems.append(Problem(kind="annotation", file=file, line=None, text=text))
            continue
        pictures.append(_picture(data, file, place, problems))
    used = {picture.path for picture in pictures}
    for other in place.pictures:
        if other not in used and folder in other.parents:
            text = "no annotation names this picture; it is left out"
            problems.append(Problem(kind="unlisted", file=other, line=None, text=text))
    return Raw(root=path, pictures=pictures)


def _is_one(file: Path) -> bool:
    with file.open("rb") as opened:
        head = opened.read(1 << 16)
        opened.seek(max(0, file.stat().st_size - (1 << 16)))
        tail = opened.read()
    return b'"shapes"' in head + tail and b'"imagePath"' in head + tail


def _picture(
    data: dict[str, Any], file: Path, place: Finder, problems: list[Problem]
) -> RawPicture:
    stated = str(data.get("imagePath") or f"{file.stem}.jpg").replace("\\", "/")
    beside = file.with_name(Path(stated).name)
    picture = RawPicture(path=beside if beside.is_file() else place(stated), annotation=file)
    sides = [number(str(data.get(side))) for side in ("imageWidth", "imageHeight")]
    if all(side is not None and side > 0 for side in sides):
        picture.size_wh_px = (int(sides[0] or 0), int(sides[1] or 0))
    for index, row in enumerate(data["shapes"]):
        shape = row if isinstance(row, dict) else {}
        label, kind = (
            str(shape.get("label") or "").strip(),
            str(shape.get("shape_type") or "polygon"),
        )
        xyxy = _around(shape.get("points"), kind)
        if not label or xyxy is None:
            text = f"shape {index}: wanted a label and points of an area, got {kind} {label!r}; dropped"
            problems.append(Problem(kind="box", file=file, line=None, text=text))
            continue
        picture.boxes.append(RawBox(xyxy=xyxy, name=label))
    return picture


def _around(points: Any, kind: str) -> tuple[float, float, float, float] | None:
    pairs = (
        [p for p in points if isinstance(p, list) and len(p) == 2]
        if isinstance(points, list)
        else []
    )
    numbers = [number(str(value)) for pair in pairs for value in pair]
    if kind not in _LEAST_POINTS or len(pairs) < _LEAST_POINTS[kind] or None in numbers:
        return None
    values = [value for value in numbers if value is not None]
    xs, ys = values[::2], values[1::2]
    if kind == "circle":  # its centre, and a point on it
        radius = math.dist((xs[0], ys[0]), (xs[1], ys[1]))
        return xs[0] - radius, ys[0] - radius, xs[0] + radius, ys[0] + radius
    return min(xs), min(ys), max(xs), max(ys)
