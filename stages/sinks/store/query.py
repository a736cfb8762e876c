"""Reading the store: incidents and happenings, newest first."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.happenings import picture_name
from stages.sinks.lines import utc
from stages.sinks.store.minutes import MINUTE_NS
from stages.sinks.store.schema import open_to_read, pictures_of, refused

# Incidents, those of several cameras in one row, under the camera that had it first
_WHOLE = """
SELECT i.run, i.camera, i.object, i.label, max(i.score, ifnull(max(o.score), 0)) AS score,
    min(i.start_ns, ifnull(min(o.start_ns), i.start_ns)) AS start_ns,
    max(i.end_ns, ifnull(max(o.end_ns), 0)) AS end_ns, min(i.over, ifnull(min(o.over), 1)) AS over,
    json_array(json(i.places), json_group_array(json(o.places))) AS places,
    json_array(json(i.kinds), json_group_array(json(o.kinds))) AS kinds,
    json_group_array(json_array(o.camera, o.object)) FILTER (WHERE o.camera IS NOT NULL) AS also
FROM incident i
LEFT JOIN same s ON (s.run, s.first_camera, s.first_object) = (i.run, i.camera, i.object)
LEFT JOIN incident o ON (o.run, o.camera, o.object) = (s.run, s.camera, s.object)
WHERE NOT EXISTS (SELECT 1 FROM same WHERE (run, camera, object) = (i.run, i.camera, i.object))
GROUP BY i.run, i.camera, i.object"""
_ALONE = "SELECT *, '[]' AS also FROM incident"
_SEEN_BY = "(camera = ?1 OR EXISTS (SELECT 1 FROM json_tree(also) WHERE atom = ?1))"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which ones; None: whatever it is."""

    camera: str | None = None
    label: str | None = None
    place: str | None = None
    kind: str | None = None
    since_ns: int | None = None  # wall time
    until_ns: int | None = None
    limit: int = 50


def incidents(path: str, **wanted: Any) -> Iterator[dict[str, Any]]:
    """wanted: fields of Wanted. Those that were there at any time between since and until.

    Raises ResourceError, ConfigError for a file that is none.
    """
    w = Wanted(**wanted)
    where, values = _where(
        {
            _SEEN_BY: w.camera,
            "label = ?": w.label,
            "EXISTS (SELECT 1 FROM json_tree(places) WHERE atom = ?)": w.place,
            "EXISTS (SELECT 1 FROM json_tree(kinds) WHERE atom = ?)": w.kind,
            "end_ns >= ?": w.since_ns,
            "start_ns < ?": w.until_ns,
        }
    )
    with closing(open_to_read(path)) as store:
        overlaps = _has(store, "same") and store.execute("SELECT 1 FROM same LIMIT 1").fetchone()
        table = _WHOLE if overlaps else _ALONE
    text = f"SELECT * FROM ({table}) {where} ORDER BY start_ns DESC, object DESC LIMIT ?"
    for row in _rows(path, text, (*values, w.limit)):
        also = [{"camera": camera, "object": track} for camera, track in json.loads(row["also"])]
        yield {
            "run": row["run"],
            "camera": row["camera"],
            "object": row["object"],
            "label": row["label"],
            "score": round(row["score"], 4),
            "start": utc(row["start_ns"]),
            "end": utc(row["end_ns"]) if row["over"] else None,
            "seconds": round((row["end_ns"] - row["start_ns"]) / 1e9, 3) if row["over"] else None,
            "places": _once(row["places"]),
            "kinds": _once(row["kinds"]),
            "also": also,
            "picture": _picture(path, row),
        }


def happenings(path: str, **wanted: Any) -> Iterator[dict[str, Any]]:
    """As `incidents`: the documents as the sinks write them."""
    w = Wanted(**wanted)
    where, values = _where(
        {
            "camera = ?": w.camera,
            "label = ?": w.label,
            "place = ?": w.place,
            "kind = ?": w.kind,
            "t_wall_ns >= ?": w.since_ns,
            "t_wall_ns < ?": w.until_ns,
        }
    )
    text = f"SELECT document FROM happening {where} ORDER BY t_wall_ns DESC, id DESC LIMIT ?"
    for row in _rows(path, text, (*values, w.limit)):
        yield json.loads(row["document"])


def _picture(path: str, row: sqlite3.Row) -> str | None:
    """The file of the best picture; beside it is `.frame.jpg`, the whole frame."""
    name = picture_name(row["run"], row["camera"], row["object"])
    picture = Path(pictures_of(path)) / f"{name}.jpg"
    return str(picture) if picture.is_file() else None


def _has(store: sqlite3.Connection, table: str) -> bool:
    """False for a store of an older build."""
    found = store.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    return found is not None


def _once(names: str) -> list[str]:
    """Names out of JSON lists of lists, each once."""
    found: dict[str, None] = {}
    left = [json.loads(names)]
    while left:
        one = left.pop(0)
        if isinstance(one, list):
            left = [*one, *left]
        elif one is not None:
            found[one] = None
    return list(found)


def _where(conditions: dict[str, Any]) -> tuple[str, list[Any]]:
    asked = {text: value for text, value in conditions.items() if value is not None}
    return ("WHERE " + " AND ".join(asked) if asked else ""), list(asked.values())


def _rows(path: str, text: str, values: tuple[Any, ...]) -> list[sqlite3.Row]:
    with closing(open_to_read(path)) as store:
        try:
            return store.execute(text, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise refused(path, error) from error


def look_through(path: str) -> str:
    """What a store has, after all of its pages were looked through. Raises ConfigError if it is broken."""
    with closing(open_to_read(path)) as store:
        try:
            found = store.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(found.splitlines()[-1])
            incidents, happenings = (
                store.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("incident", "happening")
            )
        except sqlite3.DatabaseError as error:
            raise refused(path, error) from error
    return f"{incidents} incidents, {happenings} happenings, {Path(path).stat().st_size / 2**20:.1f} MiB"


def minutes(path: str, camera: str, since_ns: int, until_ns: int) -> list[dict[str, Any]]:
    """What became of a camera's frames, a row a minute that lies between, oldest first.

    Raises as `incidents`; a store of an older build has no minutes.
    """
    with closing(open_to_read(path)) as store:
        if not _has(store, "minute"):
            return []
    text = "SELECT * FROM minute WHERE camera = ? AND minute BETWEEN ? AND ? ORDER BY minute"
    rows = _rows(path, text, (camera, since_ns // MINUTE_NS, until_ns // MINUTE_NS))
    return [{**row, "dropped": json.loads(row["dropped"])} for row in map(dict, rows)]
