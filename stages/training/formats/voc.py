"""Pascal VOC: one XML a picture, lists of names in ImageSets/Main.

Coordinates are taken as they stand: VOC's own files count pixels from 1, most tools that write this
format count from 0, and no file says which.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import XMLParser

from pipeline.errors import DataError
from stages.training.formats import (
    Problem,
    Raw,
    RawBox,
    RawPicture,
    canonical,
    child,
    number,
    read_text,
)
from stages.training.formats.finder import Finder

MAX_XML_BYTES = 16 << 20
LINE = " line"  # no XML attribute can have this name


def find(path: Path) -> bool:
    """A folder with VOC's XML in Annotations/ (or annotations/), else anywhere in it."""
    return path.is_dir() and any(is_one(file) for file in _files(path)[:3])


def is_one(file: Path) -> bool:
    """Whether an XML file begins as an annotation of VOC; CVAT's own has <annotations>."""
    with file.open("rb") as opened:
        head = opened.read(4096).replace(b"\0", b"")  # UTF-16 has a NUL beside each letter
    return re.search(rb"<annotation[\s>/]", head) is not None


def read(path: Path, split: str | None, problems: list[Problem]) -> Raw:
    """Parse all XML files; keep the pictures that ImageSets/Main/<split>.txt lists, or a folder's.

    Classes are those of all files, so that every split numbers them alike.
    """
    annotations = _annotations(path)
    find_picture = _Finder(path)
    parsed: dict[str, RawPicture] = {}
    troubles: dict[str, list[Problem]] = {}
    for file in _files(path):
        key = file.relative_to(annotations).with_suffix("").as_posix()
        root = parse(file, troubles.setdefault(key, []))
        if root is not None:
            parsed[key] = _picture(root, find_picture(key, root), file, troubles[key])
    names = {box.name for picture in parsed.values() for box in picture.boxes}
    pictures = []
    wanted = _listed(path, split, troubles) if split else [(key, None, None) for key in troubles]
    for key, source, line in wanted:
        if key not in troubles:
            text = f"no annotation {key}.xml in {annotations.name}; the picture is skipped"
            problems.append(Problem(kind="annotation", file=source or path, line=line, text=text))
        problems += troubles.get(key, [])
        pictures += [parsed[key]] if key in parsed else []
    if not split:
        used = {picture.path for picture in pictures}
        for path_ in (found for found in find_picture.everywhere.pictures if found not in used):
            text = "no annotation names this picture; it is left out"
            problems.append(Problem(kind="unlisted", file=path_, line=None, text=text))
    return Raw(root=path, pictures=pictures, classes=tuple(sorted(names)))


def _annotations(path: Path) -> Path:
    folder = child(path, "Annotations")
    return folder if folder and next(folder.rglob("*.xml"), None) else path


def _files(path: Path) -> list[Path]:
    return sorted(_annotations(path).rglob("*.xml"))


