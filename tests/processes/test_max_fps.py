"""What nobody wants is not decoded: `max_fps` of a camera holds before its source does any work."""

from dataclasses import replace

import patterns
import pytest

from pipeline.supervision.supervisor import Options, Supervisor


@pytest.fixture(autouse=True)
def _parts_on_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", patterns.PATH)


def test_frames_above_max_fps_are_skipped_undecoded_and_counted(tmp_path):
    plan = patterns.plan(tmp_path, cameras=2, frames=200, rate_hz=100)
    limits = {"capture.c0": {"max_fps": 20.0}, "capture.c1": {}}
    processes = tuple(
        replace(spec, run="parts:Counted", counters=("decoded",), options=limits[spec.name])
        if spec.role == "source"
        else spec
        for spec in plan.processes
    )
    supervisor = Supervisor(replace(plan, processes=processes), Options(to_bgr=None))
    supervisor.run()
    decoded = {c: supervisor.ledger.counted(f"capture.{c}", "decoded", c) for c in ("c0", "c1")}
    for camera, n in decoded.items():
        totals = supervisor.totals[camera, "detect"]
        assert (totals.error, totals.captured) == (0, 200)
        skipped = totals.dropped["unwanted"] + totals.dropped["no_slot"]
        assert n - (200 - skipped) in (0, 1)  # one more: the read that met the end of the stream
    assert 0 < decoded["c0"] <= 100  # 40 in two seconds; more, if the machine was slow
    assert supervisor.totals["c0", "view"].dropped["unwanted"] >= 100
    assert supervisor.totals["c1", "detect"].dropped["unwanted"] == 0
