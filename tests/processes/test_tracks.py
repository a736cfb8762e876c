"""Runs that follow objects, whose tracker is killed."""

import json
import signal
from dataclasses import replace

import patterns
import pytest
from seeing import all_seeing

from pipeline.plan import config
from pipeline.plan.standard import make
from pipeline.supervision.supervisor import Options, Supervisor


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def ids_of(rows):
    return {found["track_id"] for row in rows for found in row["detections"]} - {None}


@pytest.fixture(autouse=True)
def _parts_on_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", patterns.PATH)


def test_two_cameras_share_no_id_though_the_tracker_is_killed(tmp_path):
    """Two cameras, `every`; the tracker dies when it has given some ids."""
    events = tmp_path / "events.jsonl"
    sources = [
        f"synthetic://?seed={n}&size=320x180&rate=10&frames=150&realtime=false" for n in (1, 2)
    ]
    settings = config.from_sources(sources, events=events, policy="every", track=True)
    before = []

    def kill_once(supervisor):
        if not before and len(ids_of(lines(events))) >= 4:
            before.extend(lines(events))
            supervisor.children["track"].signal(signal.SIGKILL)

    model = settings.model.model_copy(update={"engine": "stub"})
    plan = all_seeing(make(settings.model_copy(update={"model": model})))
    supervisor = Supervisor(plan, Options(), kill_once)
    supervisor.run()
    assert supervisor.children["track"].restarts.count == 1
    rows = lines(events)
    by_camera = [ids_of([r for r in rows if r["camera"] == camera]) for camera in ("cam0", "cam1")]
    assert not by_camera[0] & by_camera[1]
    for row in rows:
        assert all(found["track_id"] != -1 for found in row["detections"])
    given = sum(supervisor.ledger.counted("track", "tracks", c) for c in ("cam0", "cam1"))
    assert given == len(by_camera[0] | by_camera[1])
    assert all(totals.error == 0 for totals in supervisor.totals.values())


def test_a_result_that_a_newer_one_overtook_is_accounted_for(tmp_path):
    """Two workers have frames of one camera, and one is slow: the tracker is past what that one gives.

    As it comes in a run where two results, sent one after the other, lie in two sockets of postprocess.
    """
    events = tmp_path / "events.jsonl"
    source = "synthetic://?seed=1&size=320x180&rate=20&frames=60"
    settings = config.from_sources([source], events=events, policy="newest", track=True)
    model = settings.model.model_copy(update={"engine": "stub", "workers": 2})
    plan = make(settings.model_copy(update={"model": model}))
    parts = {process.name: process for process in plan.processes}
    for worker, alpha_ms in (("inference.0", 100.0), ("inference.1", 500.0)):  # a frame comes in 50
        config_of = {**parts[worker].config, "stub_alpha_ms": alpha_ms}
        parts[worker] = replace(parts[worker], config=config_of)
    options = {**parts["batcher"].options, "policy": "every"}
    parts["batcher"] = replace(parts["batcher"], options=options)
    supervisor = Supervisor(replace(plan, processes=tuple(parts.values())), Options())
    supervisor.run()
    detect = supervisor.totals["cam0", "detect"]
    [sink] = supervisor.sink_totals.values()
    assert detect.error == sink.error == 0
    assert sink.dropped["superseded"] > 0
    ids = [row["frame_id"] for row in lines(events)]
    assert sink.delivered == len(ids)
    assert ids == sorted(set(ids))
