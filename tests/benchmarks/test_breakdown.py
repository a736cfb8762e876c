"""`bench stages` says what each stage of a real run takes, and `bench compare` that one became slower."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from patience import BOUND_S

from benchmarks.tool.stage_times import stage_of

MANYEYES = Path(sys.executable).with_name("manyeyes")
# It sleeps, and so takes what it says at least; how much longer is a matter of what else wants the cores.
STAGE = """
import time
from dataclasses import dataclass

from pipeline.messages import Result
from pipeline.stage import Stage


@dataclass(frozen=True, kw_only=True)
class SlowConfig:
    ms: float


class Slow(Stage):
    Config = SlowConfig

    def process(self, result: Result) -> Result:
        time.sleep(self.config.ms / 1e3)
        return result
"""
CONFIG = """
[metrics]
enabled = false
[model]
engine = "stub"
[[camera]]
name = "gate"
source = "synthetic://?size=160x96&rate=8"
[[stage]]
name = "alarm"
run = "mypkg.slow:Slow"
after = "postprocess"
config = {{ ms = {ms} }}
[[sink]]
type = "events"
path = "events.jsonl"
"""


def manyeyes(folder, *arguments):
    return subprocess.run(
        [MANYEYES, "bench", *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, timeout=BOUND_S,
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of the same pipeline, the second with a stage that takes ten times as long."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "mypkg").mkdir()
    (folder / "mypkg" / "slow.py").write_text(STAGE)
    for name, ms, starts in (("before", 20, 1), ("after", 200, 2)):
        (folder / f"{name}.toml").write_text(CONFIG.format(ms=ms))
        done = manyeyes(
            folder, "stages", f"{name}.toml", "--seconds", 4, "--starts", starts, "-o", name
        )
        assert done.returncode == 0, done.stderr
        assert "alarm" in done.stdout
    return folder


def test_a_stage_that_became_slower_is_noticed(runs):
    files = ("before/stages.json", "after/stages.json")
    done = manyeyes(runs, "compare", *files, "--fail-above", 0.05, "--json")
    assert done.returncode == 1, done.stdout
    changes = {change["id"]: change for change in json.loads(done.stdout)["changes"]}
    assert changes["service alarm"]["word"] == "slower"
    assert manyeyes(runs, "compare", files[0], files[0]).returncode == 0


def test_the_document_adds_up_and_nothing_of_the_users_is_written(runs):
    document = json.loads((runs / "after" / "stages.json").read_text())
    rows = {row["stage"]: row for row in document["stages"]}
    assert list(rows) == ["capture", "preprocess", "batcher", "inference", "postprocess", "alarm",
                          "sink.events", "supervisor"]  # fmt: skip
    assert rows["alarm"]["service_ms"] >= 200  # a sleep is never shorter
    assert rows["capture"]["slot_bytes"] == 160 * 96 * 3 // 2
    assert [name for name, row in rows.items() if row["on_the_way"]] == [
        "preprocess", "inference", "postprocess",
    ]  # fmt: skip
    for row in document["figures"]:
        assert row["low"] <= row["value"] <= row["high"]
        assert row["n"] == sum(map(len, row["samples"])) >= 5
        assert len(row["samples"]) == 2
    assert document["machine"]["cores"] >= 1
    assert not (runs / "events.jsonl").exists()
    picture = (runs / "after" / "stages.svg").read_text()
    assert "<svg" in picture
    assert "inference" in picture


def test_what_can_not_run_is_one_sentence(tmp_path):
    (tmp_path / "bad.toml").write_text('[[camera]]\nname = "a"\nsource = "gone.mp4"\nspeed = 3\n')
    done = manyeyes(tmp_path, "stages", "bad.toml")
    assert (done.returncode, done.stderr.count("\n")) == (78, 1), done.stderr
    assert "speed" in done.stderr


@pytest.mark.parametrize(
    ("process", "stage"),
    [
        ("capture.a.b", "capture"),
        ("inference.1", "inference"),
        ("sink.events", "sink.events"),
        ("blur", "blur"),
    ],
)
def test_processes_that_do_the_same_are_one_stage(process, stage):
    assert stage_of(process) == stage
