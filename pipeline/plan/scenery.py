"""Sections about objects: how they are followed, and the places that they are watched in."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Literal

from pipeline.errors import ConfigError
from pipeline.plan.mistakes import SHARE
from pipeline.plan.section import BOOL, NAME, NAMED, Section, Share, field

_POINTS = "a list of points [x, y], each number within 0..1"
_CLASSES = "a list of class names"
_MARGIN = "a share of the picture's height within 0..0.2"

Anchor = Literal["feet", "center"]
Point = tuple[float, float]


class TrackConfig(Section):
    """`[track]`: objects are followed where this section is. What is None is the tracker's own."""

    type: Literal["bytetrack", "ocsort"] = field("bytetrack", "'bytetrack' or 'ocsort'")
    lost_s: float = field(3.0, "a number of seconds within 0.1..60", ge=0.1, le=60)  # unseen
    confirm_frames: int | None = field(None, "a whole number within 1..30", ge=1, le=30)
    new_score: Share | None = field(None, SHARE)  # begins an object; None: each that is found


class HealthConfig(Section):
    """`[health]`: what is said of cameras themselves, where a sink takes happenings."""

    enabled: bool = field(True, BOOL)
    looks_hz: float = field(1.0, "looks a second within 0.1..5", ge=0.1, le=5)  # at each camera
    down_s: float = field(3.0, "a number of seconds >= 0", ge=0)  # away for so long
    frozen_s: float = field(10.0, "a number of seconds > 0", gt=0)  # not changed for so long
    hold_s: float = field(5.0, "a number of seconds >= 0", ge=0)  # dark, blinded, moved for so long


class ZoneConfig(Section):
    """One `[[zone]]`: a polygon in the pictures of a camera. (0, 0) is top left, (1, 1) bottom right."""

    name: str = field(..., NAMED, pattern=NAME)
    camera: str = field(..., "the name of a camera")
    polygon: tuple[Point, ...] = field(..., _POINTS)
    classes: tuple[str, ...] | None = field(None, _CLASSES, min_length=1)  # None: all
    anchor: Anchor = field("feet", "'feet' or 'center'")  # of a box, which must be inside
    margin: float = field(0.01, _MARGIN, ge=0, le=0.2)  # in and out again within it is neither
    loiter_s: float | None = field(None, "a number of seconds > 0", gt=0)
    max_objects: int | None = field(None, "a whole number >= 0", ge=0)  # at a time


class LineConfig(Section):
    """One `[[line]]`: right is right of who stands on its first point and looks at the second."""

    name: str = field(..., NAMED, pattern=NAME)
    camera: str = field(..., "the name of a camera")
    points: tuple[Point, ...] = field(..., _POINTS)
    classes: tuple[str, ...] | None = field(None, _CLASSES, min_length=1)
    anchor: Anchor = field("feet", "'feet' or 'center'")
    margin: float = field(0.01, _MARGIN, ge=0, le=0.2)
    to_right: str = field("in", NAMED, pattern=NAME)  # what a crossing to its right is called
    to_left: str = field("out", NAMED, pattern=NAME)


class OverlapConfig(Section):
    """One `[[overlap]]`: zones of several cameras that are the same place."""

    name: str = field(..., NAMED, pattern=NAME)
    zones: tuple[str, ...] = field(..., "a list of 'camera/zone', two or more", min_length=2)


def check_overlaps(
    overlaps: Sequence[OverlapConfig], zones: Sequence[ZoneConfig], file: str
) -> None:
    """Raises ConfigError for a zone that there is not, or a camera or a zone that is there twice."""
    there, used = [f"{zone.camera}/{zone.name}" for zone in zones], set[str]()
    for overlap in overlaps:
        where = f"{file}: overlap {overlap.name!r}: zones"
        for view in overlap.zones:
            if view not in there:
                close = difflib.get_close_matches(view, there, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(there)}"
                raise ConfigError(f"{where}: there is no zone {view!r} (camera/zone); {hint}")
            if view in used:
                raise ConfigError(f"{where}: {view!r} is named twice; a view is of one place")
            used.add(view)
        cameras = [view.partition("/")[0] for view in overlap.zones]
        if twice := next((one for one in cameras if cameras.count(one) > 1), None):
            raise ConfigError(
                f"{where}: camera {twice!r} is named twice; name one zone of each camera"
            )


def check_places(
    zones: Sequence[ZoneConfig], lines: Sequence[LineConfig], cameras: Sequence[str], file: str
) -> None:
    """Raises ConfigError for a camera that there is not, or a name that is used twice."""
    for kind, places in (("zone", zones), ("line", lines)):
        names = set()
        for place in places:
            where = f"{file}: {kind} {place.name!r}"
            if place.camera not in cameras:
                close = difflib.get_close_matches(place.camera, cameras, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(cameras)}"
                raise ConfigError(f"{where}: there is no camera {place.camera!r}; {hint}")
            if (place.camera, place.name) in names:
                raise ConfigError(
                    f"{where}: the name is used twice for camera {place.camera!r}; give one another"
                )
            names.add((place.camera, place.name))
