"""`manyeyes alerts`: the coming days over a change of daylight saving, and the past that a store has."""

import json
from pathlib import Path

import pytest
from alarming import happening, seen

from pipeline.errors import ConfigError
from pipeline.face.alert_commands import alerts
from stages.sinks.alarms.preview import calendar, rehearsal
from stages.sinks.store.stage import Store, StoreConfig

CONFIG = """
[model]
engine = "stub"
[[camera]]
name = "gate"
source = "synthetic://?seed=1"
[[zone]]
name = "yard"
camera = "gate"
polygon = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
[[target]]
name = "log"
type = "file"
path = "alarms.jsonl"
[[alert]]
name = "night"
kinds = ["entered"]
when = ["sat 22:00-06:00"]
time_zone = "Europe/Berlin"
to = ["log"]
[[alert]]
name = "day"
kinds = ["entered", "left"]
when = ["sat 11:00-12:00"]          # 10:00 to 11:00 in UTC
time_zone = "Europe/Berlin"
to = ["log"]
[[alert]]
name = "off"
kinds = ["entered"]
armed = false
to = ["log"]
"""
STORE = '[[sink]]\ntype = "store"\npath = "store.db"\n'


def keep(path):
    """Two objects, one of which comes twice, on Saturday, 22 November 2025, from 10:00 UTC on."""
    store = Store(StoreConfig(path=str(path)))
    store.setup()
    for n, track in enumerate((7, 7, 8)):
        store.process(seen(n, happening(track=track), t_s=10 * n))
    store.process(seen(3, happening("left", seconds=5.0), t_s=7200))
    store.close()


def test_the_coming_days_and_the_past(manyeyes):
    manyeyes.write(CONFIG + STORE)
    keep(Path(manyeyes.folder / "store.db"))
    code, out, err = manyeyes(
        "alerts", "run.toml", "--from", "2025-11-23T00:00Z", "--json", "--next", "2d"
    )
    assert (code, err) == (0, "")
    told = json.loads(out)["past"]
    assert [(row["alert"], row["verdict"]) for row in told] == [
        ("night", "not now"), ("day", "alarm"), ("off", "disarmed"),
        ("night", "not now"), ("day", "cool-down"), ("off", "disarmed"),
        ("night", "not now"), ("day", "alarm"), ("off", "disarmed"),
        ("day", "not now"),
    ]  # fmt: skip
    assert told[1]["to"] == ["log"]
    assert told[1]["text"] == "gate: person entered yard"
    code, out, err = manyeyes(
        "alerts", "run.toml", "--from", "2026-10-20", "--next", "1w", "--each"
    )
    assert (code, err) == (0, "")
    assert "night  Sat 2026-10-24 22:00 +0200  Sun 2026-10-25 06:00 +0100      9" in out
    assert "off    disarmed" in out


def test_without_a_past_there_is_no_dry_run(tmp_path, capsys):
    path = tmp_path / "run.toml"

    def told(text, coming="1d"):
        path.write_text(text)
        alerts(path, coming=coming, past=None, at=None, each=False, as_json=False)
        return capsys.readouterr().out

    assert "no dry run: run.toml: there is no store; add a [[sink]]" in told(CONFIG)
    with pytest.raises(ConfigError, match=r"run.toml: there is no alert; add an .*and a "):
        told(CONFIG[: CONFIG.index("[[alert]]")])
    with pytest.raises(ConfigError, match=r"--next: wanted a length of time like 7d, .*'week'"):
        told(CONFIG, "week")


def test_the_past_needs_no_order_of_ids_and_no_whole_seconds():
    alert = {"name": "a", "kinds": ["entered"], "to": ["log"], "cooldown_s": 1.0}
    one = {"id": "x", "run": "r", "kind": "entered", "camera": "gate", "object": 1, "label": "car",
           "score": 0.5, "place": "yard"}  # fmt: skip
    times = "10:00:00.000001", "10:00:01.000000", "10:00:01.000001"
    happenings = [one | {"time": f"2026-11-22T{time}Z"} for time in times]
    assert [row["verdict"] for row in rehearsal([alert], happenings)] == [
        "alarm", "cool-down", "alarm",
    ]  # fmt: skip
    [always] = calendar([alert], 0, 3600)
    assert always["hours"] == 1
