"""Another model takes over while a run goes on: `manyeyes ctl swap` and `ctl rollback`, on a real run."""

import contextlib
import itertools
import json
import random
import signal
import time

import bundles
import pytest
from patience import BOUND_S

from pipeline.errors import ConfigError, ManyeyesError
from pipeline.plan import config as configuration
from pipeline.plan.model_path import demo_model
from pipeline.plan.planner import Planner
from pipeline.supervision import apply
from pipeline.supervision.asking import ask
from pipeline.supervision.supervisor import Options, Supervisor
from stages.detector.bundle import model_id

TOML = """
[run]
policy = "every"
[model]
name = "demo"
engine = "onnx"
workers = 1
[metrics]
port = 0
[[sink]]
type = "events"
path = "events.jsonl"
[[camera]]
name = "gate"
source = "synthetic://?seed=1&size=320x240&rate=20"
[[camera]]
name = "yard"
source = "synthetic://?seed=2&size=320x240&rate=20"
"""


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:  # by hand more, with --seeds
        seeds = metafunc.config.getoption("seeds")
        metafunc.parametrize("seed", range(1 + -(-seeds // 5)))


class Run:
    """`manyeyes run run.toml`, and what it has written."""

    def __init__(self, manyeyes):
        manyeyes.write(TOML)
        self.manyeyes = manyeyes
        self.process = manyeyes.start("run", "run.toml")
        self.until((manyeyes.folder / "events.jsonl").exists)

    def ctl(self, *arguments):
        return self.manyeyes("ctl", *arguments, "--pid", str(self.process.pid))

    def stages(self):
        return ask(self.process.pid, {"do": "status"})["stages"]

    def events(self):
        text = (self.manyeyes.folder / "events.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def found(self):
        """(label, class_id) of all detections."""
        return {(d["label"], d["class_id"]) for row in self.events() for d in row["detections"]}

    def until_all_are_of(self, *models):
        """Until the last of both cameras are of this model; a camera each, or one for both."""
        wanted = dict(zip(("gate", "yard"), models * 2, strict=False))
        self.until(lambda: {row["camera"]: row["model"] for row in self.events()} == wanted)

    def until(self, condition):
        """Poll for what another process does; there is nothing to wait on."""
        end = time.monotonic() + BOUND_S
        while not condition():
            assert time.monotonic() < end
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)


@pytest.fixture
def run(manyeyes, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(manyeyes.temporary))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(manyeyes.temporary))
    one = Run(manyeyes)
    yield one
    one.process.kill()
    one.process.communicate()


def test_a_model_is_swapped_and_rolled_back_and_one_that_fails_is_withdrawn(run, manyeyes):
    demo = model_id(str(demo_model()))
    other = bundles.with_classes(manyeyes.folder / "other.bundle", "car", "bicycle", "person")
    spoilt = bundles.spoilt(manyeyes.folder / "spoilt.bundle")
    run.until_all_are_of(demo)
    before = {name: stage["pid"] for name, stage in run.stages().items()}

    code, out, err = run.ctl("swap", "spoilt.bundle")
    assert (code, "spoilt.bundle is started and tested" in out) == (1, True)
    assert "withdrawn, and all goes on as before: stage 'inference.spoilt' died" in err
    assert "golden test" in err
    assert err.count("\n") == 1
    run.until(lambda: len(run.stages()) == len(before))
    assert {name: stage["pid"] for name, stage in run.stages().items()} == before
    code, out, err = run.ctl("swap", "other.bundle")
    assert (code, out.splitlines()[-1]) == (0, "done"), err
    run.until_all_are_of(model_id(str(other)))
    assert run.stages()["inference"]["pid"] == before["inference"]  # warm, for the way back
    assert run.ctl("rollback")[0] == 0
    run.until_all_are_of(demo)
    assert run.stages()["inference"]["pid"] == before["inference"]
    assert run.ctl("swap", "other.bundle", "--camera", "yard")[0] == 0
    run.until_all_are_of(demo, model_id(str(other)))
    trucks = bundles.with_classes(manyeyes.folder / "trucks.bundle", "person", "car", "truck")
    assert run.ctl("swap", "trucks.bundle")[0] == 0  # with a class that nobody knew
    run.until_all_are_of(model_id(str(trucks)), model_id(str(other)))
    run.until(lambda: ("truck", 3) in run.found())

    run.process.send_signal(signal.SIGINT)
    out, err = run.process.communicate(timeout=BOUND_S)
    assert run.process.returncode == 0, err
    assert model_id(str(spoilt)) not in {row["model"] for row in run.events()}
    for camera, swaps in (("gate", 3), ("yard", 3)):
        rows = [row for row in run.events() if row["camera"] == camera]
        assert [row["frame_id"] for row in rows] == list(range(len(rows)))
        models = [row["model"] for row in rows]
        assert sum(a != b for a, b in itertools.pairwise(models)) == swaps
        (line,) = (s.split() for s in out.splitlines() if s.split()[:2] == [camera, "detect"])
        assert line[2:6] == [str(len(rows)), str(len(rows)), "0", "0"], out
    assert run.found() <= {("person", 0), ("car", 1), ("bicycle", 2), ("truck", 3)}
    manyeyes.assert_nothing_left()


def test_what_can_not_be_swapped_is_refused_before_anything_moved(run, manyeyes):
    bundles.with_classes(manyeyes.folder / "trucks.bundle", "car", "person", "truck")
    (manyeyes.folder / "text.bundle").write_text("no archive")
    pid, folder = run.process.pid, str(manyeyes.folder)
    before = run.stages().keys()
    for asked, said in (
        ({"model": f"{folder}/nowhere.bundle"}, "there is no file"),
        ({"model": f"{folder}/text.bundle"}, "text.bundle"),
        ({"model": str(demo_model()), "cameras": ["gat"]}, "did you mean 'gate'"),
        ({"model": str(demo_model()), "cameras": 5}, "a list of cameras"),
        ({"model": "/dev/zero"}, "there is no file"),
        ({}, "model"),
    ):
        with pytest.raises(ManyeyesError, match=said):
            ask(pid, {"do": "swap", **asked})
    assert "did you mean 'yolox-nano'" in run.ctl("swap", "yolox_nano")[2]
    assert ask(pid, {"do": "swap", "model": str(demo_model())})["lines"] == []
    assert run.stages().keys() == before
    with pytest.raises(ManyeyesError, match="nothing has changed yet"):
        ask(pid, {"do": "rollback"})
    kept = {"model": f"{folder}/trucks.bundle", "known_classes": True, "is_asked_only": True}
    assert ask(pid, {"do": "swap", **kept})["lines"]


class Swaps:
    """A tick for a supervisor: swaps and rollbacks at any time, also of what has not come to run."""

    def __init__(self, planner, models, seed, swaps):
        self.planner, self.models, self.left = planner, models, swaps
        self.random, self.next, self.log = random.Random(seed), 0.0, []

    def tick(self, run):
        now = time.monotonic()
        assert now - self.next < BOUND_S or not self.log, self.log
        if not run.live or now < self.next or run.stopping:
            return
        if self.left:
            self.left -= 1
            self.next = now + self.random.choice((0.0, 0.3, 1.0, 2.5))
            self.swap(run)
        elif run.changes.settled and run.children.keys() == run.changes.target.by_name.keys():
            run.stop()  # also what was kept for a while has ended

    def swap(self, run):
        what = self.random.choice((*self.models, "back"))
        cameras = self.random.choice(((), (), ("gate",)))
        back = what == "back"
        with contextlib.suppress(
            ConfigError
        ):  # nothing to go back to, or nobody looks with [model]
            proposal = self.planner.rollback() if back else self.planner.with_model(what, cameras)
            is_whole = run.changes.target is run.changes.good
            run.changes.apply(proposal.plan, keep=self.random.random() < 0.7)
            self.planner.accept(proposal, is_whole=is_whole)
            self.log.append((what, cameras))


def played(folder, tick_of, policy="every"):
    """A run of two cameras in this process that has ended, and its planner; tick_of: makes its tick."""
    text = TOML.replace('"onnx"', '"stub"').replace("port = 0", "enabled = false")
    text = text.replace('"every"', f'"{policy}"')
    (folder / "run.toml").write_text(text)
    planner = Planner(configuration.load(folder / "run.toml"), configuration.load, None)
    run = Supervisor(planner.plan, Options(), tick_of(planner), planner)
    run.run()
    return run, planner


def assert_nothing_lost(folder, run, policy="every"):
    rows = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    for camera in ("gate", "yard"):
        totals = run.totals[camera, "detect"]
        ids = [row["frame_id"] for row in rows if row["camera"] == camera]
        assert (len(ids), totals.error) == (totals.delivered, 0)
        lost = {why for why, n in totals.dropped.items() if n}
        if policy == "every":
            assert ids == list(range(totals.captured))
        else:  # busy cores make a frame wait, and a newer one takes its place
            assert ids == sorted(ids)
            assert lost <= {"superseded", "unwanted", "no_slot"}


def test_a_model_may_come_back_that_is_just_ending(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    other = bundles.with_classes(tmp_path / "m.bundle", "car", "bicycle", "person")
    did = []

    def tick_of(planner):
        def change(run, proposal):
            run.changes.apply(proposal.plan)
            planner.accept(proposal)
            did.append(time.monotonic())

        def tick(run):
            assert not did or time.monotonic() - did[-1] < BOUND_S
            if not did and run.live:
                change(run, planner.with_model(other, ()))
            elif len(did) == 1 and run.children["preprocess"].drained:
                run.children["batcher"].signal(signal.SIGSTOP)  # so that it does not end too soon
                if all(run.plan.detectors.get(c) == "postprocess.m" for c in ("gate", "yard")):
                    change(run, planner.rollback())
                    run.children["batcher"].signal(signal.SIGCONT)
            elif len(did) == 2 and run.changes.settled:
                run.stop()

        return tick

    run, _ = played(tmp_path, tick_of)
    assert "inference" in run.children
    assert len(run.children) == 7  # the other has gone
    assert_nothing_lost(tmp_path, run)


@pytest.mark.parametrize("policy", ["every", "newest"])
def test_a_shadow_is_compared_and_delivers_nothing(tmp_path, policy, monkeypatch):
    """In a run of its own; then it is withdrawn, and the model that delivers has not noticed."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    other = bundles.with_classes(tmp_path / "m.bundle", "car", "truck", "person")
    did = []

    def compared(run):
        counted, name = run.ledger.counted, "compare.shadow"
        return [counted(name, "compared", c) for c in ("gate", "yard")]

    def tick_of(planner):
        def tick(run):
            assert not did or time.monotonic() - did[0] < BOUND_S
            if not did and run.live:
                shadow = planner.with_shadow(other, ())
                run.changes.apply(shadow.plan)
                planner.accept(shadow)
                did.append(time.monotonic())
            elif len(did) == 1 and run.changes.settled and min(compared(run)) > 5:
                run.changes.apply(planner.rollback().plan)
                did.append(compared(run))
            elif len(did) == 2 and run.changes.settled:
                run.stop()

        return tick

    run, _ = played(tmp_path, tick_of, policy)
    assert len(run.children) == 7  # those of the shadow have gone
    assert_nothing_lost(tmp_path, run, policy)


def test_swaps_may_follow_each_other_at_any_time(tmp_path, seed, monkeypatch):
    policy = ("every", "newest")[seed % 2]
    monkeypatch.setattr(apply, "KEEP_S", 0.7)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    models = [demo_model(), bundles.with_classes(tmp_path / "m.bundle", "car", "bicycle", "person")]
    run, planner = played(tmp_path, lambda planner: Swaps(planner, models, seed, 6).tick, policy)
    assert_nothing_lost(tmp_path, run, policy)
    assert planner.plan is run.changes.target
    assert run.accounts.layout.processes.keys() == run.plan.by_name.keys()


def test_a_model_that_is_killed_while_it_starts_to_take_over_costs_no_frame(tmp_path, monkeypatch):
    """One of its processes after the other; each time the old model goes on as it was."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    other = bundles.with_classes(tmp_path / "m.bundle", "car", "bicycle", "person")
    killed = ["inference.m", "preprocess.m"]
    left, pids, said = [*killed], [], []

    def tick_of(planner):
        def tick(run):
            if not run.live or run.stopping:
                return
            pids.append(run.children["inference"].pid)
            is_going = run.changes.settled or run.changes.withdrawn or not left
            is_over = len(said) <= len(killed) - len(left)  # this change has cost its process
            victim = None if is_going or is_over else run.children.get(left[0])
            if victim is not None and victim.alive and not run.plan.by_name[left[0]].cameras:
                victim.signal(signal.SIGKILL)
                left.pop(0)
            elif run.changes.settled and run.children.keys() == run.changes.target.by_name.keys():
                said.append(run.changes.withdrawn)
                if left:
                    swapped = planner.with_model(other, ())
                    run.changes.apply(swapped.plan)
                    planner.accept(swapped)
                else:
                    run.stop()

        return tick

    run, _ = played(tmp_path, tick_of)
    assert said[1:] == [
        f"withdrawn, and all goes on as before: stage {name!r} died: signal 9" for name in killed
    ]
    assert len({*pids}) == 1
    assert_nothing_lost(tmp_path, run)
