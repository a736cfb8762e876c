"""What is wrong with one frame is the end of this frame, and of nothing else."""

from dataclasses import replace

import patterns
import pytest
from odd import ODD

from pipeline.supervision.supervisor import Options, Supervisor

FRAMES = 60


@pytest.fixture(autouse=True)
def _parts_on_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", patterns.PATH)


def run(tmp_path, name, cls, **options):
    plan = patterns.plan(tmp_path, cameras=1, frames=FRAMES, rate_hz=0, **options)
    processes = tuple(
        replace(process, run=f"odd:{cls}") if process.name == name else process
        for process in plan.processes
    )
    supervisor = Supervisor(replace(plan, processes=processes), Options(to_bgr=None))
    supervisor.run()
    return supervisor


@pytest.mark.parametrize(("name", "cls"), [("capture.c0", "OddSource"), ("preprocess", "OddStage")])
def test_each_odd_frame_is_an_error_and_all_others_arrive(tmp_path, name, cls):
    supervisor = run(tmp_path, name, cls, policy="every")
    totals = supervisor.totals["c0", "detect"]
    odd = [n for n in range(FRAMES) if n % 10 in ODD]
    assert (totals.captured, totals.dropped["error"]) == (FRAMES, len(odd))
    assert totals.delivered == FRAMES - len(odd)
    assert totals.error == 0
    rows = patterns.rows(tmp_path, "results")
    assert [row[1] for row in rows] == [n for n in range(FRAMES) if n % 10 not in ODD]
    assert all(child.incarnation == 0 for child in supervisor.children.values())


def test_frames_that_nobody_wanted_may_be_odd_as_well(tmp_path):
    supervisor = run(tmp_path, "capture.c0", "OddSource", policy="newest", alpha_ms=30)
    for totals in supervisor.totals.values():
        assert (totals.captured, totals.in_flight, totals.error) == (FRAMES, 0, 0)
    assert supervisor.children["capture.c0"].incarnation == 0


@pytest.mark.parametrize("policy", ["every", "newest"])
def test_frames_that_are_too_much_for_one_message_go_to_the_model_in_several(tmp_path, policy):
    plan = patterns.plan(tmp_path, cameras=4, frames=FRAMES, rate_hz=0, policy=policy, alpha_ms=20)
    processes = tuple(
        replace(process, run="odd:CrowdedSource") if process.role == "source" else process
        for process in plan.processes
    )
    supervisor = Supervisor(replace(plan, processes=processes), Options(to_bgr=None))
    supervisor.run()
    assert int(supervisor.ledger["garbage"].sum()) == 0
    assert all(child.incarnation == 0 for child in supervisor.children.values())
    for totals in supervisor.totals.values():
        assert (totals.captured, totals.in_flight, totals.error) == (FRAMES, 0, 0)
        assert totals.delivered == FRAMES or (policy == "newest" and totals.delivered > 0)
