"""A start takes as long as it takes, as long as it goes on."""

import time
from dataclasses import replace

import patterns
import pytest

from pipeline.supervision import child
from pipeline.supervision.supervisor import Options, Supervisor

LIMIT_S = 2.0


def started(folder, how, until):
    """A run whose preprocess starts slowly, and gets ready once it is `until`."""
    slow = {"run": "parts:Slow", "config": {"wanted": str(folder / "go"), "how": how}}
    plan = patterns.plan(folder, cameras=1)
    processes = tuple(replace(p, **slow) if p.name == "preprocess" else p for p in plan.processes)

    def tick(supervisor):
        if until(supervisor.children["preprocess"]):
            (folder / "go").touch()
        if supervisor.totals and all(totals.delivered for totals in supervisor.totals.values()):
            supervisor.stop()

    supervisor = Supervisor(replace(plan, processes=processes), Options(to_bgr=None), tick)
    supervisor.run()
    assert all(totals.error == 0 for totals in supervisor.totals.values())
    return supervisor.children["preprocess"]


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", patterns.PATH)
    monkeypatch.setattr(child, "_START_S", LIMIT_S)


@pytest.mark.parametrize("how", ["works", "says"])
def test_who_works_or_says_so_may_take_long(tmp_path, how, caplog):
    """A large model whose engines are tried took longer than the limit, was killed, and began again."""
    late = started(tmp_path, how, lambda late: late.lived_s(time.monotonic()) > 3 * LIMIT_S)
    assert late.restarts.count == 0, caplog.text


def test_who_does_neither_is_started_again(tmp_path, caplog):
    late = started(tmp_path, "waits", lambda late: late.restarts.count > 0)
    assert late.restarts.count > 0
    assert "stage 'preprocess' hangs (not ready after " in caplog.text
    assert "and idle for " in caplog.text


def test_who_runs_in_circles_is_started_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(child, "_START_MOST_S", 2 * LIMIT_S)
    late = started(tmp_path, "works", lambda late: late.restarts.count > 0)
    assert late.restarts.count > 0
    assert " s of work)" in caplog.text
