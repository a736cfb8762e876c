"""What happened, kept: incidents, kills, what comes twice, what is old, and files that are none."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from walks import result

from pipeline.errors import ConfigError, FrameError, ResourceError
from pipeline.happenings import Happening
from pipeline.runtime import CameraState, LocalRuntime
from stages.sinks.store import query
from stages.sinks.store.stage import Store, StoreConfig

SECOND, DAY = 10**9, 86_400 * 10**9
T0 = 1_763_805_600 * SECOND


def happening(kind, track=7, label="car", score=0.5, **fields):
    return Happening(
        kind, fields.pop("run", "5f3a"), track, label, score, (1.0, 2.0, 3.0, 4.0), **fields
    )


def seen(n, *happenings, t_s=None, camera="gate"):
    """The result of frame n, a second after the one before."""
    t_wall_ns = T0 + round((n if t_s is None else t_s) * SECOND)
    one = result(n, {})
    return replace(
        one, info=one.info._replace(t_wall_ns=t_wall_ns, camera=camera), happenings=happenings
    )


def keep(path, *results, **config):
    store = Store(StoreConfig(path=str(path), **config))
    store.check(store.config)
    store.setup()
    for one in results:
        store.process(one)
    store.close()
    return path


def incidents(path, **wanted):
    return list(query.incidents(str(path), **wanted))


def happenings(path, **wanted):
    return list(query.happenings(str(path), **wanted))


VISIT = (
    seen(0, happening("appeared")),
    seen(1, happening("entered", score=0.9, place="door")),
    seen(2),
    seen(3, happening("crossed", label="truck", score=0.6, place="kerb", direction="in")),
    seen(4, happening("left", place="door", seconds=3.0), happening("gone", seconds=3.5)),
)


def test_one_object_is_one_incident(tmp_path):
    [one] = incidents(keep(tmp_path / "new" / "s.db", *VISIT))
    assert one == {
        "run": "5f3a", "camera": "gate", "object": 7, "label": "car", "score": 0.9,
        "start": "2025-11-22T10:00:00.000000Z", "end": "2025-11-22T10:00:04.000000Z", "seconds": 4.0,
        "places": ["door", "kerb"],
        "kinds": ["appeared", "entered", "crossed", "left", "gone"],
        "also": [],
        "picture": None,
    }  # fmt: skip


def test_who_is_still_there_has_no_end(tmp_path):
    [one] = incidents(keep(tmp_path / "s.db", *VISIT[:4]))
    assert (one["end"], one["seconds"]) == (None, None)


def test_with_a_new_run_nobody_of_the_last_is_there_any_more(tmp_path):
    path = keep(tmp_path / "s.db", *VISIT[:2])
    keep(path, seen(9, happening("appeared", run="77aa")))
    new, old = incidents(path)
    assert (new["run"], new["end"]) == ("77aa", None)
    assert (old["run"], old["seconds"]) == ("5f3a", 1.0)


def test_what_comes_twice_is_kept_once(tmp_path):
    path = keep(tmp_path / "s.db", *VISIT)
    once = incidents(path), happenings(path)
    keep(path, *VISIT)
    assert (incidents(path), happenings(path)) == once
    assert len(once[1]) == 5


def test_questions(tmp_path):
    path = keep(
        tmp_path / "s.db",
        *VISIT,
        seen(10, happening("appeared", 8, "person"), camera="yard"),
        seen(
            20,
            happening("appeared", 9, "person"),
            happening("crowded", -1, "", place="door", total=3),
        ),
    )
    objects = [one["object"] for one in incidents(path)]
    assert objects == [9, 8, 7]  # the newest first
    for wanted, found in (
        ({"camera": "yard"}, [8]),
        ({"label": "person"}, [9, 8]),
        ({"place": "kerb"}, [7]),
        ({"kind": "crossed"}, [7]),
        ({"since_ns": T0 + 10 * SECOND}, [9, 8]),
        ({"until_ns": T0 + 10 * SECOND}, [7]),
        ({"since_ns": T0 + 2 * SECOND, "until_ns": T0 + 3 * SECOND}, [7]),  # it was there meanwhile
        ({"camera": "yard", "label": "car"}, []),
        ({"limit": 1}, [9]),
    ):
        assert [one["object"] for one in incidents(path, **wanted)] == found
    [crowded] = happenings(path, kind="crowded")
    assert (crowded["count"], crowded["place"]) == (3, "door")
    assert len(happenings(path, place="door")) == 3


def test_what_is_old_goes(tmp_path):
    path = tmp_path / "s.db"
    keep(path, *VISIT, seen(9, happening("appeared", 8), t_s=3 * 86400), keep_days=2)
    assert [one["object"] for one in incidents(path)] == [8]
    assert len(happenings(path)) == 1


def test_a_store_of_nothing(tmp_path):
    path = keep(tmp_path / "s.db", seen(0))
    assert (incidents(path), happenings(path)) == ([], [])


KILLED = """
import sys, test_store
store = test_store.Store(test_store.StoreConfig(path=sys.argv[1]))
store.setup()
for n in range(10**6):
    store.process(test_store.seen(n, test_store.happening("appeared", n)))
    print(n, flush=True)
