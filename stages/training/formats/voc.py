"""Pascal VOC: one XML a picture, lists of names in ImageSets/Main.

Coordinates are taken as they stand: VOC's own files count pixels from 1, most tools that write this
format count from 0, and no file says which.
"""

from __future__ import annotations

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
    number,
    pictures_below,
    read_text,
)

MAX_XML_BYTES = 16 << 20
_LINE = " line"  # no XML attribute can have this name


def find(path: Path) -> bool:
    """A folder with Annotations/**.xml, or with XML files beside its pictures."""
    if not path.is_dir():
        return False
    folder = path / "Annotations"
    first = next(folder.rglob("*.xml") if folder.is_dir() else path.glob("*.xml"), None)
    if first is None:
        return False
    with first.open("rb") as opened:
        return b"<annotation" in opened.read(4096)


def read(path: Path, split: str | None, problems: list[Problem]) -> Raw:
    """Parse all XML files; keep the pictures that ImageSets/Main/<split>.txt lists.

    Classes are those of all files, so that every split numbers them alike.
    """
    annotations = path / "Annotations" if (path / "Annotations").is_dir() else path
    find_picture = _Finder(path)
    parsed: dict[str, RawPicture] = {}
    troubles: dict[str, list[Problem]] = {}
    for file in sorted(annotations.rglob("*.xml")):
        key = file.relative_to(annotations).with_suffix("").as_posix()
        root = _parse(file, troubles.setdefault(key, []))
        if root is not None:
            parsed[key] = _picture(root, find_picture(key, root), file, troubles[key])
    names = {box.name for picture in parsed.values() for box in picture.boxes}
    pictures = []
    for key, source, line in _listed(path, split) if split else [(k, None, None) for k in troubles]:
        if key not in troubles:
            text = f"no annotation {key}.xml in {annotations.name}; the picture is skipped"
            problems.append(Problem(kind="annotation", file=source or path, line=line, text=text))
        problems += troubles.get(key, [])
        pictures += [parsed[key]] if key in parsed else []
    if not split:
        used = {picture.path for picture in pictures}
        for path_ in (found for found in find_picture.found if found not in used):
            text = "no annotation names this picture; it is left out"
            problems.append(Problem(kind="unlisted", file=path_, line=None, text=text))
    return Raw(root=path, pictures=pictures, classes=tuple(sorted(names)))


class _Finder:
    """The picture of an annotation: of its own name by VOC's rule, else of the name it states."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.found = pictures_below(root)
        self._by_key = {p.relative_to(root).with_suffix("").as_posix(): p for p in self.found}
        self._by_stem = {picture.stem: picture for picture in reversed(self.found)}
        self._by_name = {picture.name: picture for picture in reversed(self.found)}

    def __call__(self, key: str, root: Element) -> Path:
        stated = Path((root.findtext("filename") or "").strip()).name
        near = [self._by_key.get(f"{folder}{key}") for folder in ("JPEGImages/", "images/", "")]
        candidates = (*near, self._by_stem.get(Path(key).name), self._by_name.get(stated))
        wanted = self._root / "JPEGImages" / (stated or f"{key}.jpg")
        return next((candidate for candidate in candidates if candidate), wanted)


def _listed(path: Path, split: str) -> list[tuple[str, Path | None, int | None]]:
    lists = path / "ImageSets" / "Main"
    file = lists / f"{split}.txt"
    if not file.is_file():
        have = ", ".join(sorted(p.stem for p in lists.glob("*.txt")))
        have = have or "none; make some with `manyeyes data split`"
        raise DataError(f"{path}: no split {split!r} in ImageSets/Main; there is: {have}")
    rows = enumerate(read_text(file, MAX_XML_BYTES).splitlines(), 1)
    # Lists of one class have a second column; -1 says that the class isn't in the picture.
    return [(row.split()[0], file, line) for line, row in rows if row.strip()]


class _LineBuilder(TreeBuilder):
    """Remembers where each element starts, so that a problem can name its line."""

    parser: Any = None

    def start(self, tag: Any, attrs: dict[Any, Any], /) -> Element:
        return super().start(tag, {**attrs, _LINE: str(self.parser.parser.CurrentLineNumber)})


def _parse(file: Path, problems: list[Problem]) -> Element | None:
    builder = _LineBuilder()
    parser = XMLParser(target=builder)
    builder.parser = parser
    try:
        size = file.stat().st_size
        if size > MAX_XML_BYTES:
            raise DataError(f"{size} bytes, wanted at most {MAX_XML_BYTES}")
        parser.feed(file.read_bytes())
        root: Element = parser.close()
    except (ParseError, DefusedXmlException, DataError, OSError, ValueError) as error:
        line = error.position[0] if isinstance(error, ParseError) else None
        text = f"no readable XML ({error}); its picture is skipped"
        problems.append(Problem(kind="annotation", file=file, line=line, text=text))
        return None
    return root


def _picture(root: Element, picture: Path, file: Path, problems: list[Problem]) -> RawPicture:
    sides = [number(root.findtext(f"size/{side}")) for side in ("width", "height")]
    width, height = (int(side or 0) for side in sides)
    raw = RawPicture(path=picture, annotation=file)
    if width > 0 and height > 0:
        raw.size_wh_px = (width, height)
    for element in root.iter("object"):
        line = int(element.get(_LINE, 0)) or None
        name = (element.findtext("name") or "").strip()
        texts = [element.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        x1, y1, x2, y2 = (number(text) for text in texts)
        if not name or x1 is None or y1 is None or x2 is None or y2 is None:
            got = f"name {name!r}, corners {', '.join(repr(text) for text in texts)}"
            text = f"wanted a name and four finite corners, got {got}; the box is dropped"
            problems.append(Problem(kind="box", file=file, line=line, text=text))
            continue
        difficult = (element.findtext("difficult") or "").strip() == "1"
        raw.boxes.append(RawBox(xyxy=(x1, y1, x2, y2), name=name, difficult=difficult, line=line))
    return raw
