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

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
_ALIASES = {
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "testing": "test",
    "training": "train",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something in a data set that was repaired, dropped or skipped."""

    kind: str
    """What happened: `degenerate`, `box`, `class` (a box was dropped), `clipped` (a box was cut to
    its picture), `missing`, `broken`, `duplicate`, `annotation` (a picture was skipped), `unlisted`
    (a picture that no annotation names), `size` (the annotation claims another size), `exif` (boxes
    were turned along with the picture)."""
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


def pictures_below(folder: Path) -> list[Path]:
    """All pictures in a folder and its folders, by their suffix, sorted; hidden ones left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    return sorted(path for path in found if not path.name.startswith(".") and path.is_file())


def canonical(split: str) -> str:
    """A split's common name, so that `valid` finds what is called `val2017`.

    >>> canonical("validation"), canonical("train2017")
    ('val', 'train')
    """
    name = split.lower().rstrip("0123456789_-")
    return _ALIASES.get(name, name)


def choose(files: Iterable[Path], split: str | None, what: str) -> Path:
    """The one file of `split`, told by the words in its name. Raises DataError if none or many."""
    files = sorted(files)
    if split is None:
        if len(files) == 1:
            return files[0]
        names = ", ".join(path.name for path in files)
        raise DataError(
            f"{files[0].parent}: {len(files)} {what} files ({names}); choose one with split"
        )
    exact = [path for path in files if path.stem == split]
    words = [path for path in files if canonical(split) in _words(path.stem)]
    for group in (exact, words):
        if len(group) == 1:
            return group[0]
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


def _words(stem: str) -> set[str]:
    words = "".join(c if c.isalpha() else " " for c in stem).split()
    return {canonical(word) for word in words}