"""


def test_a_store_that_is_killed_has_all_that_it_took(tmp_path):
    path = tmp_path / "s.db"
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[2]), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, text=True, env=environment
        )
        with child:
            taken = next(n for n in map(int, child.stdout) if n >= 20)
            child.send_signal(signal.SIGKILL)
        kept = [one["frame_id"] for one in happenings(path, limit=10**6)]
        assert kept == sorted(kept, reverse=True)
        assert set(range(taken + 1)) <= set(kept)
        assert len(incidents(path, limit=10**6)) == len(kept)


def test_a_full_disk_costs_what_it_does_not_take(tmp_path):
    """A file that may not grow, as SQLite itself can be told."""
    store = Store(StoreConfig(path=str(tmp_path / "s.db")))
    store.setup()
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(FrameError, match=r"can't be written .*full.*make room"):
        list(map(store.process, (seen(n, happening("appeared", n)) for n in range(1000))))
    store.process(seen(1000, happening("appeared", 1000)))  # opened again, with room
    store.close()
    assert incidents(tmp_path / "s.db")[0]["object"] == 1000


@pytest.mark.parametrize("how", ["rename", "delete"])
def test_a_file_that_was_moved_or_deleted_gets_a_successor(tmp_path, how):
    path = tmp_path / "new" / "s.db"
    store = Store(StoreConfig(path=str(path)))
    store.runtime = LocalRuntime(("gate",))
    store.setup()
    store.process(seen(0, happening("appeared", 1)))
    for file in [*path.parent.iterdir()]:  # with what SQLite has beside it
        if how == "rename":
            file.rename(tmp_path / file.name.replace("s.db", "old.db"))
        else:
            file.unlink()
    store.idle()
    store.process(seen(1, happening("appeared", 2)))
    store.idle()
    store.process(seen(2, happening("appeared", 3)))
    store.close()
    assert [row["object"] for row in incidents(path)] == [3, 2]
    if how == "rename":
        assert [row["object"] for row in incidents(tmp_path / "old.db")] == [1]


def test_a_path_that_holds_something_else_by_now_costs_results_and_ends_nothing(tmp_path):
    path = tmp_path / "s.db"
    store = Store(StoreConfig(path=str(path)))
    store.runtime = LocalRuntime(("gate",))
    store.setup()
    for file in tmp_path.iterdir():
        file.unlink()
    path.write_text("no store\n" * 1000)
    store.idle()
    with pytest.raises(FrameError, match=r"sink store .*s.db: the file is broken or no store"):
        store.process(seen(0, happening("appeared", 1)))
    path.unlink()
    store.process(seen(1, happening("appeared", 2)))
    store.close()
    assert [row["object"] for row in incidents(path)] == [2]


def refused(path, words, **config):
    with pytest.raises((ConfigError, ResourceError), match=words) as error:
        Store.check(StoreConfig(path=str(path), **config))
    assert "\n" not in str(error.value)


def test_files_that_are_no_store_are_refused_in_a_sentence(tmp_path):
    (tmp_path / "text.db").write_text("hello\n" * 1000)
    refused(tmp_path / "text.db", "is broken or no store .file is not a database.; move it away")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    refused(tmp_path / "other.db", "no store .it belongs to another program.")
    path = keep(tmp_path / "torn.db", *(seen(n, happening("appeared", n)) for n in range(300)))
    data = bytearray(path.read_bytes())
    data[8192:20000] = bytes(11808)
    path.write_bytes(data)
    refused(path, "is broken or no store")
    newer = keep(tmp_path / "newer.db", seen(0))
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 9")
    db.close()
    refused(newer, "it is of version 9, this build knows 3")
    refused(tmp_path / "s.db", "keep_days must be > 0", keep_days=0)
    refused(tmp_path, "wanted a file at .*, got a folder")
    with pytest.raises(ResourceError, match="there is no such file; a run with a sink"):
        incidents(tmp_path / "nowhere.db")


def test_what_came_since_the_last_look_is_counted_at_the_end(tmp_path):
    store = Store(StoreConfig(path=str(tmp_path / "s.db")))
    store.runtime = LocalRuntime(("gate",))
    store.setup()
    store.idle()  # the next look is a second away
    store.runtime.states["gate"] = CameraState(frames=5)
    store.close()
    [minute] = query.minutes(str(tmp_path / "s.db"), "gate", 0, time.time_ns())
    assert minute["served"] == 5


def test_of_too_many_bytes_the_oldest_go(tmp_path):
    rows = [seen(n, happening("appeared", track=n), t_s=61 * n) for n in range(400)]
    path = keep(tmp_path / "s.db", *rows, max_mib=0.1)
    kept = [one["object"] for one in incidents(path, limit=1000)]
    assert 0 < len(kept) < 400
    assert kept == list(range(399, 399 - len(kept), -1))  # newest first, and none left out


def test_a_store_is_looked_through(tmp_path):
    path = keep(tmp_path / "s.db", *VISIT)
    assert query.look_through(str(path)).startswith("1 incidents, 5 happenings, ")
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(os.urandom(4000))
    with pytest.raises(ConfigError, match=r"s\.db: the file is broken"):
        query.look_through(str(path))
