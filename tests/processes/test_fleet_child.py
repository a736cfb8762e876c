"""The run of an agent, as real processes: it begins, tells, changes or is refused, ends, and is killed."""

import json
import tomllib
from pathlib import Path
from time import monotonic, sleep

import pytest
from patience import BOUND_S

from pipeline.fleet import config
from pipeline.fleet.child import RunChild
from pipeline.fleet.guard import now_s

HOUR_S = 3600.0
FLEET = """
[model]
engine = "stub"
[metrics]
enabled = false
[[machine]]
name = "a"
cameras = 4
[[camera]]
name = "gate"
source = "synthetic://?seed=1&rate=5&size=320x180"
[[camera]]
name = "yard"
source = "synthetic://?seed=2&rate=5&size=320x180"
[[sink]]
type = "events"
path = "{machine}.jsonl"
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    (tmp_path / "t").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of the cluster")
    child = RunChild(tmp_path / "fleet.toml", "a")
    yield child
    child.stop()
    until(lambda: child.poll() is not None)


def until(condition):
    """Poll for what other processes do; there is nothing to wait on."""
    end = monotonic() + BOUND_S
    while not (found := condition()):
        assert monotonic() < end, "it did not happen in time"
        sleep(0.1)
    return found


def delivered(child, camera):
    return child.told().get("cameras", {}).get(camera, {}).get("delivered", 0)


def test_a_run_of_the_cameras_that_it_may_run(child, tmp_path):
    tables = tomllib.loads(FLEET)
    child.start({"gate": 1}, tables, now_s() + HOUR_S)
    until(lambda: delivered(child, "gate") > 0)
    assert list(child.told()["cameras"]) == ["gate"]
    assert b"RAY_AUTH_TOKEN" not in Path(f"/proc/{child.told()['pid']}/environ").read_bytes()
    child.stop()
    assert until(lambda: [child.poll()] if child.poll() is not None else None) == [0]
    events = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert {event["camera"] for event in events} == {"gate"}


def test_cameras_join_and_leave_while_it_goes_on(child):
    tables = tomllib.loads(FLEET)
    child.start({"gate": 1}, tables, now_s() + HOUR_S)
    until(lambda: delivered(child, "gate") > 0)
    pid = child.told()["pid"]
    assert child.change({"gate": 1, "yard": 2}, tables)
    until(lambda: delivered(child, "yard") > 0)
    assert child.change({"yard": 2}, tables)
    until(lambda: child.told().get("cameras", {}).get("gate", {}).get("state", "left") == "left")
    assert child.told()["pid"] == pid, "it was not started anew for that"
    assert not child.change({"yard": 2}, {**tables, "preprocess": {"workers": 2}}), "this is not so"


def test_a_camera_that_leaves_while_the_run_starts_does_not_keep_the_others_waiting(child):
    tables = tomllib.loads(FLEET)
    tables["sink"].append({"type": "store", "path": "{machine}.db"})
    child.start({"gate": 1, "yard": 2}, tables, now_s() + HOUR_S)
    until(lambda: child.told().get("cameras"))
    assert child.change({"gate": 1}, tables)
    until(lambda: delivered(child, "gate") > 0)


def test_it_is_killed_when_the_lease_is_over(child):
    child.start({"gate": 1}, tomllib.loads(FLEET), now_s() + HOUR_S)
    until(lambda: child.told().get("pid"))
    child.extend(now_s() - 1)
    assert until(child.poll) == 128 + 9


def test_one_that_is_refused_says_why(child):
    tables = tomllib.loads(FLEET)
    tables["camera"][0]["sead"] = 3
    child.start({"gate": 1}, tables, now_s() + HOUR_S)
    assert until(child.poll) == 78
    assert "camera 'gate': unknown key 'sead'" in child.told()["sentence"]


def test_tables_that_are_none_are_refused_before_anything_starts(child):
    with pytest.raises(config.ConfigError, match="there is no camera"):
        child.start({"gate": 1}, {}, now_s() + HOUR_S)
    assert child.poll() == 0
