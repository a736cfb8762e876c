"""A camera whose process aborts whenever it is started; two others beside it."""

import time
from dataclasses import replace

import patterns
import pytest

from pipeline.supervision.supervisor import Options, Supervisor

FRAMES = 150  # of each good camera
DEATHS = 3  # of the bad one


@pytest.mark.parametrize("kind", ["AbortsAtOpen", "AbortsLater"])
def test_the_other_cameras_go_on_and_lose_only_what_a_newer_frame_replaced(
    tmp_path, monkeypatch, kind
):
    monkeypatch.setenv("PYTHONPATH", patterns.PATH)
    plan = patterns.plan(tmp_path, cameras=3, rate_hz=50)
    processes = tuple(
        replace(process, run=f"hostile:{kind}") if process.name == "capture.c1" else process
        for process in plan.processes
    )
    bound = time.monotonic() + 60
    seen = {}

    def watch(supervisor):
        if not supervisor.live or supervisor.stopping:
            return
        assert time.monotonic() < bound, f"after a minute: {supervisor.totals}"
        seen.update(supervisor.totals)
        good = [totals for (camera, _), totals in seen.items() if camera != "c1"]
        deaths = supervisor.children["capture.c1"].restarts.count
        if deaths >= DEATHS and min(totals.delivered for totals in good) >= FRAMES:
            supervisor.stop()

    supervisor = Supervisor(replace(plan, processes=processes), Options(to_bgr=None), watch)
    supervisor.run()
    for camera in ("c0", "c2"):
        for path in ("detect", "view"):
            dropped = seen[camera, path].dropped
            assert {reason for reason, n in dropped.items() if n} <= {"superseded"}
        rows = [row for row in patterns.rows(tmp_path, "results") if row[0] == camera]
        assert len(rows) >= FRAMES
        assert all(value == frame_id % 251 for _, frame_id, value, _ in rows)
    patterns.assert_accounts_are_in_files(tmp_path, supervisor)
    others = {name: c.restarts.count for name, c in supervisor.children.items()}
    del others["capture.c1"]
    assert not any(others.values()), "only the hostile camera's process died"
