"""What happened: the one record that scenes make of results, and its forms on the wire and outside.

A happening travels inside the Result of the frame that it was seen in, so that it is accounted for as
results are, and nobody sees it before or without them.

All of this is pure: nothing waits, and nothing is raised but where it is said.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

VERSION = 1
NO_FRAME = (1 << 63) - 1  # the frame_id of what happened to a camera, and in no frame of it
MAX_PER_RESULT = 128  # of about 150 bytes each; a message has room for 64 KiB

Kind = Literal[
    "appeared",  # an object
    "gone",  # it was not seen for too long; seconds: how long it was there
    "entered",  # a zone; who is first seen inside has entered, too
    "left",  # it, or is gone; seconds: how long it was inside
    "loitering",  # inside for longer than the zone's limit; seconds
    "crowded",  # more in a zone than its limit; total
    "uncrowded",  # no more than that again; total
    "crossed",  # a line, in a direction
    # to a camera, and not in its picture; direction: the cause
    "down",  # it gives no pictures; cause: as errors.CAUSES
    "up",  # it does again; seconds: how long it was away
    "frozen",  # frames come, and the picture does not change
    "dark",  # hardly any light
    "blinded",  # something covers the lens or shines into it: light, and nothing to be seen
    "moved",  # it looks elsewhere than before
    "recovered",  # frozen, dark or blinded no more; cause: which; seconds: how long it was
]
KINDS: tuple[str, ...] = get_args(Kind)
HEALTH = KINDS[KINDS.index("down") :]  # kinds of what happens to a camera


class Happening(NamedTuple):
    """Something that happened; camera, frame and time are those of its Result."""

    kind: Kind
    run: str  # id of the run, since ids of objects are its own
    object: int  # id of the track that was its first; -1: of nobody alone
    label: str  # name of its class; "": of nobody alone
    score: float  # 0..1
    xyxy: tuple[float, float, float, float]  # px of the source frame, where it was seen last
    place: str = ""  # name of the zone or the line
    direction: str = ""
    total: int = 0  # objects in the zone: of (un)crowded
    seconds: float = 0.0  # of those kinds that say so


def picture_name(run: str, camera: str, track: int) -> str:
    """Where the best picture of an object lies in the folder of a store's pictures, without its end.

    track: id of the object. `.jpg` is the object alone, `.frame.jpg` the whole frame.
    """
    return f"{run}/{camera}/{track}"


def to_rows(happenings: tuple[Happening, ...]) -> tuple[tuple[Any, ...], ...]:
    """As numbers and text, for the codec."""
    return tuple((KINDS.index(h.kind), *h[1:5], *h.xyxy, *h[6:]) for h in happenings)


def from_rows(rows: Any) -> tuple[Happening, ...]:
    """Back from rows of strangers. Raises ValueError or TypeError for what can't be one."""
    if type(rows) is not list or len(rows) > MAX_PER_RESULT:
        raise ValueError("no list of happenings")
    return tuple(map(_from_row, rows))


_TYPES = (int, str, int, str, float, float, float, float, float, str, str, int, float)


def _from_row(row: Any) -> Happening:
    if type(row) is not list or tuple(map(type, row)) != _TYPES:
        raise TypeError(f"no happening: {row!r:.100}")
    kind, run, track, label, score, x1, y1, x2, y2, place, direction, total, seconds = row
    numbers = (score, x1, y1, x2, y2, seconds)
    if not 0 <= kind < len(KINDS) or not all(map(math.isfinite, numbers)):
        raise ValueError(f"no happening: {row!r:.100}")
    name: Any = KINDS[kind]
    box = (x1, y1, x2, y2)
    return Happening(name, run, track, label, score, box, place, direction, total, seconds)


def missed_from(value: Any) -> tuple[int, float] | None:
    """`Result.missed` from strangers. Raises ValueError or TypeError for what can't be one."""
    if value is None:
        return None
    label, score = value
    if type(label) is not int or type(score) is not float or not 0 <= score <= 1:
        raise ValueError(f"no label and score: {value!r:.100}")
    return label, score


def to_json(
    happening: Happening, number: int, *, camera: str, frame_id: int, time: str
) -> dict[str, Any]:
    """As the world gets to see it. frame_id: or NO_FRAME; number: its place among those of its frame, from
    0; time: UTC, ISO 8601.

    `id` is the same each time that the frame is looked at, so that who gets one twice can tell.
    """
    which = time if frame_id == NO_FRAME else str(frame_id)
    document: dict[str, Any] = {
        "version": VERSION,
        "id": f"{happening.run}-{camera}-{which}-{number}",
        "run": happening.run,
        "kind": happening.kind,
        "camera": camera,
        "frame_id": None if frame_id == NO_FRAME else frame_id,
        "time": time,
    }
    if happening.object >= 0:
        document |= {
            "object": happening.object,
            "label": happening.label,
            "score": round(happening.score, 4),
            "xyxy": [round(edge, 2) for edge in happening.xyxy],
        }
    if happening.place:
        document["place"] = happening.place
    if happening.kind == "crossed":
        document["direction"] = happening.direction
    if happening.kind in ("crowded", "uncrowded"):
        document["count"] = happening.total
    if happening.kind in HEALTH and happening.direction:
        document["cause"] = happening.direction
    if happening.kind in ("gone", "left", "loitering", "up", "recovered"):
        document["seconds"] = round(happening.seconds, 3)
    return document
