"""Alarms and their outbox: what is told, in which order, over kills, full disks and dead targets."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import threading
import time
from functools import partial
from queue import SimpleQueue

import pytest
from alarming import (
    SECOND,
    T0,
    account,
    alarms,
    alert,
    happening,
    seen,
    start,
    until,
    webhook,
)
from patience import BOUND_S
from receiver import Receiver
from standardwebhooks import Webhook as Oracle

from pipeline.accounts.layout import EDGES_S, Layout
from pipeline.accounts.ledger import Ledger
from pipeline.errors import ConfigError, FrameError, ResourceError
from pipeline.runtime import LocalRuntime
from stages.sinks.alarms.courier import Courier
from stages.sinks.alarms.lines import Lines
from stages.sinks.alarms.stage import Alarms
from stages.sinks.alarms.webhook import Webhook

DEAD = "http://127.0.0.1:9/nobody"
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqr"


def test_an_alarm_arrives_once_and_whole(tmp_path):
    with Receiver() as receiver:
        stage = alarms(tmp_path / "new" / "o.db", [webhook(receiver.url)])
        entry = seen(0, happening("appeared"), happening())
        stage.process(entry)
        stage.process(entry)  # the same result again, after a kill
        stage.process(seen(1, happening("left", seconds=1.0)))
        until(stage, lambda: account(stage) == (1, 1, 0))
        stage.close()
    [body] = map(json.loads, receiver.bodies)
    assert body == {
        "version": 1, "id": "5f3a-gate-0-1:visitor", "alert": "visitor",
        "text": "gate: person entered yard",
        "happening": {
            "version": 1, "id": "5f3a-gate-0-1", "run": "5f3a", "kind": "entered", "camera": "gate",
            "frame_id": 0, "time": "2025-11-22T10:00:00.000000Z", "object": 7, "label": "person",
            "score": 0.5, "xyxy": [1.0, 2.0, 3.0, 4.0], "place": "yard",
        },
    }  # fmt: skip
    assert stage.runtime.counted("alarm:visitor:alarm", "gate") == 2  # said, not sent, twice


def test_it_is_signed_as_the_standard_says(tmp_path, monkeypatch):
    monkeypatch.setenv("OPS_SECRET", KEY)
    with Receiver() as receiver:
        stage = alarms(tmp_path / "o.db", [webhook(receiver.url, credentials="OPS")])
        # the oracle refuses what is older than minutes, so the label is of this attempt
        stage.process(seen(0, happening()))
        until(stage, lambda: receiver.ids)
        stage.close()
    assert stage.secrets(stage.config) == ("OPS_SECRET", "OPS_FILE")
    assert Oracle(KEY).verify(receiver.bodies[0], receiver.headers[0])
    with pytest.raises(Exception, match="No matching signature"):
        Oracle(KEY[:-1] + "q").verify(receiver.bodies[0], receiver.headers[0])


def test_what_a_receiver_does_not_take_comes_again_in_order(tmp_path):
    """It refuses, hangs, redirects, and breaks off though it has the message."""
    moods = random.Random(0).choices([204] * 5 + [500, 503, 404, "redirect", "drop"], k=400)
    moods[3] = "hang"
    with Receiver(lambda n: moods[n] if n < len(moods) else 204) as receiver:
        stage = alarms(tmp_path / "o.db", [webhook(receiver.url, timeout_s=0.2)])
        sent = 40
        for n in range(sent):
            stage.process(seen(n, happening(track=n)))
        until(stage, lambda: account(stage) == (sent, sent, 0))
        stage.close()
    assert receiver.distinct() == [f"5f3a-gate-{n}-0:visitor" for n in range(sent)]
    assert receiver.asked > sent + 10
    failed = stage.runtime.counted("delivery:ops:failed", "gate")
    assert failed == receiver.asked - sent


def test_a_dead_target_delays_no_other(tmp_path, caplog):
    with Receiver() as receiver:
        stage = alarms(
            tmp_path / "o.db",
            [webhook(DEAD, "dead"), webhook(receiver.url)],
            [alert(to=["dead", "ops"])],
        )
        for n in range(20):
            stage.process(seen(n, happening(track=n)))
        until(stage, lambda: account(stage) == (20, 20, 0))
        assert account(stage, "dead") == (20, 0, 0)
        stage.close()
    assert "target 'dead': http://127.0.0.1:9/…: ConnectError" in caplog.text
    assert "nobody" not in caplog.text  # a path may hold a token


def test_what_a_library_raises_is_the_affair_of_its_target_alone(tmp_path, monkeypatch, caplog):
    def open_badly(self, rules, wake):
        raise LookupError("a secret")

    monkeypatch.setattr(Lines, "open", open_badly)
    lines = {"name": "bad", "run": "stages.sinks.alarms.lines:Lines", "path": str(tmp_path / "a")}
    with Receiver() as receiver:
        stage = alarms(
            tmp_path / "o.db", [lines, webhook(receiver.url)], [alert(to=["bad", "ops"])]
        )
        stage.process(seen(0, happening()))
        until(stage, lambda: account(stage) == (1, 1, 0))
        monkeypatch.undo()
        until(stage, lambda: account(stage, "bad") == (1, 1, 0))
        stage.close()
    assert "target 'bad': LookupError in open_badly" in caplog.text
    assert "a secret" not in caplog.text


def test_a_target_that_there_is_no_more_holds_nothing_up(tmp_path, caplog):
    stage = alarms(tmp_path / "o.db", [webhook(DEAD, "old")], [alert(to=["old"])])
    stage.process(seen(0, happening()))
    stage.close()
    stage = alarms(tmp_path / "o.db", [webhook(DEAD)], max_age_h=1e-9)
    assert "1 alarms waited for target 'old', which there is no more" in caplog.text
    stage.idle()
    assert not +stage._waiting
    stage.close()


def test_who_was_told_of_long_ago_is_forgotten(tmp_path):
    stage = alarms(tmp_path / "o.db", [webhook(DEAD)], [alert(cooldown_s=10.0)])
    for n in range(50):
        stage.process(seen(n, happening(track=n)))
    stage._sweep_at_s = 0.0
    stage.idle()
    assert len(stage._cooling) == len(stage._outbox.cooling()) == 11
    stage.close()


def test_the_next_run_delivers_what_the_last_could_not(tmp_path):
    stage = alarms(tmp_path / "o.db", [webhook(DEAD)])
    for n in range(3):
        stage.process(seen(n, happening(track=n)))
    stage.close()
    with Receiver() as receiver:
        stage = alarms(tmp_path / "o.db", [webhook(receiver.url)])
        assert account(stage)[0] == 3
        until(stage, lambda: account(stage) == (3, 3, 0))
        stage.process(seen(3, happening(track=2)))  # cools down since the last run
        assert stage.runtime.counted("alarm:visitor:cool-down", "gate") == 1
        stage.close()
    assert len(receiver.ids) == 3


def kill_under_load(path, times):
    """Alarms by a process that is killed again and again, at a receiver that fails half of the time."""
    moods = random.Random(1)
    with Receiver(lambda n: moods.choice([204, 500, 204, "drop"])) as receiver:
        first = 0
        for round in range(times):
            with start(path, receiver.url, first) as child:
                said = next(n for n in map(int, child.stdout) if n >= first + 10 + round % 7)
                child.send_signal(signal.SIGKILL)
                rest = child.stdout.read().split("\n")[:-1]
            # what it was doing when it was killed comes again from the process before it, or is lost there
            first = max([said, *map(int, rest)])
        stage = alarms(path, [webhook(receiver.url)])
        stage.process(seen(first, happening(track=first)))
        until(stage, lambda: not +stage._waiting)
        stage.close()
    return receiver, first


def test_an_outbox_that_is_killed_loses_nothing_and_doubles_nothing(tmp_path):
    receiver, last = kill_under_load(tmp_path / "o.db", 3)
    ids = receiver.distinct()
    assert ids == [f"5f3a-gate-{n}-0:visitor" for n in range(len(ids))]
    assert last + 1 <= len(ids) <= last + 2  # it may have been killed before it could say the last


def test_counts_are_right_again_after_a_kill_in_between(tmp_path):
    """Between the file and the ledger anything may happen."""
    stage = alarms(tmp_path / "o.db", [webhook(DEAD)])
    stage.process(seen(0, happening()))
    killed(stage)
    counts = stage.runtime.counts
    counts["delivery:ops:queued", "gate"] = 0  # killed before it could count
    stage = alarms(tmp_path / "o.db", [webhook(DEAD)], runtime=stage.runtime)
    assert account(stage) == (1, 0, 0)
    stage._outbox.delivered([1])  # killed before it could count
    killed(stage)
    stage = alarms(tmp_path / "o.db", [webhook(DEAD)], runtime=stage.runtime)
    assert account(stage) == (1, 1, 0)
    stage.close()


def killed(stage):
    """All that a process leaves behind; its threads would end with it."""
    for courier in stage._couriers.values():
        courier.end()
        courier.join()
    stage._outbox.close()


def test_a_courier_that_is_told_to_end_before_its_first_look_ends(tmp_path):
    """It takes in what it was told so far, and that is: to end."""
    stage = alarms(tmp_path / "o.db", [webhook(DEAD)])
    target = stage._couriers["ops"]._target
    stage.close()
    courier = Courier(target, (), str(tmp_path / "o.db"), SimpleQueue())

    class Told(threading.Event):
        def clear(self):
            courier.end()  # between two of its steps, as another thread may
            super().clear()

    courier._new = Told()
    courier.start()
    courier.join(BOUND_S / 8)
    is_left = courier.is_alive()
    courier._new.set()
    assert not is_left


def test_a_camera_that_has_left_leaves_an_account_that_adds_up(tmp_path):
    stage = alarms(tmp_path / "o.db", [webhook(DEAD)])
    stage.process(seen(0, happening(), camera="yard"))
    stage.close()
    stage.runtime.cameras = ("gate",)
    with Receiver() as receiver:
        stage = alarms(tmp_path / "o.db", [webhook(receiver.url)], runtime=stage.runtime)
        until(stage, lambda: account(stage) == (1, 1, 0))
        stage.close()


def test_what_is_too_much_or_too_old_is_given_up_and_counted(tmp_path):
    stage = alarms(tmp_path / "o.db", [webhook(DEAD)], max_mb=0.002)  # four or so
    for n in range(20):
        stage.process(seen(n, happening(track=n)))
        stage.idle()
    queued, delivered, given_up = account(stage)
    assert (queued, delivered) == (20, 0)
    assert 14 <= given_up < 20
    stage.close()
    with Receiver() as receiver:  # the newest are kept
        stage = alarms(tmp_path / "o.db", [webhook(receiver.url)])
        until(stage, lambda: not +stage._waiting)
        stage.close()
    assert receiver.ids[-1] == "5f3a-gate-19-0:visitor"
    assert len(receiver.ids) == 20 - given_up
    old = alarms(tmp_path / "old.db", [webhook(DEAD)], max_age_h=1e-9)
    old.process(seen(0, happening()))
    old._sweep_at_s = 0.0
    old.idle()
    assert account(old) == (1, 0, 1)
    old.close()


def test_a_full_disk_costs_the_alarms_that_it_does_not_take(tmp_path):
    """A file that may not grow, as SQLite itself can be told."""
    with Receiver() as receiver:
        stage = alarms(tmp_path / "o.db", [webhook(receiver.url)])
        pages = stage._outbox._db.execute("PRAGMA page_count").fetchone()[0]
        stage._outbox._db.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(FrameError, match=r"can't be written .*full.*make room"):
            list(map(stage.process, (seen(n, happening(track=n)) for n in range(1000))))
        taken = account(stage)[0]
        stage._outbox._db.execute("PRAGMA max_page_count = 1000000")
        stage.process(seen(taken, happening(track=taken)))  # not swallowed by what nobody was told
        until(stage, lambda: account(stage) == (taken + 1, taken + 1, 0))
        stage.close()
    assert len(receiver.distinct()) == taken + 1


def test_a_file_that_is_broken_meanwhile_stops_nothing(tmp_path):
    """What can still be delivered is; whoever starts with what is left of it is told so in a sentence."""
    path = tmp_path / "o.db"
    with Receiver() as receiver:
        stage = alarms(path, [webhook(receiver.url)])
        for n in range(30):
            stage.process(seen(n, happening(track=n)))
        until(stage, lambda: account(stage) == (30, 30, 0))
        for part in (path, path.with_name("o.db-wal")):
            with part.open("r+b") as file:
                file.write(b"garbage!" * (part.stat().st_size // 8))
        for n in range(30, 60):
            with contextlib.suppress(FrameError):  # as the runner does, which counts it
                stage.process(seen(n, happening(track=n)))
            stage.idle()
        stage._sweep_at_s = 0.0
        stage.idle()
        stage.close()
    refused("outbox .*o.db: the file is broken or no outbox", path)


def test_an_outbox_that_is_moved_away_wants_a_new_process(tmp_path):
    stage = alarms(tmp_path / "o.db", [webhook(DEAD)])
    os.rename(tmp_path / "o.db", tmp_path / "elsewhere.db")
    with pytest.raises(RuntimeError, match="moved away"):
        until(stage, lambda: False)
    stage.close()


def refused(words, path, targets=(), alerts=None, **fields):
    with pytest.raises((ConfigError, ResourceError), match=words) as error:
        alarms(path, targets or [webhook(DEAD)], alerts, **fields)
    assert "\n" not in str(error.value)


def test_mistakes_are_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "o.db"
    monkeypatch.setenv("BAD_SECRET", "secret")
    for url in ("ftp://x", "http://me:secret@x/", "x", "http://"):
        refused("target 'ops': url must be http:// or https:// without user", path, [webhook(url)])
    refused(
        "credentials 'NO': wanted NO_SECRET, or NO_FILE", path, [webhook(DEAD, credentials="NO")]
    )
    refused(r"make one with echo \"whsec_\$\(openssl", path, [webhook(DEAD, credentials="BAD")])
    refused("ca_file: .*no certificates can be read", path, [webhook(DEAD, ca_file="/nowhere")])
    refused("timeout_s must be within 0..60", path, [webhook(DEAD, timeout_s=90.0)])
    zone = {"when": ["00:00-24:00"]}
    refused("alert 'visitor': when needs a time_zone", path, alerts=[alert(**zone)])
    refused("no time zone 'Europe/Berln'", path, alerts=[alert(**zone, time_zone="Europe/Berln")])
    refused("the model has no class 'persn'; did you mean 'person'", path,
            alerts=[alert(classes=["persn"])])  # fmt: skip
    refused("classes say nothing of 'crowded'; make an alert of its own", path,
            alerts=[alert(kinds=["entered", "crowded"], classes=["person"])])  # fmt: skip
    refused("zones say nothing of 'crossed'", path,
            alerts=[alert(kinds=["crossed"], zones=["yard"])])  # fmt: skip
    refused("max_mb must be > 0", path, max_mb=0.0)
    refused("wanted a file at .*, got a folder", tmp_path)
    path.write_text("hello\n" * 1000)
    refused("is broken or no outbox .file is not a database.; move it away", path)
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    refused("no outbox .it belongs to another program.", path)


def test_a_library_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Webhook, "needs", ("httpx17", "alarms"))
    refused(r"target 'ops': it needs httpx17; pip install 'manyeyes\[alarms\]'", tmp_path / "o.db")


def test_a_schedule_and_a_class_are_kept_to(tmp_path):
    day = alert(name="day", when=["sat 10:00-11:00"], time_zone="UTC")  # the test's time, UTC
    night = alert(name="night", when=["sat 10:00-11:00"], time_zone="Asia/Tokyo")
    cars = alert(name="cars", classes=["car"])
    stage = alarms(tmp_path / "o.db", [webhook(DEAD)], [day, night, cars])
    stage.process(seen(0, happening()))
    counts = {name: n for (name, _), n in stage.runtime.counts.items() if name.startswith("alarm")}
    assert counts == {"alarm:day:alarm": 1, "alarm:night:not now": 1}
    assert set(counts) <= set(Alarms.counters(stage.config))
    stage.close()


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.2, 1.0])
def test_lateness_is_from_the_picture_to_the_answer(tmp_path, delay_s):
    """Between what the receiver knows, just before it answers, and what is seen here afterwards."""
    answered_ns = []

    def answer(n):
        threading.Event().wait(delay_s)
        answered_ns.append(time.monotonic_ns())
        return 204

    layout = Layout.of(
        ("gate",),
        ("sink.alarms",),
        {"sink.alarms": ()},
        histograms={"sink.alarms": ("lateness:ops",)},
    )
    ledger = Ledger.local(layout)
    runtime = LocalRuntime(("gate",))
    runtime.measure = partial(ledger.measure, "sink.alarms")
    with Receiver(answer) as receiver:
        stage = alarms(tmp_path / "o.db", [webhook(receiver.url)], runtime=runtime)
        entry = seen(0, happening())
        stage.process(entry)
        until(stage, lambda: account(stage) == (1, 1, 0))
        most_s = (time.monotonic_ns() - entry.info.t_capture_ns) / 1e9
        stage.close()
    cells, total_s = ledger.histogram("sink.alarms", "lateness:ops")
    least_s = (answered_ns[0] - entry.info.t_capture_ns) / 1e9
    assert delay_s <= least_s <= total_s <= most_s
    assert cells.sum() == 1
    cell = int(cells.argmax())
    assert (EDGES_S[cell - 1] if cell else 0.0) < total_s <= EDGES_S[cell]


def test_a_message_of_another_boot_is_as_late_as_the_clock_says(tmp_path):
    stage = alarms(tmp_path / "o.db", [webhook(DEAD)])
    stage.process(seen(0, happening(), t_s=(time.time_ns() - T0) / SECOND - 90))  # 90 s ago
    stage.close()
    with sqlite3.connect(tmp_path / "o.db") as outbox:
        outbox.execute("UPDATE message SET boot = 'another'")
    outbox.close()
    with Receiver() as receiver:
        stage = alarms(tmp_path / "o.db", [webhook(receiver.url)])
        until(stage, lambda: account(stage) == (1, 1, 0))
        stage.close()
    [late_s] = stage.runtime.durations["lateness:ops"]
    assert 90 <= late_s < 90 + BOUND_S
