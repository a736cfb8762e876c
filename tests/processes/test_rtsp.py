"""Whole runs between real RTSP cameras and an event file: cameras that go, come back, and go mute."""

import json
import time

import pytest
import tiny_models
from cameras import Camera
from patience import BOUND_S
from rtsp_server import GstCamera, missing

from pipeline.plan.config import CameraConfig, Config, ModelConfig, SinkConfig
from pipeline.plan.standard import make
from pipeline.supervision.supervisor import Options, Supervisor
from stages.detector.importing import import_model


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    script = tiny_models.save(tiny_models.Candidates(), folder / "tiny.pt")
    import_model(
        script, str(folder / "tiny.bundle"), layout="candidates", classes=["thing", "other"],
        size=64, dtype="uint8",
    )  # fmt: skip
    return folder / "tiny.bundle"


def plan(bundle, folder, **urls):
    return make(
        Config(
            model=ModelConfig(path=bundle, engine="stub"),
            camera=tuple(CameraConfig(name=name, source=url) for name, url in urls.items()),
            sink=(SinkConfig(type="events", options={"path": str(folder / "events.jsonl")}),),
        )
    )


def events(folder, camera):
    """The frame ids that came to the event file."""
    path = folder / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [e["frame_id"] for e in map(json.loads, lines) if e["camera"] == camera]


class Story:
    """A supervisor's tick: waits for one condition after the other, then ends the run.

    Each step is a generator's `yield` of a condition; there is nothing to wait on but the run itself.
    """

    def __init__(self, steps):
        self.steps, self.condition, self.deadline = steps, None, 0.0

    def __call__(self, supervisor):
        if not supervisor.live or supervisor.stopping:
            return
        if self.condition is not None and not self.condition():
            assert time.monotonic() < self.deadline, f"not in time: {self.condition.__name__}"
            return
        if self.condition is None:
            self.steps = self.steps(supervisor)
        self.condition = next(self.steps, None)
        self.deadline = time.monotonic() + BOUND_S
        if self.condition is None:
            supervisor.stop()


def run(plan, steps):
    supervisor = Supervisor(plan, Options(), Story(steps))
    supervisor.run()
    assert all(totals.error == 0 for totals in supervisor.totals.values())
    assert int(supervisor.ledger["torn"].sum()) == 0
    return supervisor


def test_a_server_that_was_away_is_seen_again(tmp_path, bundle):
    if why := missing():
        pytest.skip(why)

    with GstCamera() as camera:

        def steps(supervisor):
            up = supervisor.ledger["camera_up"]

            def frames_arrive():
                return len(events(tmp_path, "gate")) > 10

            def the_camera_counts_as_down():
                return not up[0]

            def newer_frames_arrive():
                return events(tmp_path, "gate")[-1] > captured + 10

            yield frames_arrive
            camera.stop()
            yield the_camera_counts_as_down
            captured = int(supervisor.ledger["captured"][0])
            camera.start()
            yield newer_frames_arrive
            assert up[0]

        run(plan(bundle, tmp_path, gate=camera.url), steps)
    ids = events(tmp_path, "gate")
    assert ids == sorted(set(ids)), "a frame twice, or out of order"


def test_a_mute_camera_is_noticed_and_the_other_one_loses_nothing(tmp_path, bundle):
    seen = {}

    with Camera(fps=15) as good, Camera(fault="stall", after=20) as mute:

        def steps(supervisor):
            up = supervisor.ledger["camera_up"]

            def both_deliver():
                return events(tmp_path, "good") and events(tmp_path, "mute")

            def the_mute_one_counts_as_down():
                return not up[1]

            def the_good_one_goes_on():
                return len(events(tmp_path, "good")) > before + 20

            yield both_deliver
            yield the_mute_one_counts_as_down
            before = len(events(tmp_path, "good"))
            yield the_good_one_goes_on
            assert up[0]
            seen.update(supervisor.totals["good", "detect"].dropped)

        run(plan(bundle, tmp_path, good=good.url, mute=mute.url), steps)
    assert {reason for reason, n in seen.items() if n} <= {"superseded"}
