"""COCO JSON: one file for all pictures of a part, boxes as x, y, width, height."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from stages.training.formats import (
    Problem,
    Raw,
    RawBox,
    RawPicture,
    chosen,
    merged,
    number,
    read_text,
    words,
)
from stages.training.formats.finder import Finder

MAX_JSON_BYTES = 2 << 30  # COCO's own training set has 0.45 GiB
_KEYS = re.compile(rb'"(images|annotations)"\s*:')
_NO_CLASS = ("none", "", None)  # what Roboflow writes above its uppermost category


def find(path: Path) -> bool:
    """A JSON file with COCO's keys, or a folder that holds some (itself or in a folder of it)."""
    return bool(_files(path))


def read(path: Path, split: str | None, problems: list[Problem]) -> Raw:
    """Parse one file; in a folder, those that `split` names, or all."""
    files = [path] if path.is_file() else chosen(_files(path), split, "COCO")
    # beside COCO's own boxes lie captions and key points of the same pictures
    files = [file for file in files if "instances" in file.stem] or files
    root = path if path.is_dir() else path.parent
    return merged(root, [_read(file, root, problems) for file in files])


def _read(file: Path, root: Path, problems: list[Problem]) -> Raw:
    try:
        data = json.loads(read_text(file, MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: no JSON: {error}") from error
    lists = [data.get(key) if isinstance(data, dict) else None for key in ("images", "categories")]
    if not all(isinstance(rows, list) for rows in lists):
        raise DataError(
            f"{file}: wanted an object with lists `images` and `categories`; is it COCO?"
        )
    annotations = data.get("annotations") or []
    names = _categories(data["categories"], annotations, file)
    find_picture = Finder(root, _near(file, root), words(file))
    pictures: dict[int | str, RawPicture] = {}
    for row in data["images"]:
        key = _key(row.get("id")) if isinstance(row, dict) else None
        picture = _picture(row, file, find_picture, problems)
        if picture is None or key is None:
            continue
        if key in pictures:
            text = f"image id {key} is used twice; the second picture is skipped"
            problems.append(Problem(kind="annotation", file=file, line=None, text=text))
            continue
        pictures[key] = picture
    for row in annotations:
        _add_box(row, names, pictures, file, problems)
    ids = {name: category for category, name in reversed(names.items())}  # the first of equal names
    classes = tuple(dict.fromkeys(names.values()))
    numbers = tuple(category for name in classes if isinstance(category := ids[name], int))
    return Raw(
        root=root,
        pictures=list(pictures.values()),
        classes=classes,
        category_ids=numbers if len(numbers) == len(classes) else None,
    )


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix == ".json" and _looks_right(path) else []
    files = [*path.glob("*.json"), *path.glob("*/*.json")]
    return sorted(file for file in files if _looks_right(file))


def _looks_right(file: Path) -> bool:
    with file.open("rb") as opened:
        head = opened.read(1 << 16)
        opened.seek(max(0, file.stat().st_size - (1 << 16)))
        tail = opened.read(1 << 16)
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and bool(
        _KEYS.search(head) or _KEYS.search(tail)
    )


def _key(value: Any) -> int | str | None:
    """An id as it was meant: 7, 7.0 and "7" are one; None if it is none.

    >>> _key("7"), _key(7.0), _key("img_7")
    (7, 7, 'img_7')
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str) or value == "":
        return None
    if isinstance(value, int):
        return value
    as_number = number(str(value))
    if as_number is not None and as_number == int(as_number):
        return int(as_number)
    return value if isinstance(value, str) else None


def _categories(rows: list[Any], annotations: list[Any], file: Path) -> dict[int | str, str]:
    names: dict[int | str, str] = {}
    for row in rows:
        key = _key(row.get("id")) if isinstance(row, dict) else None
        if key is None or not isinstance(row.get("name"), str | int):
            raise DataError(f"{file}: each category needs an id and a name, got {row!r:.200}")
        names[key] = str(row["name"]).strip()
    above = {row.get("supercategory") for row in rows}
    used = {_key(row.get("category_id")) for row in annotations if isinstance(row, dict)}
    for row in rows:  # the name of a Roboflow project stands among its classes
        key = _key(row["id"])
        top = row.get("supercategory", "-") in _NO_CLASS and row["name"] in above
        if top and key is not None and key not in used:
            del names[key]
    return dict(sorted(names.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def _near(file: Path, root: Path) -> Iterator[Path]:
    """Folders that the pictures of a JSON file may lie in: the layouts that people use."""
    split = file.stem.removeprefix("instances_")
    for base in dict.fromkeys((file.parent, root, file.parent.parent)):
        yield from (base / part for part in ("", "images", "JPEGImages", "data", file.stem))
        for name in dict.fromkeys((split, split.rstrip("0123456789"))):
            yield from (base / name, base / "images" / name)


def _picture(row: Any, file: Path, place: Finder, problems: list[Problem]) -> RawPicture | None:
    name = row.get("file_name") if isinstance(row, dict) else None
    key = _key(row.get("id")) if isinstance(row, dict) else None
    if not isinstance(name, str) or not name or key is None:
        text = f"image without id or file_name: {row!r:.120}; it is skipped"
        problems.append(Problem(kind="annotation", file=file, line=None, text=text))
        return None
    image_id = key if isinstance(key, int) else None
    picture = RawPicture(path=place(name), annotation=file, image_id=image_id)
    sides = [number(str(row.get(side))) for side in ("width", "height")]
    if all(side is not None and side > 0 for side in sides):
        picture.size_wh_px = (int(sides[0] or 0), int(sides[1] or 0))
    return picture


def _add_box(
    row: Any,
    names: dict[int | str, str],
    pictures: dict[int | str, RawPicture],
    file: Path,
    problems: list[Problem],
) -> None:
    row = row if isinstance(row, dict) else {}
    where = f"annotation {row.get('id')!r} of image {row.get('image_id')!r}"
    image, category = _key(row.get("image_id")), _key(row.get("category_id"))
    picture = None if image is None else pictures.get(image)
    name = None if category is None else names.get(category)
    bbox = row.get("bbox")
    if not bbox and row.get("segmentation") and picture is not None:
        bbox = _around(row["segmentation"], picture.size_wh_px)
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
        area = number(str(row.get("area")))
        picture.boxes.append(
            RawBox(
                xyxy=(x, y, x + w, y + h),
                name=name,
                crowd=_flag(row, "iscrowd"),
                difficult=_flag(row, "difficult") or _flag(row, "ignore"),
                area=area,
            )
        )
        return
    problems.append(Problem(kind=kind, file=file, line=None, text=text))


def _flag(row: dict[str, Any], name: str) -> bool:
    """A flag as true, 1, "1" or "true"."""
    return str(row.get(name)).strip().lower() in ("true", "1", "1.0")


def _around(segmentation: Any, size_wh: tuple[int, int] | None) -> list[float] | None:
    """The box around a mask: polygons, or run lengths as numbers or as COCO's text."""
    if isinstance(segmentation, list):
        polygons = [part for part in segmentation if isinstance(part, list)]
        values = [[number(str(v)) for v in part] for part in polygons if len(part) >= 6]
        if not values or any(v is None for part in values for v in part):
            return None
        xs = [v or 0.0 for part in values for v in part[::2]]
        ys = [v or 0.0 for part in values for v in part[1::2]]
        return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        return None
    from faster_coco_eval.core import mask

    try:
        height, width = (int(side) for side in segmentation.get("size") or (size_wh or ())[::-1])
        runs = {"size": [height, width], "counts": segmentation["counts"]}
        packed = mask.frPyObjects(runs, height, width) if isinstance(runs["counts"], list) else runs
        return [float(v) for v in mask.toBbox(packed)]
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
