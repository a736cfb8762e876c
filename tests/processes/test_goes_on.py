"""kill -9 of a camera's process while it reads a video file: each picture of the file comes once."""

import signal
from dataclasses import replace

import numpy as np
import patterns
import pytest
from clips import write_clip
from parts import SIDE

from pipeline.supervision.supervisor import Options, Supervisor

FRAMES, KILLS, VALUES = 250, 3, 200


@pytest.fixture(autouse=True)
def _parts_on_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", patterns.PATH)


def grey(n):
    return 20 + n % VALUES


def h264(path):
    """A picture in ten stands alone, and others are stored before those that come before them."""
    images = [np.full((SIDE * 3 // 2, SIDE), grey(n), np.uint8) for n in range(FRAMES)]
    for image in images:
        image[SIDE:] = 128
    return write_clip(
        path, images, source_format="yuv420p", full_range=True,
        options={"preset": "fast", "qp": "0", "g": "10", "bf": "2"},
    )  # fmt: skip


def ffv1(path):
    images = [np.full((SIDE, SIDE, 3), grey(n), np.uint8) for n in range(FRAMES)]
    return write_clip(path, images, codec="ffv1", pix_fmt="bgr0")


class Killer:
    """Kills the camera's process whenever some more results are there."""

    def __init__(self, folder):
        self.folder, self.kills, self.seen = folder, 0, 0

    def __call__(self, supervisor):
        there = len(patterns.rows(self.folder, "results"))
        child = supervisor.children["capture.c0"]
        if self.kills < KILLS and child.state == "ready" and there >= self.seen + 20:
            self.kills, self.seen = self.kills + 1, there
            child.signal(signal.SIGKILL)


@pytest.mark.parametrize(
    ("run", "key", "make"),
    [
        ("stages.capture.av:AvSource", "url", h264),
        ("stages.capture.opencv:OpenCvSource", "device", ffv1),
    ],
)
def test_each_picture_of_a_film_comes_once_however_often_its_reader_is_killed(
    tmp_path, run, key, make
):
    config = {key: str(make(tmp_path / "film.mkv")), "max_size": (SIDE, SIDE)}
    # slower than the kills, so that these come in the middle
    plan = patterns.plan(tmp_path, policy="every", cameras=1, alpha_ms=40)
    processes = tuple(
        replace(p, run=run, config=config, counters=("scaled", "copied"))
        if p.role == "source"
        else p
        for p in plan.processes
    )
    killer = Killer(tmp_path)
    supervisor = Supervisor(replace(plan, processes=processes), Options(), killer)
    supervisor.run()
    assert killer.kills == KILLS
    for path, name in (("detect", "results"), ("view", "frames")):
        totals, rows = supervisor.totals["c0", path], patterns.rows(tmp_path, name)
        assert totals.error == totals.in_flight == 0
        assert totals.captured == FRAMES == totals.delivered + totals.dropped["stage_died"]
        assert len(rows) == totals.delivered > FRAMES // 2
        ids = [frame_id for _, frame_id, _, _ in rows]
        assert ids == sorted(set(ids))
        assert [value for _, _, value, _ in rows] == [grey(n) for n in ids]
