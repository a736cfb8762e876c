"""The outbox: a SQLite file of what is to be delivered, and of what was.

One connection writes (the sink's own thread), each courier reads with one of its own. `synchronous=FULL`:
what `add` has taken is there after a power cut.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError, ResourceError
from stages.sinks.alarms.age import before
from stages.sinks.alarms.rules import Key
from stages.sinks.files import is_same

VERSION = 1  # PRAGMA user_version
_APPLICATION = 0x6D796F62  # PRAGMA application_id: "myob"
_BUSY_S = 5.0
WAITING, DELIVERED, GIVEN_UP = 0, 1, 2

_TABLES = """
CREATE TABLE message (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,               -- of the alarm
    target TEXT NOT NULL,
    camera TEXT NOT NULL,
    t_wall_ns INTEGER NOT NULL,     -- of the picture
    t_capture_ns INTEGER NOT NULL,  -- the same, monotonic
    boot TEXT NOT NULL,             -- of the machine, in which that was
    state INTEGER NOT NULL,         -- 0: waiting, 1: delivered, 2: given up
    document TEXT NOT NULL,
    UNIQUE (id, target)
);
CREATE INDEX waiting ON message (target, seq) WHERE state = 0;
CREATE TABLE cooling (              -- when there was an alarm of a key
    key TEXT PRIMARY KEY,
    t_wall_ns INTEGER NOT NULL
) WITHOUT ROWID;
"""
_OLD = "iif(boot = :boot, t_capture_ns < :capture_ns, t_wall_ns < :wall_ns)"  # see age.before
_COLUMNS = "seq, id, target, camera, t_wall_ns, t_capture_ns, boot, document"


@dataclass(frozen=True, slots=True)
class Message:
    """One alarm for one target."""

    seq: int  # its place; 0: not yet in an outbox
    id: str
    target: str
    camera: str
    t_wall_ns: int
    t_capture_ns: int
    boot: str
    document: str  # JSON


class Outbox:
    """The one that writes. Every method may raise sqlite3.Error, and then has changed nothing."""

    def __init__(self, path: str) -> None:
        """Open it, made if missing. Raises ConfigError, ResourceError for what is no outbox."""
        self.path = path
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
            try:
                _check(self._db, path)
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                if not _number(self._db, "user_version"):
                    self._db.executescript(
                        f"BEGIN; {_TABLES} PRAGMA application_id = {_APPLICATION}; "
                        f"PRAGMA user_version = {VERSION}; COMMIT;"
                    )
            except (ConfigError, sqlite3.DatabaseError):
                self._db.close()
                raise
        except sqlite3.DatabaseError as error:
            raise _refused(path, error) from error
        self._stat = os.stat(path)

    def add(self, messages: Iterable[Message], cooling: dict[Key, int]) -> list[Message]:
        """Keep messages, in their order, and the times of the keys; returns those that are new."""
        new = []
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for m in messages:
                row = (
                    m.id, m.target, m.camera, m.t_wall_ns, m.t_capture_ns, m.boot, WAITING, m.document
                )  # fmt: skip
                kept = self._db.execute(
                    "INSERT OR IGNORE INTO message VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", row
                )
                if kept.rowcount:
                    new.append(m)
            rows = [(json.dumps(key), t_ns) for key, t_ns in cooling.items()]
            self._db.executemany("INSERT OR REPLACE INTO cooling VALUES (?, ?)", rows)
        return new

    def delivered(self, seqs: Iterable[int]) -> set[int]:
        """These were taken; returns those of them that were still waiting."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            return {seq for seq in seqs if self._end(seq, DELIVERED)}

    def give_up(self, max_age_s: float, max_bytes: int) -> list[Message]:
        """End what waits for longer, and the oldest of what is more; returns it."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            too_much, kept = [], 0
            for row in self._db.execute(
                f"SELECT {_COLUMNS}, {_OLD} FROM message WHERE state = {WAITING} ORDER BY seq DESC",
                before(max_age_s),
            ):
                message, old = Message(*row[:-1]), row[-1]
                kept += len(message.document)
                if old or kept > max_bytes:
                    too_much.append(message)
            return [message for message in reversed(too_much) if self._end(message.seq, GIVEN_UP)]

    def abandon(self, targets: Sequence[str]) -> dict[str, int]:
        """End what waits for others than these: target → messages."""
        others = set(self.waiting()).difference(targets)
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            ended = (
                (
                    f"UPDATE message SET state = {GIVEN_UP} WHERE state = {WAITING} AND target = ?",
                    one,
                )
                for one in sorted(others)
            )
            return {one: self._db.execute(text, (one,)).rowcount for text, one in ended}

    def forget(self, max_age_s: float, cooldown_s: float) -> None:
        """Remove what has ended and is older, and keys that are as much older than the newest."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            ended = f"DELETE FROM message WHERE state != {WAITING} AND {_OLD}"
            self._db.execute(ended, before(max_age_s))
            self._db.execute(
                "DELETE FROM cooling WHERE t_wall_ns < (SELECT max(t_wall_ns) FROM cooling) - ?",
                (int(cooldown_s * 1e9),),
            )

    def cooling(self) -> dict[Key, int]:
        """Key → wall time of its last alarm."""
        rows = self._db.execute("SELECT key, t_wall_ns FROM cooling").fetchall()
        return {tuple(json.loads(key)): t_ns for key, t_ns in rows}

    def waiting(self) -> dict[str, int]:
        """Target → messages."""
        return dict(
            self._db.execute(
                f"SELECT target, count(*) FROM message WHERE state = {WAITING} GROUP BY target"
            ).fetchall()
        )

    def is_there(self) -> bool:
        """Whether it is still the file at its path: nobody has moved or deleted it."""
        return is_same(self._stat, self.path)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _end(self, seq: int, state: int) -> bool:
        ended = self._db.execute(
            f"UPDATE message SET state = ? WHERE seq = ? AND state = {WAITING}", (state, seq)
        )
        return ended.rowcount > 0


