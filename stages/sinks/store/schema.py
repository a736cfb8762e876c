"""The file of the store: its tables, how it is opened, and what is done with a broken one.

WAL, so that who reads never waits for the one that writes; `synchronous=NORMAL`, so that a power cut may
cost the last moments and never the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ConfigError, ResourceError

VERSION = 3  # PRAGMA user_version
_APPLICATION = 0x6D796573  # PRAGMA application_id: "myes"
_BUSY_S = 5.0

_MINUTES = """
CREATE TABLE minute (           -- what became of a camera's frames, and why nothing was found
    minute INTEGER NOT NULL,    -- since 1970, wall time
    camera TEXT NOT NULL,
    served INTEGER NOT NULL,    -- frames that were looked at
    dropped TEXT NOT NULL,      -- JSON, reason → frames
    found INTEGER NOT NULL,     -- boxes
    missed REAL NOT NULL,       -- the best score below the threshold, 0: none
    missed_label TEXT NOT NULL,
    PRIMARY KEY (minute, camera)
) WITHOUT ROWID;
"""
_SAME = """
CREATE TABLE same (             -- an object that another camera saw first
    run TEXT NOT NULL,
    camera TEXT NOT NULL,
    object INTEGER NOT NULL,
    first_camera TEXT NOT NULL,
    first_object INTEGER NOT NULL,
    PRIMARY KEY (run, camera, object)
) WITHOUT ROWID;
CREATE INDEX same_first ON same (run, first_camera, first_object);
"""
_TABLES = """
CREATE TABLE happening (
    id TEXT PRIMARY KEY,
    t_wall_ns INTEGER NOT NULL,
    camera TEXT NOT NULL,
    kind TEXT NOT NULL,
    label TEXT NOT NULL,
    place TEXT NOT NULL,
    run TEXT NOT NULL,
    object INTEGER NOT NULL,
    document TEXT NOT NULL      -- as pipeline.happenings.to_json has it
) WITHOUT ROWID;
CREATE INDEX happening_time ON happening (t_wall_ns);
CREATE INDEX happening_object ON happening (run, camera, object);
CREATE TABLE incident (         -- one object from when it came until it is gone
    run TEXT NOT NULL,
    camera TEXT NOT NULL,
    object INTEGER NOT NULL,
    label TEXT NOT NULL,        -- the one of the best score
    score REAL NOT NULL,
    start_ns INTEGER NOT NULL,  -- wall time
    end_ns INTEGER NOT NULL,    -- when anything was last known of it
    over INTEGER NOT NULL,      -- 1: it is gone
    places TEXT NOT NULL,       -- JSON list, in order
    kinds TEXT NOT NULL,
    PRIMARY KEY (run, camera, object)
) WITHOUT ROWID;
CREATE INDEX incident_time ON incident (start_ns);
"""


def open_to_write(path: str) -> sqlite3.Connection:
    """The store at `path`, made if missing, and looked through if not; takes as long as reading it.

    Raises ResourceError, ConfigError for a file that is broken or none.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        store = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
        with _closed_if_refused(store):
            check(store, path)
        store.execute("PRAGMA journal_mode = WAL")
        store.execute("PRAGMA synchronous = NORMAL")
        version = _number(store, "user_version")
        if version < VERSION:
            tables = "".join((_TABLES, _MINUTES, _SAME)[version:])  # each came with a version
            store.executescript(
                f"BEGIN; {tables} PRAGMA application_id = {_APPLICATION}; "
                f"PRAGMA user_version = {VERSION}; COMMIT;"
            )
    except sqlite3.DatabaseError as error:
        raise refused(path, error) from error
    return store


def open_to_read(path: str) -> sqlite3.Connection:
    """The store at `path`, which is not changed. Raises ResourceError, ConfigError as `check`."""
    if not Path(path).is_file():
        raise ResourceError(
            f"store {path}: there is no such file; a run with a sink of type 'store' makes it"
        )
    try:
        uri = f"{Path(path).absolute().as_uri()}?mode=ro"
        store = sqlite3.connect(uri, uri=True, timeout=_BUSY_S)
        store.row_factory = sqlite3.Row
        with _closed_if_refused(store):
            _check_version(store, path)
    except sqlite3.DatabaseError as error:
        raise refused(path, error) from error
    return store


@contextmanager
def _closed_if_refused(store: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except (ConfigError, sqlite3.DatabaseError):
        store.close()
        raise


def check(store: sqlite3.Connection, path: str) -> None:
    """Look through all of a file. Raises ConfigError if it is of another version, broken or no store."""
    try:
        found = store.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found.splitlines()[-1])
        _check_version(store, path)
    except sqlite3.DatabaseError as error:
        raise refused(path, error) from error


def refused(path: str, error: sqlite3.DatabaseError) -> ConfigError:
    """What SQLite says of a file, in one sentence."""
    if isinstance(error, sqlite3.OperationalError):
        return ResourceError(f"store {path}: can't be used: {error}; check the path and its mode")
    return ConfigError(
        f"store {path}: the file is broken or no store ({error}); "
        "move it away, and a new one is made"
    )


def _check_version(store: sqlite3.Connection, path: str) -> None:
    version, tables = (
        _number(store, "user_version"),
        store.execute("SELECT count(*) FROM sqlite_master").fetchone()[0],
    )
    if tables and _number(store, "application_id") != _APPLICATION:
        raise sqlite3.DatabaseError("it belongs to another program")
    if version > VERSION:
        raise ConfigError(
            f"store {path}: it is of version {version}, this build knows {VERSION}; "
            "use a newer build, or another file"
        )


def used_bytes(store: sqlite3.Connection) -> int:
    """Of the file, without the room in it that is free."""
    pages = _number(store, "page_count") - _number(store, "freelist_count")
    return pages * _number(store, "page_size")


def pictures_of(path: str) -> str:
    """The folder of the pictures of a store."""
    return f"{path}.pictures"


def _number(store: sqlite3.Connection, pragma: str) -> int:
    number: int = store.execute(f"PRAGMA {pragma}").fetchone()[0]
    return number
