"""What zones and lines must be; every mistake is one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np

from pipeline.errors import ConfigError
from stages.scene.geometry import area, crosses_itself
from stages.scene.places import Line, Zone

MIN_AREA = 1e-4  # of the picture
MIN_LENGTH = 0.01
_DRAW = "draw it with `manyeyes zones`"


def check_zone(zone: Zone, classes: Sequence[str]) -> None:
    """Raises ConfigError."""
    where = f"zone {zone.name!r}"
    _check_points(where, "polygon", zone.polygon)
    polygon = np.array(zone.polygon, np.float64)
    if len(polygon) < 3:
        raise ConfigError(f"{where}: polygon must have 3 points or more, got {len(polygon)}")
    if crosses_itself(polygon):
        raise ConfigError(
            f"{where}: polygon crosses itself; list its corners in their order around it, or {_DRAW}"
        )
    if area(polygon) < MIN_AREA:
        raise ConfigError(
            f"{where}: polygon must have an area of {MIN_AREA} of the picture or more, "
            f"got {area(polygon):.2g}; {_DRAW}"
        )
    _check_classes(where, zone.classes, classes)


def check_line(line: Line, classes: Sequence[str]) -> None:
    """Raises ConfigError."""
    where = f"line {line.name!r}"
    _check_points(where, "points", line.points)
    if len(line.points) != 2:
        raise ConfigError(f"{where}: points must be two, got {len(line.points)}")
    (x1, y1), (x2, y2) = line.points
    if np.hypot(x2 - x1, y2 - y1) < MIN_LENGTH:
        raise ConfigError(
            f"{where}: points must be {MIN_LENGTH} of the picture apart or more; {_DRAW}"
        )
    if line.to_right == line.to_left:
        raise ConfigError(
            f"{where}: to_right and to_left must be different names, got {line.to_left!r} twice"
        )
    _check_classes(where, line.classes, classes)


def _check_points(where: str, key: str, points: Sequence[tuple[float, float]]) -> None:
    for x, y in points:
        if not (0 <= x <= 1 and 0 <= y <= 1):
            hint = "; divide px by the picture's width and height" if max(x, y) > 1 else ""
            raise ConfigError(
                f"{where}: {key} must lie in the picture, each number within 0..1, "
                f"got [{x:g}, {y:g}]{hint}"
            )


def _check_classes(where: str, wanted: Sequence[str] | None, classes: Sequence[str]) -> None:
    for name in wanted or ():
        if name not in classes:
            close = difflib.get_close_matches(name, classes, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"it knows {', '.join(classes[:10])}"
            raise ConfigError(f"{where}: classes: the model has no class {name!r}; {hint}")
