"""Planted causes of a missing alarm, each named: stores and outboxes as runs write them."""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner
from walks import result

from pipeline.errors import ConfigError
from pipeline.face.cli import app
from pipeline.happenings import NO_FRAME, Happening
from pipeline.runtime import Fates, LocalRuntime
from stages.sinks.alarms.outbox import Message, Outbox
from stages.sinks.store.stage import Store, StoreConfig

SECOND = 1_000_000_000
CONFIG = """
[model]
engine = "stub"
score_threshold = 0.4
[[camera]]
name = "gate"
source = "synthetic://?seed=1"
[[camera]]
name = "yard"
source = "synthetic://?seed=2"
[[zone]]
name = "door"
camera = "gate"
polygon = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
[[sink]]
type = "store"
path = "store.db"
[[target]]
name = "log"
type = "file"
path = "alarms.jsonl"
[[alert]]
name = "visitor"
kinds = ["entered"]
cameras = ["gate"]
zones = ["door"]
classes = ["person"]
min_score = 0.5
to = ["log"]
"""


class Past(LocalRuntime):
    """A run whose frames have met these fates."""

    def __init__(self, served=0, **dropped):
        super().__init__(("gate",))
        self._fates = Fates(0, served, dropped)

    def fates(self, camera, since):
        fates, self._fates = self._fates, Fates(0)
        return fates


class Place:
    """A folder with a configuration and what runs have left there; asked is for the moment `now_ns`."""

    def __init__(self, folder):
        self.folder = folder
        self.now_ns = time.time_ns()
        self.write(CONFIG)

    def write(self, text, alert=""):
        (self.folder / "place.toml").write_text(text + alert)

    def ran(self, runtime=None, *results):
        store = Store(StoreConfig(path=str(self.folder / "store.db"), classes=("person", "car")))
        store.runtime = runtime or Past(served=500)
        store.setup()
        for one in results:
            store.process(one)
        store.idle()
        store.close()

    def seen(self, *happenings, ago_s=0.0, missed=None, frame_id=1, boxes=None):
        one = result(frame_id, boxes or {})
        info = one.info._replace(t_wall_ns=self.now_ns - int(ago_s * SECOND), camera="gate")
        return replace(one, info=info, happenings=happenings, missed=missed)

    def camera(self, kind, cause="", ago_s=0.0):
        return self.seen(happening(kind, -1, "", direction=cause), ago_s=ago_s, frame_id=NO_FRAME)

    def explained(self, camera="gate"):
        at = datetime.fromtimestamp(self.now_ns / 1e9, UTC).isoformat()
        command = ["explain", str(self.folder / "place.toml"), "--camera", camera, "--at", at]
        told = CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False)
        rows = [json.loads(line) for line in told.stdout.splitlines()]
        words = CliRunner().invoke(app, command, catch_exceptions=False).stdout
        assert all(row["text"] in words for row in rows)
        return rows

    def causes(self, camera="gate"):
        return [row["cause"] for row in self.explained(camera)]


def happening(kind, track=7, label="person", score=0.9, **fields):
    return Happening(kind, "5f3a", track, label, score, (1.0, 2.0, 3.0, 4.0), **fields)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def visit(place, ago_s=0.0, frame_id=1, **fields):
    return place.seen(
        happening("appeared", **fields), happening("entered", place="door", **fields),
        ago_s=ago_s, frame_id=frame_id,
    )  # fmt: skip


@pytest.mark.parametrize("cause", ["network", "login", "codec", "process"])
def test_the_camera_was_down(place, cause):
    place.ran(Past(), place.camera("down", cause, ago_s=600))
    [down, none] = place.explained()
    assert down["cause"] == f"down: {cause}"
    assert "since" in down["text"]
    assert none["cause"] == "no frames"


def test_a_camera_that_came_back_was_not_down(place):
    place.ran(None, place.camera("down", "network", ago_s=600), place.camera("up", ago_s=300))
    assert place.causes() == ["nothing"]


@pytest.mark.parametrize("kind", ["frozen", "dark", "blinded", "moved"])
def test_its_picture_was_wrong(place, kind):
    place.ran(None, place.camera(kind, ago_s=30))
    assert place.causes() == [kind, "nothing"]


def test_what_an_earlier_run_knew_is_not_known_any_more(place):
    old = place.camera("dark", ago_s=3600)
    earlier = replace(old, happenings=(old.happenings[0]._replace(run="0"),))
    place.ran(None, earlier, visit(place))
    assert "dark" not in place.causes()


