"""What data set formats have in common: raw annotations as written in the files, and problems found.

A format is a module with `find(path) -> bool`, which says by looking whether `path` is one of its data
sets, and `read(path, split, problems) -> Raw`, which parses without opening a picture. What is true of
all formats (pictures that are missing, boxes outside of them, EXIF) is judged in `datasets`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something in a data set that was repaired, dropped or skipped."""

    kind: str
    """One of: empty-tag, box, degenerate, clipped, class, missing, broken, duplicate, size, exif,
    annotation, unlisted."""
    file: Path
    line: int | None  # 1-based; None where the format has no lines
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line is not None else str(self.file)
        return f"{place}: {self.text}"


@dataclass(slots=True, kw_only=True)
class RawBox:
    """One annotated box as its file has it: any floats, perhaps outside of the picture."""

    xyxy: tuple[float, float, float, float]
    """In px, or in 0..1 of the picture's sides where the picture is `normalised`."""
    name: str  # of the class
    crowd: bool = False
    difficult: bool = False
    line: int | None = None


@dataclass(slots=True, kw_only=True)
class RawPicture:
    """One picture and its boxes. `size_wh_px` is what the annotation claims, None if it does not."""

    path: Path
    boxes: list[RawBox] = field(default_factory=list)
    annotation: Path
    size_wh_px: tuple[int, int] | None = None
    normalised: bool = False
    image_id: int | None = None


@dataclass(slots=True, kw_only=True)
class Raw:
    """A whole data set before its pictures were looked at. `classes`: None if only the boxes name them."""

    root: Path
    pictures: list[RawPicture]
    classes: tuple[str, ...] | None = None
