"""CVAT for images 1.1: one XML, pictures as <image> with <box>, <polygon> and their like in it."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree.ElementTree import Element

from pipeline.errors import DataError
from stages.training.formats import Problem, Raw, RawBox, RawPicture, canonical, number
from stages.training.formats.finder import Finder
from stages.training.formats.voc import LINE, parse

_CORNERS = ("xtl", "ytl", "xbr", "ybr")
_SHAPES = ("box", "polygon", "polyline")


def find(path: Path) -> bool:
    """An XML file of CVAT, or a folder with one."""
    return _file(path) is not None


def read(path: Path, split: str | None, problems: list[Problem]) -> Raw:
    """Parse the file. A split is what CVAT calls a subset."""
    file = _file(path) or path
    found: list[Problem] = []
    tree = parse(file, found)
    if tree is None:
        raise DataError(str(found[0]))
    if tree.find("track") is not None:
        raise DataError(
            f"{file}: CVAT for video (tracks); export it as CVAT for images, or as COCO"
        )
    root = path if path.is_dir() else path.parent
    place = Finder(root, (root / "images", root))
    pictures = []
    for image in tree.iter("image"):
        subset = image.get("subset") or ""
        if split is None or canonical(subset) == canonical(split):
            pictures.append(_picture(image, place, file, problems))
    if split is not None and not pictures:
        have = ", ".join(sorted({image.get("subset") or "none" for image in tree.iter("image")}))
        raise DataError(f"{file}: no split {split!r}; its subsets are: {have}")
    labels = [(label.findtext("name") or "").strip() for label in tree.iterfind("meta//label")]
    used = [box.name for picture in pictures for box in picture.boxes]
    return Raw(root=root, pictures=pictures, classes=tuple(dict.fromkeys((*labels, *used))))


def _file(path: Path) -> Path | None:
    files = [path] if path.suffix == ".xml" and path.is_file() else sorted(path.glob("*.xml"))
    for file in files:
        with file.open("rb") as opened:
            head = opened.read(1 << 16).replace(b"\0", b"")
        if re.search(rb"<annotations[\s>]", head) and re.search(
            rb"<(meta|image|version)[\s>]", head
        ):
            return file
    return None


def _picture(image: Element, place: Finder, file: Path, problems: list[Problem]) -> RawPicture:
    name = image.get("name") or ""
    picture = RawPicture(path=place(name), annotation=file)
    width, height = (int(number(image.get(side)) or 0) for side in ("width", "height"))
    if width > 0 and height > 0:
        picture.size_wh_px = (width, height)
    for shape in image:
        line = int(shape.get(LINE, 0)) or None
        label = (shape.get("label") or "").strip()
        corners = _corners(shape) if shape.tag in _SHAPES else None
        if shape.tag == "tag":  # of the whole picture
            continue
        if corners is None or not label:
            text = (
                f"wanted a box or polygon with a label, got <{shape.tag}> of {name}; it is dropped"
            )
            problems.append(Problem(kind="box", file=file, line=line, text=text))
            continue
        picture.boxes.append(RawBox(xyxy=corners, name=label, line=line))
    return picture


def _corners(shape: Element) -> tuple[float, float, float, float] | None:
    if shape.tag == "box":
        values = [number(shape.get(corner)) for corner in _CORNERS]
    else:
        points = [pair.partition(",")[::2] for pair in (shape.get("points") or "").split(";")]
        xs, ys = [number(x) for x, _ in points], [number(y) for _, y in points]
        if None in xs or None in ys:
            return None
        values = [min(x or 0 for x in xs), min(y or 0 for y in ys)]
        values += [max(x or 0 for x in xs), max(y or 0 for y in ys)]
    x1, y1, x2, y2 = values
    return None if x1 is None or y1 is None or x2 is None or y2 is None else (x1, y1, x2, y2)
