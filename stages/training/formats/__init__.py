"""What data set formats have in common: annotations as the files have them, and problems.

A format is a module with `find(path) -> bool`, which says by looking whether `path` is one of its
data sets, and `read(path, split, problems) -> Raw`, which parses without opening a picture. What is
true of all formats (missing pictures, boxes outside of theirs, EXIF) is judged in `datasets`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import DataError
from stages.imaging.order import by_number

PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff"}
)
UNREAD_SUFFIXES = frozenset(
    {".heic", ".heif", ".avif", ".gif", ".jp2", ".j2k", ".jxl", ".tga", ".ppm", ".pgm", ".exr",
     ".dng", ".cr2", ".cr3", ".nef", ".arw", ".psd", ".svg", ".npy"}
)  # fmt: skip
_ALIASES = {
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "testing": "test",
    "training": "train",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something in a data set that was repaired, dropped, skipped or is doubtful."""

    kind: str
    """What happened: `degenerate`, `box`, `class` (a box was dropped), `repeated` (a box stands there
    twice; it is read once of YOLO, else both are kept), `clipped` (a box was cut to its picture),
    `repaired` (a box was read as it was meant, not as it is written), `missing`, `broken`, `annotation`
    (a picture was skipped), `duplicate` (a picture is listed twice; its boxes are taken together),
    `identical` (two pictures are the same byte for byte), `suffix`, `unlisted` (a picture that is not
    read, or that no annotation names), `orphan` (labels without a picture), `unlabelled` (no picture has
    labels), `split` (a part that is named and not there), `names` (classes that may be one), `size` (the
    annotation claims another size), `exif` (boxes were turned along with the picture)."""
    file: Path
    line: int | None  # 1-based; None where the format has no lines
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line is not None else str(self.file)
        return f"{place}: {self.text}"


def summary(problems: Sequence[Problem], shown: int = 5) -> list[str]:
    """Of each kind of problem how many there are, and the first few: lines for a terminal."""
    by_kind: dict[str, list[Problem]] = {}
    for problem in problems:
        by_kind.setdefault(problem.kind, []).append(problem)
    lines = []
    for kind, found in sorted(by_kind.items()):
        lines += [f"{kind}: {len(found)}", *(f"  {problem}" for problem in found[:shown])]
        if len(found) > shown:
            lines.append(f"  … and {len(found) - shown} more (data inspect --json lists all)")
    return lines


@dataclass(slots=True, kw_only=True)
class RawBox:
    """One annotated box as its file has it: any finite floats, perhaps outside of the picture."""

    xyxy: tuple[float, float, float, float]
    """In px, or in 0..1 of the picture's sides where the picture is `normalised`."""
    name: str  # of the class
    crowd: bool = False
    difficult: bool = False
    area: float | None = None  # px², where the file states one (that of a mask, say)
    line: int | None = None


@dataclass(slots=True, kw_only=True)
class RawPicture:
    """One picture and its boxes. `size_wh_px` is what the annotation claims, or None."""

    path: Path
    annotation: Path
    boxes: list[RawBox] = field(default_factory=list)
    size_wh_px: tuple[int, int] | None = None
    normalised: bool = False
    image_id: int | None = None


@dataclass(slots=True, kw_only=True)
class Raw:
    """A data set before a look at its pictures. `classes`: None if only the boxes name them."""

    root: Path
    pictures: list[RawPicture]
    classes: tuple[str, ...] | None = None
    category_ids: tuple[int, ...] | None = None  # the file's own number of each class


def merged(root: Path, parts: Sequence[Raw]) -> Raw:
    """Several files as one data set: classes are one where their names are, numbers count for little."""
    if len(parts) == 1:
        return parts[0]
    pictures = [picture for part in parts for picture in part.pictures]
    ids = [picture.image_id for picture in pictures]
    if len(set(ids)) < len(ids):  # each file counts its pictures from the beginning
        for picture in pictures:
            picture.image_id = None
    classes, numbers = None, {}
    if all(part.classes is not None for part in parts):
        classes = tuple(dict.fromkeys(name for part in parts for name in part.classes or ()))
        agreed = {
            pair
            for part in parts
            for pair in zip(part.classes or (), part.category_ids or (), strict=False)
        }
        numbers = dict(agreed) if len(agreed) == len(classes) else {}
    unique = len(set(numbers.values())) == len(numbers) == len(classes or ())
    kept = tuple(numbers[name] for name in classes) if classes and unique else None
    return Raw(root=root, pictures=pictures, classes=classes, category_ids=kept)


def pictures_below(folder: Path) -> list[Path]:
    """All pictures in a folder and its folders, by their suffix, as people sort them; no hidden ones."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    shown = (path for path in found if not path.name.startswith(".") and path.is_file())
    return sorted(shown, key=by_number)


def child(folder: Path, *names: str) -> Path | None:
    """A folder in `folder` of one of these names, in capitals or not."""
    wanted = [name.casefold() for name in names]
    found = {p.name.casefold(): p for p in sorted(folder.iterdir()) if p.is_dir()}
    return next((found[name] for name in wanted if name in found), None)


def canonical(split: str) -> str:
    """A split's common name, so that `valid` finds what is called `val2017`.

    >>> canonical("validation"), canonical("train2017")
    ('val', 'train')
    """
    name = split.lower().rstrip("0123456789_-")
    return _ALIASES.get(name, name)


def chosen(files: Iterable[Path], split: str | None, what: str) -> list[Path]:
    """The files of `split`, told by the words in their names, else by their folders'; None: all.

    Raises DataError if none is of this split.
    """
    files = sorted(files)
    if split is None:
        return files
    exact = [path for path in files if path.stem == split]
    words = [path for path in files if canonical(split) in _words(path.stem)]
    folders = [path for path in files if canonical(path.parent.name) == canonical(split)]
    found = exact or words or folders
    if found:
        return found
    names = ", ".join(path.name for path in files)
    raise DataError(f"{files[0].parent}: wanted one {what} file for split {split!r}, found {names}")


def number(text: str | None) -> float | None:
    """A finite float, or None if `text` is none."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_text(path: Path, max_bytes: int) -> str:
    """A file of bounded size as text. Raises DataError naming it."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise DataError(
                f"{path}: {size} bytes, wanted at most {max_bytes}; is this an annotation?"
            )
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no UTF-8 text at byte {error.start}; save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def words(file: Path) -> set[str]:
    """The words of a file's name and of its folder's, splits by their common name."""
    return _words(file.stem) | _words(file.parent.name)


def _words(stem: str) -> set[str]:
    return {canonical(word) for word in "".join(c if c.isalpha() else " " for c in stem).split()}
