"""The accounts of whole runs: what a sink lost is not delivered, and an account that is wrong shows it."""

import dataclasses
import signal

import av
import patterns
import pytest

from pipeline.errors import ManyeyesError
from pipeline.plan import config
from pipeline.plan.graph import Plan
from pipeline.plan.standard import make
from pipeline.supervision import child
from pipeline.supervision.supervisor import Options, Supervisor


@pytest.fixture(autouse=True)
def _parts_on_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", patterns.PATH)


def run(folder, policy, frames=50, **stages):
    """A run of pattern cameras with other classes for some of its processes."""
    plan = patterns.plan(
        folder, policy=policy, frames=frames, rate_hz=0 if policy == "every" else 50
    )
    processes = tuple(
        dataclasses.replace(spec, run=stages.get(spec.name.replace(".", "_"), spec.run))
        for spec in plan.processes
    )
    supervisor = Supervisor(
        Plan(cameras=plan.cameras, policy=policy, processes=processes), Options(to_bgr=None)
    )
    supervisor.run()
    return supervisor


@pytest.mark.parametrize("policy", ["every", "newest"])
def test_the_accounts_say_what_is_in_the_files(tmp_path, policy):
    supervisor = run(tmp_path, policy)
    for camera in ("c0", "c1"):
        written = [row for row in patterns.rows(tmp_path, "results") if row[0] == camera]
        path, sink = (
            supervisor.totals[camera, "detect"],
            supervisor.sink_totals[camera, "sink.results"],
        )
        assert path.delivered == sink.captured == sink.delivered == len(written) > 0
        drawn = [row for row in patterns.rows(tmp_path, "frames") if row[0] == camera]
        assert supervisor.sink_totals[camera, "sink.frames"].delivered == len(drawn) > 0
        assert path.error == sink.error == sink.lost == 0


def test_a_video_has_taken_what_is_in_its_files_when_it_is_killed_too(tmp_path):
    source = "synthetic://?seed=1&size=160x90&rate=25&frames=200&realtime=false"
    settings = config.from_sources([source], video=tmp_path / "v", policy="every")
    model = settings.model.model_copy(update={"engine": "stub"})

    def kill_once(supervisor):
        sink = supervisor.children["sink.video"]
        if not sink.restarts.count and supervisor.sink_totals["cam0", "sink.video"].delivered > 60:
            sink.signal(signal.SIGKILL)

    supervisor = Supervisor(
        make(settings.model_copy(update={"model": model})), Options(), kill_once
    )
    supervisor.run()
    totals = supervisor.sink_totals["cam0", "sink.video"]
    assert supervisor.children["sink.video"].restarts.count == 1
    assert totals.delivered == sum(map(count_pictures, (tmp_path / "v").iterdir()))
    assert totals.dropped["stage_died"] == totals.captured - totals.delivered < 30
    assert totals.captured == 200
    assert totals.error == 0


def count_pictures(path):
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize("policy", ["every", "newest"])
def test_what_a_sink_can_not_write_is_not_delivered(tmp_path, policy):
    supervisor = run(tmp_path, policy, sink_results="parts:Full")
    for camera in ("c0", "c1"):
        written = [row for row in patterns.rows(tmp_path, "results") if row[0] == camera]
        path, sink = (
            supervisor.totals[camera, "detect"],
            supervisor.sink_totals[camera, "sink.results"],
        )
        assert path.delivered == sink.delivered == len(written)
        assert path.dropped["sink"] == sink.dropped["error"] == sink.lost > 0
        assert sink.captured == sink.delivered + sink.lost
        assert path.captured == path.delivered + sum(path.dropped.values())
        assert path.error == sink.error == 0


def test_a_source_that_has_ended_waits_for_a_slow_sink_and_does_not_count_as_hung(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(child, "_READ_S", 1.0)  # the sink needs 10 s for the frames of both cameras
    supervisor = run(tmp_path, "every", frames=80, sink_results="parts:Leisurely")
    assert {one.restarts.count for one in supervisor.children.values()} == {0}
    assert all(totals.delivered == 80 for totals in supervisor.totals.values())


def test_a_run_whose_sources_have_ended_ends_without_a_sink_that_keeps_dying(tmp_path):
    supervisor = run(tmp_path, "newest", sink_results="parts:Broken")
    for camera in ("c0", "c1"):
        path, sink = (
            supervisor.totals[camera, "detect"],
            supervisor.sink_totals[camera, "sink.results"],
        )
        assert (path.delivered, sink.delivered, sink.in_flight) == (0, 0, 0)
        assert path.dropped["sink"] == sink.captured == sink.lost > 0
        assert path.error == sink.error == 0


def test_where_nothing_may_be_lost_a_sink_that_keeps_dying_ends_the_run(tmp_path):
    with pytest.raises(ManyeyesError, match=r"sink\.results.*died five times"):
        run(tmp_path, "every", sink_results="parts:Broken")


# Frames 9, 19, … are spoiled; the last is never superseded. In `every` a frame without a fate would hold
# up those behind it for good, so there it is the last.
@pytest.mark.parametrize(("policy", "frames"), [("every", 10), ("newest", 50)])
def test_a_frame_that_a_process_forgets_is_an_error(tmp_path, policy, frames):
    supervisor = run(tmp_path, policy, frames=frames, postprocess="parts:Forgetful")
    for camera in ("c0", "c1"):
        path = supervisor.totals[camera, "detect"]
        assert path.error > 0
        assert path.captured == path.delivered + sum(path.dropped.values()) + path.error == frames


@pytest.mark.parametrize(("policy", "frames"), [("every", 10), ("newest", 50)])
def test_a_frame_that_meets_two_fates_is_an_error(tmp_path, policy, frames):
    supervisor = run(tmp_path, policy, frames=frames, postprocess="parts:Contradicting")
    for camera in ("c0", "c1"):
        served = [row[1] for row in patterns.rows(tmp_path, "results") if row[0] == camera]
        spoiled = sum(frame_id % 10 == 9 for frame_id in served)
        assert supervisor.totals[camera, "detect"].error == spoiled > 0