class Reader:
    """What waits for one target. Never waits for who writes. May raise sqlite3.Error."""

    def __init__(self, path: str, target: str) -> None:
        self._target = target
        uri = f"{Path(path).absolute().as_uri()}?mode=ro"
        self._db = sqlite3.connect(uri, uri=True, timeout=_BUSY_S)

    def next(self, after: int) -> Message | None:
        """The oldest one behind `after`, a place."""
        row = self._db.execute(
            f"SELECT {_COLUMNS} FROM message WHERE state = {WAITING} AND target = ? AND seq > ? "
            "ORDER BY seq LIMIT 1",
            (self._target, after),
        ).fetchone()
        return None if row is None else Message(*row)

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def states(path: str, ids: Iterable[str]) -> dict[str, dict[str, str]]:
    """Of alarms by id: target → waiting, delivered or given up. Raises ConfigError, ResourceError.

    What is not there was delivered so long ago that it is forgotten, or was never kept.
    """
    names = {WAITING: "waiting", DELIVERED: "delivered", GIVEN_UP: "given up"}
    found: dict[str, dict[str, str]] = {}
    try:
        uri = f"{Path(path).absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_S)) as db:
            for one in ids:
                rows = db.execute("SELECT target, state FROM message WHERE id = ?", (one,))
                found[one] = {target: names[state] for target, state in rows}
    except sqlite3.DatabaseError as error:
        raise _refused(path, error) from error
    return found


# -- files that are no outbox --------------------------------------------------------------------------


def check(path: str) -> None:
    """Look through all of a file that exists, and change nothing. Raises ConfigError, ResourceError."""
    try:
        uri = f"{Path(path).absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_S)) as db:
            _check(db, path)
    except sqlite3.DatabaseError as error:
        raise _refused(path, error) from error


def _check(db: sqlite3.Connection, path: str) -> None:
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(found.splitlines()[-1])
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and _number(db, "application_id") != _APPLICATION:
        raise sqlite3.DatabaseError("it belongs to another program")
    if (version := _number(db, "user_version")) > VERSION:
        raise ConfigError(
            f"outbox {path}: it is of version {version}, this build knows {VERSION}; "
            "use a newer build, or another file"
        )


def _refused(path: str, error: sqlite3.DatabaseError) -> ConfigError:
    if isinstance(error, sqlite3.OperationalError):
        return ResourceError(f"outbox {path}: can't be used: {error}; check the path and its mode")
    return ConfigError(
        f"outbox {path}: the file is broken or no outbox ({error}); "
        "move it away, and a new one is made"
    )


def _number(db: sqlite3.Connection, pragma: str) -> int:
    number: int = db.execute(f"PRAGMA {pragma}").fetchone()[0]
    return number
