"""Many cameras, many classes: what a run is told grows with it, and nothing of it is lost."""

import os
import resource
import socket
import time
from dataclasses import replace

import patterns
import pytest

from pipeline.errors import ManyeyesError
from pipeline.hop import control
from pipeline.hop.control import Control
from pipeline.supervision import child, crew
from pipeline.supervision.supervisor import Options, Supervisor


@pytest.fixture(autouse=True)
def _parts_on_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", patterns.PATH)


def until_all_delivered(supervisor):
    if all(totals.delivered for totals in supervisor.totals.values()) and supervisor.totals:
        supervisor.stop()


def with_late_preprocess(folder, cameras):
    """It is ready once there is a file `go`."""
    plan = patterns.plan(folder, cameras=cameras)
    late = {"run": "parts:Late", "config": {"wanted": str(folder / "go")}}
    processes = tuple(replace(p, **late) if p.name == "preprocess" else p for p in plan.processes)
    return replace(plan, processes=processes)


def with_many_classes(plan, classes, text):
    """Counters as postprocess has them, and what a model says of itself."""
    names = tuple(f"detections:{'class' * 10}{n}" for n in range(classes))
    many = {"counters": (*plan.by_name["postprocess"].counters, *names)}
    options = {"postprocess": many, "batcher": {"options": {**plan.by_name["batcher"].options}}}
    options["batcher"]["options"]["facts"] = text
    processes = tuple(replace(spec, **options.get(spec.name, {})) for spec in plan.processes)
    return replace(plan, processes=processes)


@pytest.fixture
def many_files():
    """This process has so many open that each new one gets a number that select() refuses."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 2 * 1024:
        pytest.skip(f"at most {before[1]} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * 1024, before[1]))
    held = [os.open(os.devnull, os.O_RDONLY)]
    while held[-1] < 1024:
        held.append(os.dup(held[0]))
    yield
    for fd in held:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_model_of_600_classes_runs(tmp_path, many_files):
    plan = with_many_classes(patterns.plan(tmp_path, cameras=5), 600, "x" * 900_000)
    supervisor = Supervisor(plan, Options(to_bgr=None), until_all_delivered)
    supervisor.run()
    for totals in supervisor.totals.values():
        assert totals.delivered
        assert totals.error == 0
        assert totals.dropped["error"] == 0


def test_few_start_at_once_and_who_waits_for_the_others_is_not_hung(tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "cores", lambda: 1.0)
    monkeypatch.setattr(child, "_READ_S", 1.0)
    ready_at, most = [], []

    def tick(supervisor):
        children = supervisor.children.values()
        most.append(sum(child.state == "starting" for child in children))
        if [c.name for c in children if c.state != "ready"] == ["preprocess"]:
            ready_at.append(time.monotonic())
        if ready_at and time.monotonic() - ready_at[0] > 3.0:  # how long others take is the subject
            (tmp_path / "go").touch()
        until_all_delivered(supervisor)

    supervisor = Supervisor(with_late_preprocess(tmp_path, cameras=4), Options(to_bgr=None), tick)
    supervisor.run()
    assert max(most) == 2
    assert [c.name for c in supervisor.children.values() if c.restarts.count] == []


def test_a_child_that_reads_slowly_misses_nothing(tmp_path, monkeypatch):
    def narrow():
        ours, theirs = pair()
        ours._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # room for two messages
        return ours, theirs

    def tick(supervisor):
        waiting = [child.name for child in supervisor.children.values() if child.state != "ready"]
        if waiting == ["preprocess"]:
            (tmp_path / "go").touch()
        until_all_delivered(supervisor)

    pair = Control.pair
    monkeypatch.setattr(Control, "pair", narrow)
    supervisor = Supervisor(with_late_preprocess(tmp_path, cameras=6), Options(to_bgr=None), tick)
    supervisor.run()
    for totals in supervisor.totals.values():
        assert totals.delivered
        assert totals.dropped["error"] == 0  # a frame of a pool that its reader does not know


def test_who_can_not_be_told_is_named_with_the_message_and_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "_MAX_WAITING", 0)
    supervisor = Supervisor(patterns.plan(tmp_path, cameras=1), Options(to_bgr=None))
    with pytest.raises(ManyeyesError, match=r"process '\S+' can't be told 'start' \(\d+ bytes\)"):
        supervisor.run()