class _Finder:
    """The picture of an annotation: of its own name by VOC's rule, else of the name it states."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.everywhere = Finder(root)
        found = self.everywhere.pictures
        self._by_key = {p.relative_to(root).with_suffix("").as_posix(): p for p in found}
        self._by_stem: dict[str, list[Path]] = {}
        for picture in found:
            self._by_stem.setdefault(picture.stem, []).append(picture)

    def __call__(self, key: str, root: Element) -> Path:
        name = (root.findtext("filename") or "").strip().replace("\\", "/")
        stated = Path(name).name
        for folder in ("JPEGImages/", "images/", ""):
            if f"{folder}{key}" in self._by_key:
                return self._by_key[f"{folder}{key}"]
        same = self._by_stem.get(Path(key).name, [])
        if len(same) == 1:
            return same[0]
        place = (root.findtext("folder") or "").strip()
        found = self.everywhere(f"{place}/{name or Path(key).name}")
        if not found.is_file() and same:
            return same[0]
        return found if found.is_file() else self._root / "JPEGImages" / (stated or f"{key}.jpg")


def _listed(
    path: Path, split: str, keys: Iterable[str]
) -> list[tuple[str, Path | None, int | None]]:
    """Keys of the annotations of a split, and where each is listed."""
    lists = path / "ImageSets" / "Main"
    file = lists / f"{split}.txt"
    if not file.is_file():
        inside = [key for key in keys if canonical(key.split("/")[0]) == canonical(split)]
        if inside and not lists.is_dir():  # train/, valid/, test/ with pictures and XML in each
            return [(key, None, None) for key in inside]
        have = ", ".join(sorted(p.stem for p in lists.glob("*.txt")))
        have = have or "none; make some with `manyeyes data split`"
        raise DataError(f"{path}: no split {split!r} in ImageSets/Main; there is: {have}")
    known = set(keys)
    rows = enumerate(read_text(file, MAX_XML_BYTES).splitlines(), 1)
    return [(_key_of(row.strip(), known), file, line) for line, row in rows if row.strip()]


def _key_of(row: str, known: set[str]) -> str:
    """The annotation that a row of a list means: with a suffix or a folder, spaces and all."""
    # Lists of one class have a second column; -1 says that the class isn't in the picture.
    for text in (row, re.sub(r"\s+-?[01]$", "", row)):
        stem = re.sub(r"\.(\w{3,4})$", "", text).removeprefix("./")
        for key in (text, stem, stem.partition("/")[2], Path(stem).name):
            if key in known:
                return key
    return row.split(maxsplit=1)[0]


class _LineBuilder(TreeBuilder):
    """Remembers where each element starts, so that a problem can name its line."""

    parser: Any = None

    def start(self, tag: Any, attrs: dict[Any, Any], /) -> Element:
        return super().start(tag, {**attrs, LINE: str(self.parser.parser.CurrentLineNumber)})


def parse(file: Path, problems: list[Problem]) -> Element | None:
    """The root of an XML file, entities refused; None where it is none, which is told."""
    builder = _LineBuilder()
    parser = XMLParser(target=builder)
    builder.parser = parser
    try:
        size = file.stat().st_size
        if size > MAX_XML_BYTES:
            raise DataError(f"{size} bytes, wanted at most {MAX_XML_BYTES}")
        parser.feed(_decoded(file.read_bytes()))
        root: Element = parser.close()
    except (ParseError, DefusedXmlException, DataError, OSError, ValueError, LookupError) as error:
        line = error.position[0] if isinstance(error, ParseError) else None
        text = f"no readable XML ({error}); its picture is skipped"
        problems.append(Problem(kind="annotation", file=file, line=line, text=text))
        return None
    return root


def _decoded(data: bytes) -> bytes | str:
    """XML in an encoding that expat does not know (GB 2312, Shift JIS, …) as text."""
    declared = re.match(rb"<\?xml[^>]{0,100}encoding=[\"']([\w.-]+)", data)
    name = declared.group(1).decode().lower() if declared else "utf-8"
    known = ("utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "utf-16")
    return data if name in known else data.decode(name)


def _picture(root: Element, picture: Path, file: Path, problems: list[Problem]) -> RawPicture:
    sides = [number(root.findtext(f"size/{side}")) for side in ("width", "height")]
    width, height = (int(side or 0) for side in sides)
    raw = RawPicture(path=picture, annotation=file)
    if width > 0 and height > 0:
        raw.size_wh_px = (width, height)
    for element in root.iter("object"):
        line = int(element.get(LINE, 0)) or None
        name = (element.findtext("name") or "").strip()
        texts = [element.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        x1, y1, x2, y2 = (_corner(text) for text in texts)
        if not name or x1 is None or y1 is None or x2 is None or y2 is None:
            got = f"name {name!r}, corners {', '.join(repr(text) for text in texts)}"
            text = f"wanted a name and four finite corners, got {got}; the box is dropped"
            problems.append(Problem(kind="box", file=file, line=line, text=text))
            continue
        if any("," in (text or "") for text in texts):
            text = f"the commas in {', '.join(repr(text) for text in texts)} are taken for points"
            problems.append(Problem(kind="repaired", file=file, line=line, text=text))
        if x2 < x1 or y2 < y1:
            text = f"the corners {x1:g}, {y1:g}, {x2:g}, {y2:g} of {name} are taken the other way round"
            problems.append(Problem(kind="repaired", file=file, line=line, text=text))
        xyxy = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
        difficult = (element.findtext("difficult") or "").strip() == "1"
        raw.boxes.append(RawBox(xyxy=xyxy, name=name, difficult=difficult, line=line))
    values = [value for box in raw.boxes for value in box.xyxy]
    if values and all(0 <= value <= 1 for value in values) and any(value % 1 for value in values):
        raw.normalised = True
        text = "all corners lie in 0..1; they are taken as shares of width and height"
        problems.append(Problem(kind="repaired", file=file, line=raw.boxes[0].line, text=text))
    return raw


def _corner(text: str | None) -> float | None:
    """A coordinate; "20,5" is one of a machine that writes a comma, "1,234" might be two things."""
    comma = re.fullmatch(r"\s*-?\d+,(\d{1,2}|\d{4,})\s*", text or "")
    return number((text or "").replace(",", ".")) if comma else number(text)
