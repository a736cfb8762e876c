"""What a scene has to know of a camera to go on in another process: as bytes, and back.

length of the text uint32, JSON text (places, what waits to be told), a row an object
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from pipeline.happenings import from_rows, to_rows
from stages.scene.objects import Beside, Inside, Object
from stages.scene.places import Line
from stages.scene.watch import Camera

VERSION = 3
_INSIDE = [("is", "?"), ("since_ns", "<i8"), ("loitered", "?")]
_BESIDE = [
    ("is", "?"),
    ("side", "i1"),
    ("to_right_px", "<f8"),
    ("along", "<f8"),
    ("met_along", "<f8"),
]


def save(camera: Camera) -> bytes:
    """All of it but what is only counted beside, the truth."""
    watch = camera.watch
    facts = {
        "version": VERSION,
        "size_wh_px": watch.size_wh_px,
        "clock": camera.clock.state,
        "zones": [[zone.zone.name, zone.crowded] for zone in watch.zones],
        "lines": [_place(line.line) for line in watch.lines],
        "waiting": to_rows(tuple(camera.waiting)),
    }
    text = json.dumps(facts).encode()
    rows = np.zeros(len(watch.objects), _row(len(watch.zones), len(watch.lines)))
    for row, one in zip(rows, watch.objects.by_id.values(), strict=True):
        for name in ("id", "label", "first_ns", "seen_ns", "score", "xyxy"):
            row[name] = getattr(one, name)
        for cell, zone in zip(row["inside"], watch.zones, strict=True):
            if (stay := one.inside.get(zone.zone.name)) is not None:
                cell["is"], cell["since_ns"], cell["loitered"] = True, stay.since_ns, stay.loitered
        for cell, line in zip(row["beside"], watch.lines, strict=True):
            if (at := one.beside.get(line.line.name)) is not None:
                cell["is"], cell["side"], cell["met_along"] = True, at.side, at.met_along
                cell["to_right_px"], cell["along"] = at.to_right_px, at.along
    return len(text).to_bytes(4, "little") + text + rows.tobytes()


def facts_of(state: bytes) -> dict[str, Any]:
    """The text of a state. Raises ValueError for one of another version."""
    end = 4 + int.from_bytes(state[:4], "little")
    facts: dict[str, Any] = json.loads(state[4:end])
    if not isinstance(facts, dict) or facts.get("version") != VERSION:
        raise ValueError(f"another version than {VERSION}")
    facts["rows"] = state[end:]
    return facts


def restore(camera: Camera, facts: dict[str, Any]) -> None:
    """Into a camera that is new, for pictures of that size.

    Its places may be others by now. Who was inside a zone is so still, until seen outside of what it has
    become; of a line that was moved nobody knows on which side they are.
    """
    watch = camera.watch
    zones = [name for name, _ in facts["zones"]]
    kept_zones = [(zones.index(z.zone.name), z) for z in watch.zones if z.zone.name in zones]
    lines = facts["lines"]
    kept_lines = [
        (lines.index(at), one) for one in watch.lines if (at := _place(one.line)) in lines
    ]
    camera.waiting.extend(from_rows(facts["waiting"]))
    for n, zone in kept_zones:
        zone.crowded = facts["zones"][n][1]
    for row in np.frombuffer(facts["rows"], _row(len(zones), len(lines))):
        one = Object(
            int(row["id"]), int(row["label"]), int(row["first_ns"]), int(row["seen_ns"]),
            float(row["score"]), row["xyxy"].copy(),
        )  # fmt: skip
        watch.objects.by_id[one.id] = one
        for n, zone in kept_zones:
            if (cell := row["inside"][n])["is"]:
                zone.resume(one, Inside(int(cell["since_ns"]), bool(cell["loitered"])))
        for n, line in kept_lines:
            if (cell := row["beside"][n])["is"]:
                one.beside[line.line.name] = Beside(
                    int(cell["side"]), float(cell["to_right_px"]), float(cell["along"]),
                    float(cell["met_along"]),
                )  # fmt: skip


def _place(line: Line) -> list[Any]:
    """What must be the same for the side of an object to be; as JSON gives it back."""
    return [line.name, [list(point) for point in line.points], line.anchor]


def _row(zones: int, lines: int) -> np.dtype[Any]:
    return np.dtype([
        ("id", "<i8"), ("label", "<i4"), ("first_ns", "<i8"), ("seen_ns", "<i8"),
        ("score", "<f8"), ("xyxy", "<f8", (4,)),
        ("inside", _INSIDE, (zones,)), ("beside", _BESIDE, (lines,)),
    ])  # fmt: skip
