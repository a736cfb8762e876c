"""What /healthz, /readyz and the counters say while stages die and cameras are away."""

import contextlib
import json
import signal
import time
from dataclasses import replace

import patterns
from exposed import get, samples
from patience import BOUND_S

from pipeline.face.metrics import MetricsServer
from pipeline.supervision.supervisor import Options, Supervisor


class Script:
    """Runs a generator, one step a tick: it yields while it waits for something."""

    def __init__(self, steps):
        self.steps = steps
        self.scenario = None
        self.over = False
        self.end = time.monotonic() + BOUND_S

    def __call__(self, supervisor):
        if self.scenario is None:
            self.server = MetricsServer(supervisor, "127.0.0.1", 0)
            self.scenario = self.steps(supervisor, self.server.port)
        assert time.monotonic() < self.end, get(self.server.port, "/readyz")
        try:
            next(self.scenario)
        except StopIteration:
            self.over = True
            supervisor.stop()


def play(plan, steps, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", patterns.PATH)
    script = Script(steps)
    try:
        Supervisor(plan, Options(to_bgr=None), script).run()
    finally:
        script.server.close()
    assert script.over


def down(port):
    status, body = get(port, "/readyz")
    names = json.loads(body)["down"]
    assert (status == 200) == (not names)
    return names


def counters(port):
    """Every series that must never fall."""
    return {
        (name, labels): value
        for name, series in samples(get(port, "/metrics")[1]).items()
        if name.endswith(("_total", "_count", "_bucket", "_sum"))
        for labels, value in series.items()
    }


def test_ready_when_all_is_up_and_counters_rise_over_restarts(tmp_path, monkeypatch):
    def steps(supervisor, port):
        assert get(port, "/healthz")[0] == 200
        assert "stage preprocess" in down(port)  # nothing has started yet
        assert "camera c0" in down(port)
        before = {}
        for victim, wanted in (
            ("preprocess", ["stage preprocess"]),
            ("capture.c0", ["camera c0", "stage capture.c0"]),
            ("inference.0", ["stage inference.0"]),
        ):
            while down(port):
                yield
            restarts = supervisor.children[victim].restarts.count
            supervisor.children[victim].signal(signal.SIGKILL)
            while not (names := down(port)):
                yield
            assert names == wanted
            assert get(port, "/healthz")[0] == 200
            while down(port):
                yield
            now = counters(port)
            assert all(now[key] >= value for key, value in before.items())
            key = ("manyeyes_restarts_total", (("stage", victim),))
            assert now[key] == restarts + 1
            before = now
        assert get(port, "/nothing")[0] == 404

    play(patterns.plan(tmp_path, cameras=2), steps, monkeypatch)


def test_a_supervisor_that_is_stuck_is_not_alive(tmp_path, monkeypatch):
    def steps(supervisor, port):
        with contextlib.closing(MetricsServer(supervisor, "127.0.0.1", 0, stuck_s=1.0)) as strict:
            while get(strict.port, "/healthz")[0] == 200:
                pass  # this is a tick, so the loop does not turn
            assert get(port, "/healthz")[0] == 200
            yield
            assert get(strict.port, "/healthz")[0] == 200

    play(patterns.plan(tmp_path, cameras=1), steps, monkeypatch)


def test_an_absent_camera_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    plan = patterns.plan(tmp_path, cameras=2)
    absent = replace(
        plan.by_name["capture.c1"],
        run="stages.capture.av:AvSource",
        config={"url": "rtsp://127.0.0.1:9/none"},  # nobody listens on the discard port
    )
    processes = tuple(absent if p.name == absent.name else p for p in plan.processes)

    def steps(supervisor, port):
        while down(port) != ["camera c1"]:
            yield
        while not supervisor.totals["c0", "view"].delivered:
            yield
        found = samples(get(port, "/metrics")[1])
        assert found["manyeyes_camera_up"] == {(("camera", "c0"),): 1, (("camera", "c1"),): 0}

    play(replace(plan, processes=processes), steps, monkeypatch)


def test_a_camera_is_ready_when_its_results_arrive(tmp_path, monkeypatch):
    plan = patterns.plan(tmp_path, cameras=2)
    blind = replace(plan.by_name["preprocess"], run="parts:Blind")
    processes = tuple(blind if p.name == "preprocess" else p for p in plan.processes)

    def steps(supervisor, port):
        while supervisor.totals.get(("c0", "detect")) is None:
            yield
        while not supervisor.totals["c0", "detect"].delivered or len(down(port)) > 1:
            yield
        assert down(port) == ["camera c1"]  # its frames arrive, every process is up
        assert supervisor.totals["c1", "detect"].dropped["error"]
        up = samples(get(port, "/metrics")[1])["manyeyes_camera_up"]
        assert up == {(("camera", "c0"),): 1, (("camera", "c1"),): 1}

    play(replace(plan, processes=processes), steps, monkeypatch)
