"""What a scene has to know of a camera to go on in another process: as bytes, and back.

length of the text uint32, JSON text (places, what happened last), a row an object
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from pipeline.happenings import from_rows, to_rows
from stages.scene.objects import Beside, Inside, Object
from stages.scene.watch import Camera, Watch

VERSION = 1
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
        "frame_id": camera.frame_id,
        "size_wh_px": watch.size_wh_px,
        "clock": camera.clock.state,
        "zones": [[zone.zone.name, zone.crowded] for zone in watch.zones],
        "lines": [line.line.name for line in watch.lines],
        "happened": to_rows(camera.happened),
        "waiting": to_rows(tuple(camera.waiting)),
    }
    text = json.dumps(facts).encode()
    rows = np.zeros(len(watch.objects), _row(watch))
    for row, (track, one) in zip(rows, watch.objects.by_track.items(), strict=True):
        for name in ("id", "label", "first_ns", "seen_ns", "score", "xyxy", "velocity"):
            row[name] = getattr(one, name)
        row["track"] = track
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
    """Into a camera that is new, for pictures of that size. Raises ValueError if its places are others."""
    watch = camera.watch
    zones = [zone.zone.name for zone in watch.zones]
    lines = [line.line.name for line in watch.lines]
    if [name for name, _ in facts["zones"]] != zones or facts["lines"] != lines:
        raise ValueError("other places than these")
    camera.frame_id = facts["frame_id"]
    camera.happened = from_rows(facts["happened"])
    camera.waiting.extend(from_rows(facts["waiting"]))
    for zone, (_, crowded) in zip(watch.zones, facts["zones"], strict=True):
        zone.crowded = crowded
    for row in np.frombuffer(facts["rows"], _row(watch)):
        one = Object(
            int(row["id"]), int(row["label"]), int(row["first_ns"]), int(row["seen_ns"]),
            float(row["score"]), row["xyxy"].copy(), row["velocity"].copy(),
        )  # fmt: skip
        watch.objects.by_track[int(row["track"])] = one
        for cell, zone in zip(row["inside"], watch.zones, strict=True):
            if cell["is"]:
                zone.resume(one, Inside(int(cell["since_ns"]), bool(cell["loitered"])))
        for cell, line in zip(row["beside"], watch.lines, strict=True):
            if cell["is"]:
                one.beside[line.line.name] = Beside(
                    int(cell["side"]), float(cell["to_right_px"]), float(cell["along"]),
                    float(cell["met_along"]),
                )  # fmt: skip


def _row(watch: Watch) -> np.dtype[Any]:
    return np.dtype([
        ("track", "<i8"), ("id", "<i8"), ("label", "<i4"), ("first_ns", "<i8"), ("seen_ns", "<i8"),
        ("score", "<f8"), ("xyxy", "<f8", (4,)), ("velocity", "<f8", (2,)),
        ("inside", _INSIDE, (len(watch.zones),)), ("beside", _BESIDE, (len(watch.lines),)),
    ])  # fmt: skip
