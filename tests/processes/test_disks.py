"""Whole runs whose disk is full or stalls."""

import dataclasses
import fcntl
import os
import re
import time

import patterns
import pytest

from pipeline.plan.graph import Plan
from pipeline.supervision.chatter import listening
from pipeline.supervision.supervisor import Options, Supervisor

PIPE_BYTES = 4096  # about 25 events
LOSING = """
[model]
engine = "stub"
[metrics]
enabled = false
[run]
policy = "every"
[[camera]]
name = "gate"
source = "synthetic://?seed=1&size=64x64&frames=5&realtime=false"
[[sink]]
type = "events"
path = "/dev/full"
"""
STALL_S = 3.0  # what a disk takes to wake up


@pytest.fixture(autouse=True)
def _parts_on_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", patterns.PATH)


def supervised(folder, events, on_tick=None, said=None, **options):
    """A run of pattern cameras whose results become events in the file `events`.

    said: takes the lines that a person would see.
    """
    plan = patterns.plan(folder, **options)
    processes = tuple(
        dataclasses.replace(spec, run="stages.sinks.events:Events", config={"path": str(events)})
        if spec.name == "sink.results"
        else spec
        for spec in plan.processes
    )
    plan = Plan(cameras=plan.cameras, policy=plan.policy, processes=processes)
    with listening((said if said is not None else []).append) as chatter:
        runs = Options(to_bgr=None, stderr=chatter.descriptor)
        supervisor = Supervisor(plan, runs, on_tick)
        supervisor.run()
    return supervisor


@pytest.mark.parametrize("policy", ["every", "newest"])
def test_a_full_disk_costs_events_and_ends_nothing(tmp_path, policy):
    said = []
    supervisor = supervised(tmp_path, "/dev/full", said=said, policy=policy, frames=30, rate_hz=50)
    for camera in ("c0", "c1"):
        sink = supervisor.sink_totals[camera, "sink.results"]
        assert sink.delivered == sink.error == 0
        assert sink.dropped["error"] == sink.captured > 0
    assert supervisor.children["sink.results"].restarts.count == 0
    assert 2 <= sum("make room" in line for line in said) < 20  # of 60: a few a camera


def test_a_run_whose_results_were_lost_says_how_many_and_ends_with_1(manyeyes):
    manyeyes.write(LOSING)
    code, out, err = manyeyes("run", "run.toml")
    assert code == 1
    assert err.endswith("manyeyes: sink 'events': 5 of 5 results were lost; see above why\n")
    assert "make room" in err
    assert re.search(r"^ gate +detect +5 +0 +0 +0 ", out, re.M), out
    manyeyes.assert_nothing_left()


class Stall:
    """The reading end of a pipe: for a while, and until something was lost, nobody reads it."""

    def __init__(self, path):
        os.mkfifo(path)
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.read = b""
        self.until_s = None

    def __call__(self, supervisor):
        totals = [supervisor.sink_totals.get((c, "sink.results")) for c in ("c0", "c1")]
        if self.until_s is None and all(t and t.delivered >= 8 for t in totals):
            self.until_s = time.monotonic() + STALL_S
        over = self.until_s is not None and time.monotonic() > self.until_s
        if over and any(t.dropped["overflow"] for t in totals):
            self.drain()
            supervisor.stop()

    def drain(self):
        try:
            while data := os.read(self.fd, 1 << 16):
                self.read += data
        except BlockingIOError:
            pass


def test_a_disk_that_stalls_is_no_hang_and_what_was_lost_is_counted(tmp_path):
    stall = Stall(tmp_path / "events.jsonl")
    supervisor = supervised(tmp_path, tmp_path / "events.jsonl", stall, rate_hz=50)
    stall.drain()
    os.close(stall.fd)
    assert supervisor.children["sink.results"].restarts.count == 0
    totals = [supervisor.sink_totals[camera, "sink.results"] for camera in ("c0", "c1")]
    assert sum(sink.delivered for sink in totals) == stall.read.count(b"\n")
    assert sum(sink.dropped["overflow"] for sink in totals) > 0
    assert all(sink.error == 0 for sink in totals)