def test_frames_were_dropped_and_why(place):
    place.ran(Past(served=10, superseded=700, torn=2))
    dropped, _ = place.explained()
    assert dropped["cause"] == "dropped: superseded"
    assert "of 712 frames 10 were looked at" in dropped["text"]


def test_the_score_was_below_the_threshold(place):
    place.ran(None, place.seen(missed=(0, 0.31)), place.seen(missed=(1, 0.12)))
    [score] = place.explained()
    assert score["cause"] == "score"
    assert "person 0.31, the threshold is 0.4" in score["text"]


def test_the_threshold_is_the_models_where_the_file_has_none(place):
    place.write(CONFIG.replace("score_threshold = 0.4", ""))
    place.ran(None, place.seen(missed=(0, 0.11)))
    [score] = place.explained()
    assert "person 0.11, the threshold is 0." in score["text"]


def test_a_class_has_a_threshold_of_its_own(place):
    place.write(CONFIG.replace("= 0.4", "= 0.4\nper_class = {car = 0.7}"))
    place.ran(None, place.seen(missed=(1, 0.61)))
    [score] = place.explained()
    assert "car 0.61, the threshold is 0.7" in score["text"]


def test_boxes_were_found_that_made_no_object(place):
    place.ran(None, place.seen(boxes={-1: (100, 60)}))
    assert place.causes() == ["unconfirmed"]


def test_it_was_outside_every_zone(place):
    place.ran(None, place.seen(happening("appeared")))
    [outside] = place.explained()
    assert outside["cause"] == "outside"
    assert "person was there, and outside every zone and line door" in outside["text"]


def test_it_was_of_another_class(place):
    place.ran(None, visit(place, label="car"))
    assert place.causes() == ["class"]


def test_it_was_less_sure_than_the_alert_wants(place):
    place.ran(None, visit(place, score=0.45))
    assert place.causes() == ["min_score"]


def test_the_schedule_was_another(place):
    now = datetime.fromtimestamp(place.now_ns / 1e9, UTC)
    day = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[(now.weekday() + 3) % 7]
    place.write(CONFIG, f'when = ["{day} 00:00-24:00"]\ntime_zone = "UTC"\n')
    place.ran(None, visit(place))
    assert place.causes() == ["schedule"]


def test_it_was_muted(place):
    place.write(CONFIG, "armed = false\n")
    place.ran(None, visit(place))
    assert place.causes() == ["muted"]


def test_the_same_was_told_a_moment_before(place):
    place.write(CONFIG, "cooldown_s = 300\n")
    place.ran(None, visit(place, ago_s=200), visit(place, frame_id=2))
    assert place.causes() == ["cool-down"]


@pytest.mark.parametrize(("came", "cause"), [(False, "target away"), (True, "alarm")])
def test_the_target_was_away(place, came, cause):
    one = visit(place)
    place.ran(None, one)
    alarm = "5f3a-gate-1-1:visitor"
    outbox = Outbox(str(place.folder / "outbox.db"))
    [message] = outbox.add([Message(0, alarm, "log", "gate", place.now_ns, 0, "", "{}")], {})
    if came:
        seq = outbox._db.execute("SELECT seq FROM message").fetchone()[0]
        outbox.delivered([seq])
    outbox.close()
    assert message.id == alarm
    assert place.causes() == [cause]


def test_an_alarm_that_no_outbox_has_is_said_to_be_missing(place):
    place.ran(None, visit(place))
    assert place.causes() == ["not kept"]


def test_nobody_wants_to_be_told(place):
    place.write(CONFIG[: CONFIG.index("[[target]]")])
    place.ran(None, visit(place))
    assert place.causes() == ["no alert"]


def test_no_run_was_there(place):
    place.ran()
    assert place.causes("yard") == ["no run"]


def test_a_store_of_an_older_build_has_no_minutes_and_gets_them(place):
    import sqlite3

    place.ran()
    with sqlite3.connect(place.folder / "store.db") as db:
        db.execute("DROP TABLE minute")
        db.execute("DROP TABLE same")
        db.execute("PRAGMA user_version = 1")
    db.close()
    assert place.causes() == ["no run"]
    place.ran()
    assert place.causes() == ["nothing"]


def test_bad_questions_are_one_sentence(place):
    place.ran()
    for words, sentence in (
        (["--camera", "gaet", "--at", "1m"], "did you mean 'gate'?"),
        (["--at", "noon"], "wanted a moment like"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            CliRunner().invoke(
                app, ["explain", str(place.folder / "place.toml"), *words], catch_exceptions=False
            )
