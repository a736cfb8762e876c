"""A run is changed while it goes on: `manyeyes ctl`, SIGHUP and --watch, on a real run."""

import contextlib
import json
import os
import signal
from pathlib import Path

import pytest
from changing import Run
from patience import BOUND_S

from pipeline.errors import ManyeyesError
from pipeline.plan import config as configuration

HEAD = """
[model]
engine = "stub"
[metrics]
port = 0
[run]
max_cameras = 4
[[sink]]
type = "events"
path = "events.jsonl"
"""
CAMERA = """
[[camera]]
name = "{name}"
source = "synthetic://?seed={seed}&size=64x64&rate={rate}"
"""


CHECKS_WITH_A_BUG = """
from dataclasses import dataclass
from pipeline.stage import Source
@dataclass(frozen=True)
class Nothing:
    pass
class Bug(Source):
    Config = Nothing
    @classmethod
    def check(cls, config):
        raise KeyError("a bug")
"""


def toml(*cameras, head=HEAD):
    """cameras: a name, or a name and frames a second."""
    both = (camera if isinstance(camera, tuple) else (camera, 10) for camera in cameras)
    return head + "".join(
        CAMERA.format(name=name, seed=seed, rate=rate) for seed, (name, rate) in enumerate(both)
    )


@pytest.fixture
def run(manyeyes, monkeypatch):
    """Cameras gate and yard."""
    monkeypatch.setenv("TMPDIR", str(manyeyes.temporary))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(manyeyes.temporary))
    manyeyes.write(toml("gate", "yard"))
    with contextlib.ExitStack() as stack:
        yield lambda *options: stack.enter_context(contextlib.closing(Run(manyeyes, *options)))


def loaded_at(pid):
    """The niceness at which a process was told to load, and that of its threads by now."""
    command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    tasks = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    assert len(tasks) > 1
    return int(command[7]), {os.getpriority(os.PRIO_PROCESS, task) for task in tasks}


def test_who_joins_is_loaded_behind_the_others_and_who_died_is_not(run, manyeyes):
    one, usual = run(), {os.getpriority(os.PRIO_PROCESS, 0)}
    one.until_cameras("gate", "yard")

    def ready(*but):
        stage = one.status()["stages"].get("capture.porch", {"state": ""})
        return stage["pid"] if stage["state"] == "ready" and stage["pid"] not in but else None

    assert loaded_at(one.status()["stages"]["capture.gate"]["pid"]) == (0, usual)
    porch = {"name": "porch", "source": "synthetic://?size=64x64&rate=10"}
    one.ask("add", cameras=[porch], folder=".")
    one.until(ready)
    before = ready()
    assert loaded_at(before) == (10, usual)
    os.kill(before, signal.SIGKILL)
    one.until(lambda: ready(before))
    assert loaded_at(ready(before)) == (0, usual)


