"""The rows of YOLO's label files: boxes, polygons, turned boxes, poses, with a confidence or without."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from stages.training.formats import Problem, RawBox, RawPicture, number, read_text

MAX_TEXT_BYTES = 64 << 20
_VISIBILITIES = (0, 1, 2)
Row = tuple[Path, int, RawPicture, list[float]]  # file, line, the picture it belongs to, numbers
Corners = tuple[float, float, float, float]


class Rows:
    """Reads label files row by row; long rows wait until all are known.

    A row of 7 numbers or more is a polygon or a box with key points, and the row alone may not say
    which: all of a data set together do.
    """

    def __init__(self, names: dict[int, str], kpt_shape: Any, problems: list[Problem]) -> None:
        """names: number of a class to its name; empty: the numbers. kpt_shape: of the YAML, [K, 2 or 3]."""
        self._names = names
        self._problems = problems
        self._long: list[Row] = []
        self._kept: set[tuple[Path, str, Corners]] = set()
        self._pose_length = _pose_length(kpt_shape)

    def add(self, file: Path, picture: RawPicture) -> None:
        """The rows of one label file, into `picture`. Raises DataError if it is no text."""
        confident = []
        for line, row in enumerate(read_text(file, MAX_TEXT_BYTES).splitlines(), 1):
            width = len(row.split())
            values = [v for v in map(number, row.split()) if v is not None]
            if not width:
                continue
            if len(values) == width == 6 and 0 <= values[5] <= 1:
                confident.append(line)
                width, values = 5, values[:5]
            known = len(values) in (5, self._pose_length) or (len(values) >= 7 and len(values) % 2)
            long = len(values) >= 7  # with visibilities a pose may have any number
            if len(values) != width or not (known or long) or values[0] % 1:
                text = f"wanted `class cx cy w h` or a polygon, got {row.strip()[:80]!r}; it is dropped"
                self._tell("box", file, line, text)
            elif len(values) == 5 or len(values) == self._pose_length:
                self._keep((file, line, picture, values[:5]), _box(values))
            else:
                self._long.append((file, line, picture, values))
        if confident:
            text = f"{len(confident)} rows have a sixth number, taken for a confidence and left out"
            self._tell("repaired", file, confident[0], text)

    def finish(self) -> None:
        """The rows that waited, into their pictures."""
        lengths = Counter(len(values) for *_, values in self._long)
        poses = len(lengths) == 1 and all(_like_a_pose(values) for *_, values in self._long)
        if poses and self._long:
            file, line, _, values = self._long[0]
            text = (
                f"{len(self._long)} rows of {len(values)} numbers hold a box and the key points in it; "
                "the boxes are taken, the points left out (write kpt_shape into the YAML to be sure)"
            )
            self._tell("repaired", file, line, text)
        for file, line, picture, values in self._long:
            if poses:
                self._keep((file, line, picture, values), _box(values))
            elif len(values) % 2:
                xs, ys = values[1::2], values[2::2]
                self._keep((file, line, picture, values), (min(xs), min(ys), max(xs), max(ys)))
            else:
                text = f"{len(values)} numbers are neither a box nor a polygon; it is dropped"
                self._tell("box", file, line, text)

    def _keep(self, row: Row, xyxy: Corners) -> None:
        file, line, picture, values = row
        index = int(values[0])
        if index < 0 or (self._names and index not in self._names):
            text = f"class {index} of {len(self._names)} classes; the box is dropped"
            self._tell("class", file, line, text)
            return
        name = self._names[index] if self._names else str(index)
        box = (picture.path, name, xyxy)
        if box in self._kept:  # the trainers of this format read it once, too
            text = f"a {name} of {picture.path.name} stands there twice; it is read once"
            self._tell("repeated", file, line, text)
            return
        self._kept.add(box)
        picture.boxes.append(RawBox(xyxy=xyxy, name=name, line=line))

    def _tell(self, kind: str, file: Path, line: int, text: str) -> None:
        self._problems.append(Problem(kind=kind, file=file, line=line, text=text))


def _pose_length(kpt_shape: Any) -> int | None:
    """How many numbers a row with key points has, or None without a usable `kpt_shape`."""
    sides = kpt_shape if isinstance(kpt_shape, list) else []
    usable = len(sides) == 2 and all(isinstance(side, int) and 0 < side < 10_000 for side in sides)
    return 5 + sides[0] * sides[1] if usable else None


def _box(values: list[float]) -> Corners:
    cx, cy, w, h = values[1:5]
    return (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)


def _like_a_pose(values: list[float]) -> bool:
    """Whether the numbers after a box are key points: with visibilities, or all within the box."""
    points = values[5:]
    x1, y1, x2, y2 = _box(values)
    if len(points) % 3 == 0 and len(points) >= 6 and all(v in _VISIBILITIES for v in points[2::3]):
        return True
    slack = 0.01
    inside = (
        x1 - slack <= x <= x2 + slack and y1 - slack <= y <= y2 + slack
        for x, y in zip(points[::2], points[1::2], strict=False)
    )
    return len(points) >= 4 and len(points) % 2 == 0 and all(inside)
