"""Zones and lines of one camera: what objects do there. Pure.

What an object does at a border counts once, however its box trembles: it is inside when it was `margin`
deep inside, and outside when it was as far outside; large boxes tremble more than small ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.happenings import Kind
from stages.scene.geometry import Anchor, Points, area, beside, depth, edges_in_picture, perimeter
from stages.scene.objects import Beside, Inside, Object

_TREMBLE = 0.05  # of a box's height: the least margin for it
_EDGE_PX = 1e-3  # a point on the picture's border counts as so far inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """`[[zone]]`. Points are relative: (0, 0) is the top left corner of the picture, (1, 1) the other."""

    name: str
    camera: str
    polygon: tuple[tuple[float, float], ...]
    classes: tuple[str, ...] | None = None  # names; None: all
    anchor: Anchor = "feet"
    margin: float = 0.01  # of the picture's height
    loiter_s: float | None = None
    max_objects: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """`[[line]]`. Right is right of who stands on its first point and looks at the second."""

    name: str
    camera: str
    points: tuple[tuple[float, float], tuple[float, float]]
    classes: tuple[str, ...] | None = None
    anchor: Anchor = "feet"
    margin: float = 0.01
    to_right: str = "in"  # what a crossing to its right is called
    to_left: str = "out"


@dataclass(frozen=True, slots=True)
class Seen:
    """Something that an object did; of a zone that is crowded: nobody alone."""

    kind: Kind
    by: Object | None
    direction: str = ""
    total: int = 0
    seconds: float = 0.0


class ZoneWatch:
    """Who is in a zone of a picture of this size."""

    def __init__(self, zone: Zone, size_wh_px: tuple[int, int], labels: frozenset[int]) -> None:
        self.zone = zone
        self._labels = labels
        relative: Points = np.array(zone.polygon, np.float64)
        self._polygon: Points = relative * size_wh_px
        # Where a zone ends with the picture there is nothing to come in from, and feet lie on that very
        # border when the rest of somebody is below.
        self._is_border = edges_in_picture(relative)
        self._limits = _EDGE_PX, np.array(size_wh_px, np.float64) - _EDGE_PX
        # of a narrow zone less: or nobody would ever be that deep inside
        self._most_px = area(self._polygon) / perimeter(self._polygon) / 2
        self._least_px = zone.margin * size_wh_px[1]
        self._inside: set[Object] = set()
        self.crowded = False

    def update(self, here: list[Object], points: Points, t_ns: int) -> Iterator[Seen]:
        """What those who are here, at points (N, 2), do."""
        name, limit_s = self.zone.name, self.zone.loiter_s
        deeps = depth(self._polygon, np.clip(points, *self._limits), self._is_border)
        for one, deep in zip(here, deeps.tolist(), strict=True):
            stay = one.inside.get(name)
            margin_px = min(self._most_px, max(self._least_px, _TREMBLE * one.height_px))
            if stay is None:
                # who is first seen inside has entered; who was seen outside has to come in for sure
                threshold = 0.0 if one.first_ns == t_ns else margin_px
                if one.label not in self._labels or deep <= threshold:
                    continue
                stay = one.inside[name] = Inside(t_ns)
                self._inside.add(one)
                yield Seen("entered", one)
            elif deep < -margin_px:
                yield self._leave(one, t_ns)
                continue
            seconds = (t_ns - stay.since_ns) / 1e9
            if limit_s is not None and seconds >= limit_s and not stay.loitered:
                stay.loitered = True
                yield Seen("loitering", one, seconds=seconds)

    def gone(self, one: Object) -> Iterator[Seen]:
        """Somebody is gone, and so has left, when it was seen last."""
        if self.zone.name in one.inside:
            yield self._leave(one, one.seen_ns)

    def resume(self, one: Object, stay: Inside) -> None:
        """Somebody has been inside, as another process knew."""
        one.inside[self.zone.name] = stay
        self._inside.add(one)

    def crowd(self) -> Iterator[Seen]:
        """To be asked after all others of a frame."""
        limit, n = self.zone.max_objects, len(self._inside)
        if limit is not None and (n > limit) != self.crowded:
            self.crowded = n > limit
            yield Seen("crowded" if self.crowded else "uncrowded", None, total=n)

    def _leave(self, one: Object, t_ns: int) -> Seen:
        stay = one.inside.pop(self.zone.name)
        self._inside.discard(one)
        return Seen("left", one, seconds=(t_ns - stay.since_ns) / 1e9)


class LineWatch:
    """Who crosses a line of a picture of this size."""

    def __init__(self, line: Line, size_wh_px: tuple[int, int], labels: frozenset[int]) -> None:
        self.line = line
        self._labels = labels
        self._points: Points = np.array(line.points, np.float64) * size_wh_px
        self._margin_px = line.margin * size_wh_px[1]

    def update(self, here: list[Object], points: Points) -> Iterator[Seen]:
        """What those who are here, at points (N, 2), do."""
        name, line = self.line.name, self.line
        right, along = beside(self._points, points)
        for one, to_right_px, u in zip(here, right.tolist(), along.tolist(), strict=True):
            margin_px = max(self._margin_px, _TREMBLE * one.height_px)
            side = 0 if abs(to_right_px) <= margin_px else (1 if to_right_px > 0 else -1)
            was = one.beside.get(name)
            if was is None:
                one.beside[name] = Beside(side, to_right_px, u)
                continue
            if (was.to_right_px > 0) != (to_right_px > 0):  # where its way met the line's
                share = was.to_right_px / (was.to_right_px - to_right_px)
                was.met_along = was.along + share * (u - was.along)
            was.to_right_px, was.along = to_right_px, u
            if side in (0, was.side):
                continue
            crossed = was.side != 0 and 0 <= was.met_along <= 1 and one.label in self._labels
            was.side = side
            if crossed:
                yield Seen("crossed", one, line.to_right if side > 0 else line.to_left)
