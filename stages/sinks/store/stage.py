"""Store: keeps what happened in a SQLite file, for `manyeyes events`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, FrameError, ResourceError
from pipeline.happenings import NO_FRAME, Happening, to_json
from pipeline.messages import FrameInfo, Result
from pipeline.stage import Sink
from stages.sinks.files import DISK_TURN_S, check_folder, is_same
from stages.sinks.lines import utc
from stages.sinks.store.minutes import MINUTE_NS, Minutes
from stages.sinks.store.overlaps import Overlaps
from stages.sinks.store.schema import check, open_to_read, open_to_write, pictures_of, used_bytes

log = logging.getLogger("manyeyes")

_DAY_NS = 86_400_000_000_000
_NOBODYS = """DELETE FROM same WHERE NOT EXISTS (SELECT 1 FROM incident
    WHERE (run, camera, object) = (same.run, same.camera, same.object))"""
_OF_RUN = """SELECT camera, t_wall_ns, document FROM happening
    WHERE run = ? AND kind IN ('entered', 'left') ORDER BY t_wall_ns DESC LIMIT 10000"""
# of the oldest twentieth the newest
_NTH_OLDEST = """SELECT t_wall_ns FROM happening ORDER BY t_wall_ns
    LIMIT 1 OFFSET (SELECT count(*) / 20 FROM happening)"""
_SWEEP_NS = 60_000_000_000  # of the pictures' time: how often what is old is removed


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Which file, and how long things are kept."""

    path: str  # made if missing, with its folder
    keep_days: float = 30.0  # > 0, counted back from the newest picture
    max_mib: float = 1024.0  # of the file, > 0; what is oldest goes first
    pictures_mib: float = 4096.0  # of pictures of objects beside it; 0: none are kept
    classes: tuple[str, ...] = ()  # name of each label
    overlaps: tuple[tuple[tuple[str, str], ...], ...] = ()  # of each its views, (camera, zone)


class Store(Sink):
    """One transaction a result in which something happened. What comes twice is kept once.

    A full disk costs what it does not take, and the next result is tried again.
    """

    Config = StoreConfig
    config: StoreConfig
    turn_s = DISK_TURN_S
    takes_health = True

    @classmethod
    def keeps_pictures(cls, config: StoreConfig) -> dict[str, Any] | None:
        """Fields of PicturesConfig for the process that keeps them; None: none is wanted."""
        if not config.pictures_mib:
            return None
        path, keep_days = pictures_of(config.path), config.keep_days
        return {"path": path, "keep_days": keep_days, "max_mib": config.pictures_mib}

    def __init__(self, config: StoreConfig) -> None:
        super().__init__(config)
        self._db: sqlite3.Connection | None = None
        self._file: os.stat_result | None = None  # that is open
        self._sweep_at_ns = 0
        self._run = ""
        self._minutes = Minutes(config.classes)
        self._overlaps = Overlaps(config.overlaps)

    @classmethod
    def check(cls, config: StoreConfig) -> None:
        """Raises ConfigError for a file that is no store, ResourceError for one that can't be written."""
        if not config.keep_days > 0:
            raise ConfigError(f"sink store: keep_days must be > 0, got {config.keep_days}")
        if not config.max_mib > 0:
            raise ConfigError(f"sink store: max_mib must be > 0, got {config.max_mib}")
        if Path(config.path).is_dir():
            raise ResourceError(f"sink store: wanted a file at {config.path}, got a folder")
        check_folder("store", Path(config.path).parent)
        if Path(config.path).exists():
            with closing(open_to_read(config.path)) as db:
                check(db, config.path)

    def setup(self) -> None:
        """Open the file."""
        self._opened()

    def process(self, result: Result) -> None:
        """Keep what happened. Raises FrameError if the disk does not take it; the next may be taken."""
        if result.info.frame_id != NO_FRAME:
            self._minutes.see(result)
        if result.happenings:
            self._write(result)

    def remove(self, camera: str) -> None:
        """Count what became of its last frames."""
        self._minutes.leave(self.runtime, camera)

    def idle(self) -> None:
        """Count the frames of this minute, and now and then write what there is. Let go of a file that is
        not at its path any more: a deleted one, one that was moved away."""
        self._minutes.look(self.runtime)
        if self._file is not None and not is_same(self._file, self.config.path):
            self._close()
        if self._minutes.is_due:
            try:
                self._write(None)
            except FrameError as error:
                log.warning("%s", error)

    def _write(self, result: Result | None) -> None:
        """What happened, and the minutes, if it is time."""
        try:
            db = self._opened()
            db.execute("BEGIN IMMEDIATE")
            if result is not None:
                self._begin(db, result.happenings[0].run)
                for number, happening in enumerate(result.happenings):
                    if _keep(db, happening, number, result):
                        self._link(db, happening, result.info)
                self._sweep(db, result.info.t_wall_ns)
            writes = self._minutes.is_due
            if writes:
                self._minutes.write(db)
            db.execute("COMMIT")
            if writes:
                self._minutes.forget()
        except ConfigError as error:  # it can't be opened again
            raise FrameError(f"sink {error}") from error
        except (sqlite3.Error, OSError) as error:
            self._close()  # and what was begun is undone
            raise FrameError(
                f"sink store: {self.config.path} can't be written ({error}); make room"
            ) from error

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = open_to_write(self.config.path)
            self._file = os.stat(self.config.path)
        return self._db

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._minutes.end(self.runtime)
        if self._db is not None and self._minutes.is_due:
            with contextlib.suppress(FrameError):  # the disk was full until the end
                self._write(None)
        self._close()

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = self._file = None

    def _begin(self, db: sqlite3.Connection, run: str) -> None:
        """With a new run all that was open of those before is over: their objects have other ids now."""
        if run != self._run:
            db.execute("UPDATE incident SET over = 1 WHERE over = 0 AND run != ?", (run,))
            self._run = run
            self._overlaps = Overlaps(self.config.overlaps)
            known = db.execute(_OF_RUN, (run,)).fetchall() if self.config.overlaps else []
            for camera, t_ns, document in reversed(known):  # of a process before this one
                one = json.loads(document)
                facts = camera, one["place"], one["object"], one["label"], t_ns
                for _ in self._overlaps.see(one["kind"], *facts):
                    pass

    def _link(self, db: sqlite3.Connection, one: Happening, info: FrameInfo) -> None:
        facts = info.camera, one.place, one.object, one.label, info.t_wall_ns
        for who, first in self._overlaps.see(one.kind, *facts):
            row = (one.run, *who, *first)
            db.execute("INSERT OR IGNORE INTO same VALUES (?, ?, ?, ?, ?)", row)

    def _sweep(self, db: sqlite3.Connection, now_ns: int) -> None:
        if now_ns < self._sweep_at_ns:
            return
        self._sweep_at_ns = now_ns + _SWEEP_NS
        oldest_ns = now_ns - int(self.config.keep_days * _DAY_NS)
        _forget(db, oldest_ns)
        while used_bytes(db) > self.config.max_mib * 2**20:
            known = db.execute(_NTH_OLDEST).fetchone()
            if known is None:
                break
            _forget(db, known[0] + 1)


