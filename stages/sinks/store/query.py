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
            "camera = ?": w.camera,
            "label = ?": w.label,
            "EXISTS (SELECT 1 FROM json_each(places) WHERE value = ?)": w.place,
            "EXISTS (SELECT 1 FROM json_each(kinds) WHERE value = ?)": w.kind,
            "end_ns >= ?": w.since_ns,
            "start_ns < ?": w.until_ns,
        }
    )
    text = f"SELECT * FROM incident {where} ORDER BY start_ns DESC, object DESC LIMIT ?"
    for row in _rows(path, text, (*values, w.limit)):
        yield {
            "run": row["run"],
            "camera": row["camera"],
            "object": row["object"],
            "label": row["label"],
            "score": round(row["score"], 4),
            "start": utc(row["start_ns"]),
            "end": utc(row["end_ns"]) if row["over"] else None,
            "seconds": round((row["end_ns"] - row["start_ns"]) / 1e9, 3) if row["over"] else None,
            "places": json.loads(row["places"]),
            "kinds": json.loads(row["kinds"]),
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
        if not store.execute("SELECT 1 FROM sqlite_master WHERE name = 'minute'").fetchone():
            return []
    text = "SELECT * FROM minute WHERE camera = ? AND minute BETWEEN ? AND ? ORDER BY minute"
    rows = _rows(path, text, (camera, since_ns // MINUTE_NS, until_ns // MINUTE_NS))
    return [{**row, "dropped": json.loads(row["dropped"])} for row in map(dict, rows)]
