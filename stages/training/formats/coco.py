"""COCO JSON: one file for all pictures, boxes as x, y, width, height."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from stages.training.formats import Problem, Raw, RawBox, RawPicture, choose, number, read_text

MAX_JSON_BYTES = 2 << 30  # COCO's own training set has 0.45 GiB
_KEYS = re.compile(rb'"(images|annotations|categories)"\s*:')


def find(path: Path) -> bool:
    """A JSON file with COCO's keys, or a folder that holds some (itself or in annotations/)."""
    return bool(_files(path))


def read(path: Path, split: str | None, problems: list[Problem]) -> Raw:
    """Parse one file; in a folder, the one that `split` names."""
    file = path if path.is_file() else choose(_files(path), split, "COCO")
    try:
        data = json.loads(read_text(file, MAX_JSON_BYTES))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{file}: no JSON: {error}") from error
    lists = [data.get(key) if isinstance(data, dict) else None for key in ("images", "categories")]
    if not all(isinstance(rows, list) for rows in lists):
        raise DataError(
            f"{file}: wanted an object with lists `images` and `categories`; is it COCO?"
        )
    names = _categories(data["categories"], file)
    find_picture = _Finder(file, path if path.is_dir() else file.parent)
    pictures: dict[Any, RawPicture] = {}
    for row in data["images"]:
        picture = _picture(row, file, find_picture, problems)
        if picture is None:
            continue
        if picture.image_id in pictures:
            text = f"image id {picture.image_id} is used twice; the second picture is skipped"
            problems.append(Problem(kind="duplicate", file=file, line=None, text=text))
            continue
        pictures[picture.image_id] = picture
    for row in data.get("annotations") or []:
        _add_box(row, names, pictures, file, problems)
    ids = {name: category for category, name in reversed(names.items())}  # the first of equal names
    return Raw(
        root=path if path.is_dir() else file.parent,
        pictures=list(pictures.values()),
        classes=tuple(dict.fromkeys(names.values())),
        category_ids=tuple(ids[name] for name in dict.fromkeys(names.values())),
    )


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix == ".json" and _looks_right(path) else []
    files = [*path.glob("*.json"), *path.glob("annotations/*.json")]
    return sorted(file for file in files if _looks_right(file))


def _looks_right(file: Path) -> bool:
    with file.open("rb") as opened:
        head = opened.read(1 << 16)
        opened.seek(max(0, file.stat().st_size - (1 << 16)))
        tail = opened.read(1 << 16)
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and bool(
        _KEYS.search(head) or _KEYS.search(tail)
    )


def _categories(rows: list[Any], file: Path) -> dict[Any, str]:
    try:
        names = {int(row["id"]): str(row["name"]).strip() for row in rows}
        return dict(sorted(names.items()))
    except (TypeError, KeyError) as error:
        raise DataError(
            f"{file}: each category needs an id and a name, got {rows!r:.200}"
        ) from error


class _Finder:
    """Where pictures lie, seen from the JSON file: tried in the layouts that people use."""

    def __init__(self, file: Path, root: Path) -> None:
        self._bases = list(self._guess(file, root))

    @staticmethod
    def _guess(file: Path, root: Path) -> Iterator[Path]:
        split = file.stem.removeprefix("instances_")
        for base in dict.fromkeys((file.parent, root, file.parent.parent)):
            yield from (base / part for part in ("", "images", "JPEGImages", "data", file.stem))
            for name in dict.fromkeys((split, split.rstrip("0123456789"))):
                yield from (base / name, base / "images" / name)

    def __call__(self, name: str) -> Path:
        for index, base in enumerate(self._bases):
            if (base / name).is_file():
                self._bases.insert(0, self._bases.pop(index))  # the next one lies there, too
                return base / name
        return self._bases[0] / name


def _picture(row: Any, file: Path, place: _Finder, problems: list[Problem]) -> RawPicture | None:
    name = row.get("file_name") if isinstance(row, dict) else None
    if not isinstance(name, str) or not name or not isinstance(row.get("id"), int):
        text = f"image without integer id or file_name: {row!r:.120}; it is skipped"
        problems.append(Problem(kind="annotation", file=file, line=None, text=text))
        return None
    picture = RawPicture(path=place(name), annotation=file, image_id=row["id"])
    sides = [number(str(row.get(side))) for side in ("width", "height")]
    if all(side is not None and side > 0 for side in sides):
        picture.size_wh_px = (int(sides[0] or 0), int(sides[1] or 0))
    return picture


def _add_box(
    row: Any,
    names: dict[Any, str],
    pictures: dict[Any, RawPicture],
    file: Path,
    problems: list[Problem],
) -> None:
    row = row if isinstance(row, dict) else {}
    where = f"annotation {row.get('id')!r} of image {row.get('image_id')!r}"
    picture, name = pictures.get(row.get("image_id")), names.get(row.get("category_id"))
    bbox = row.get("bbox")
    numbers = [number(str(v)) for v in bbox] if isinstance(bbox, list) and len(bbox) == 4 else []
    x, y, w, h = numbers or (None,) * 4
    if picture is None:
        kind, text = "annotation", f"{where}: no such image; the box is dropped"
    elif name is None:
        kind, text = "class", f"{where}: no category {row.get('category_id')!r}; the box is dropped"
    elif x is None or y is None or w is None or h is None:
        kind, text = (
            "box",
            f"{where}: wanted bbox [x, y, w, h], got {bbox!r:.80}; the box is dropped",
        )
    else:
        crowd, difficult = bool(row.get("iscrowd")), bool(row.get("difficult") or row.get("ignore"))
        area = number(str(row.get("area")))
        xyxy = (x, y, x + w, y + h)
        box = RawBox(xyxy=xyxy, name=name, crowd=crowd, difficult=difficult, area=area)
        picture.boxes.append(box)
        return
    problems.append(Problem(kind=kind, file=file, line=None, text=text))