def _forget(db: sqlite3.Connection, before_ns: int) -> None:
    db.execute("DELETE FROM happening WHERE t_wall_ns < ?", (before_ns,))
    db.execute("DELETE FROM incident WHERE end_ns < ?", (before_ns,))
    db.execute(_NOBODYS)
    db.execute("DELETE FROM minute WHERE minute < ?", (before_ns // MINUTE_NS,))


def _keep(db: sqlite3.Connection, one: Happening, number: int, result: Result) -> bool:
    """False: it was kept before."""
    info = result.info
    document = to_json(
        one, number, camera=info.camera, frame_id=info.frame_id, time=utc(info.t_wall_ns)
    )
    row = (
        document["id"], info.t_wall_ns, info.camera, one.kind, one.label, one.place, one.run,
        one.object, json.dumps(document, ensure_ascii=False),
    )  # fmt: skip
    kept = db.execute(f"INSERT OR IGNORE INTO happening VALUES ({', '.join('?' * 9)})", row)
    if kept.rowcount and one.object >= 0:
        _into_incident(db, one, info.camera, info.t_wall_ns)
    return bool(kept.rowcount)


def _into_incident(db: sqlite3.Connection, one: Happening, camera: str, t_wall_ns: int) -> None:
    key = (one.run, camera, one.object)
    known = db.execute(
        "SELECT label, score, start_ns, end_ns, over, places, kinds FROM incident "
        "WHERE (run, camera, object) = (?, ?, ?)", key,
    ).fetchone()  # fmt: skip
    label, score, start_ns, end_ns, over, places, kinds = known or (
        one.label, one.score, t_wall_ns, t_wall_ns, 0, "[]", "[]",
    )  # fmt: skip
    if one.score > score:
        label, score = one.label, one.score
    if one.kind == "gone":  # it was seen last before it was given up
        t_wall_ns = max(start_ns, start_ns + int(one.seconds * 1e9))
        over = 1
    row = (
        *key, label, score, min(start_ns, t_wall_ns), max(end_ns, t_wall_ns), over,
        _with(places, one.place), _with(kinds, one.kind),
    )  # fmt: skip
    db.execute(f"INSERT OR REPLACE INTO incident VALUES ({', '.join('?' * 10)})", row)


def _with(listed: str, name: str) -> str:
    """A JSON list of names with one more, if it is not there."""
    names: list[Any] = json.loads(listed)
    return listed if not name or name in names else json.dumps([*names, name])