def test_cameras_join_leave_and_change_and_the_others_do_not_notice(run, manyeyes):
    one = run()
    one.until_cameras("gate", "yard")
    gate = one.status()["stages"]["capture.gate"]["pid"]
    pid = ("--pid", str(one.process.pid))
    code, out, err = manyeyes("ctl", "add", "porch=synthetic://?size=64x64&rate=10", *pid)
    assert (code, out, err) == (0, "camera 'porch' joins\nstarted: capture.porch\n", "")
    one.until_cameras("gate", "yard", "porch")

    manyeyes.write(toml("gate", ("yard", 5), "door"), "next.toml")
    file = str(manyeyes.folder / "next.toml")
    said = one.ask("plan", file=file)
    assert said == [
        "camera 'porch' leaves", "camera 'door' joins",
        "camera 'yard' is read anew, as it is configured now",
        "started: capture.door", "ended: capture.porch",
    ]  # fmt: skip
    one.until_cameras("gate", "yard", "porch")  # that was a question
    assert one.ask("apply", file=file) == said
    one.until_cameras("gate", "yard", "door")
    assert one.ask("apply", file=file) == []
    assert one.ask("remove", camera="yard") == ["camera 'yard' leaves", "ended: capture.yard"]
    one.until_cameras("gate", "door")

    now = one.status()
    assert now["stages"]["capture.gate"]["pid"] == gate
    assert all(stage["restarts"] == 0 for stage in now["stages"].values())
    code, out = one.end()
    assert code == 0
    for camera in ("gate", "yard", "porch", "door"):  # also those that left have a line
        rows = [line.split() for line in out.splitlines() if line.split()[:2] == [camera, "detect"]]
        assert [row[4:6] for row in rows] == [["0", "0"]]  # in flight, error
    lines = (manyeyes.folder / "events.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for camera in ("gate", "yard"):  # its frames are counted on when it comes back
        ids = [row["frame_id"] for row in rows if row["camera"] == camera]
        assert ids == sorted({*ids})
    manyeyes.assert_nothing_left()


REFUSED = {
    "half written": toml("gate", "yard") + "[[camera]]\nname = ",
    "a camera twice": toml("gate", "gate"),
    "an unknown model": toml("gate") + 'model = "nowhere.bundle"\n',
    "no camera": toml(),
    "a misspelt key": toml("gate").replace("source", "sorce"),
    "more cameras than there may be": toml("a", "b", "c", "d", "e"),
}
START_ONLY = {
    "[run] max_cameras": toml("gate", "yard", head=HEAD.replace("= 4", "= 5")),
    "[metrics] port": toml("gate", "yard", head=HEAD.replace("port = 0", "port = 1234")),
    "[run] policy can't change": toml("gate", "yard") .replace("[run]", '[run]\npolicy = "every"'),
}  # fmt: skip


def refusal(one, do, **what):
    with pytest.raises(ManyeyesError) as refused:
        one.ask(do, **what)
    return str(refused.value), refused.value.exit_code


def test_what_can_not_be_is_refused_whole_with_the_sentence_of_check(run, manyeyes):
    one = run()
    one.until_cameras("gate", "yard")
    before = one.status()["stages"]
    path = manyeyes.folder / "bad.toml"
    for text in REFUSED.values():
        path.write_text(text)
        with pytest.raises(ManyeyesError) as checked:
            configuration.load(path)
        for do in ("plan", "apply"):
            assert refusal(one, do, file=str(path)) == (str(checked.value), 78)
    for said, text in START_ONLY.items():
        path.write_text(text)
        sentence, code = refusal(one, "apply", file=str(path))
        assert said in sentence
        assert code == 78
    path.write_text("[model]\n")
    assert "[model] is not of a camera" in refusal(one, "add", file=str(path))[0]
    assert "did you mean 'gate'" in refusal(one, "remove", camera="gat")[0]
    assert "is no file" in refusal(one, "apply", file="/dev/zero")[0]
    twice = [{"name": "gate", "source": "synthetic://"}]
    assert "used twice" in refusal(one, "add", cameras=twice, folder="/")[0]
    for wrong in ({}, {"cameras": 5}, {"cameras": [5], "folder": "/"}, {"file": "/nowhere"}):
        assert refusal(one, "add", **wrong)[0]
    assert one.status()["stages"].keys() == before.keys()
    assert one.end()[0] == 0


def test_an_edited_file_is_applied_under_watch_and_after_sighup_and_a_broken_one_said(
    run, manyeyes
):
    one = run("--watch")
    manyeyes.write(toml("gate", "door"))
    one.until_cameras("gate", "door")
    manyeyes.write("[[camera]]\nname = ")
    one.until(lambda: "run.toml: is no TOML" in one.said())
    one.process.send_signal(signal.SIGHUP)
    one.until(lambda: one.said().count("; the run goes on as it was") == 2)
    manyeyes.write(CHECKS_WITH_A_BUG, "bug.py")
    manyeyes.write(toml("gate", "door") + '[[camera]]\nname = "b"\nrun = "bug:Bug"\n')
    one.until(lambda: "run.toml failed by an error of the program" in one.said())
    (manyeyes.folder / "run.toml").unlink()
    os.mkfifo(manyeyes.folder / "run.toml")  # nobody writes into it
    one.until(lambda: "run.toml: is no file that the run can read" in one.said())
    assert {*one.status()["cameras"]} >= {"gate", "door"}
    assert one.end()[0] == 0


def test_without_a_file_there_is_nothing_to_watch_and_sighup_ends_the_run(manyeyes):
    code, _, err = manyeyes("run", "synthetic://?frames=1", "--watch")
    assert (code, "--watch wants a TOML file" in err) == (78, True)
    process = manyeyes.start("run", "synthetic://?size=64x64")
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=BOUND_S)
    assert process.returncode in (0, 128 + signal.SIGHUP)
    manyeyes.assert_nothing_left()
