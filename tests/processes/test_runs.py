"""Whole runs of pattern cameras, in real processes over real sockets and memory."""

import contextlib
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import patterns
import pytest
from patience import BOUND_S

from pipeline.supervision.supervisor import Options, Supervisor

TESTS = Path(patterns.__file__).parent


@pytest.fixture(autouse=True)
def _parts_on_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", patterns.PATH)


@pytest.fixture
def started(tmp_path):
    """Starts `tests/patterns.py` and waits for READY; whatever happens, nothing is left behind."""
    processes = []

    def start(*arguments, ready=True):
        process = subprocess.Popen(
            [sys.executable, str(TESTS / "patterns.py"), *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        facts = None
        if ready:
            line = process.stdout.readline()
            assert line.startswith("READY"), line
            facts = json.loads(line.removeprefix("READY"))
        return process, facts

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def run(tmp_path, on_tick=None, seconds=None, **options):
    supervisor = Supervisor(
        patterns.plan(tmp_path, **options), Options(seconds=seconds, to_bgr=None), on_tick
    )
    supervisor.run()
    return supervisor


def exists(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, bound_s=BOUND_S):
    """Poll for what another process does; there is nothing to wait on."""
    end = time.monotonic() + bound_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_delivers_each_frame_once_in_order_with_its_own_pixels(tmp_path, workers):
    supervisor = run(tmp_path, policy="every", cameras=3, frames=300, rate_hz=0, workers=workers)
    wanted = [(n, n % 251, n + 1) for n in range(300)]
    for name in ("results", "frames"):
        rows = patterns.rows(tmp_path, name)
        for camera in ("c0", "c1", "c2"):
            assert [row[1:] for row in rows if row[0] == camera] == wanted
    for totals in supervisor.totals.values():
        assert (totals.captured, totals.delivered, totals.error) == (300, 300, 0)


def test_newest_drops_only_what_a_newer_frame_replaced_and_serves_all_alike(tmp_path):
    supervisor = run(tmp_path, cameras=3, frames=200, rate_hz=100, alpha_ms=30)
    for (_, path), totals in supervisor.totals.items():
        assert totals.error == 0
        assert totals.in_flight == 0
        assert totals.captured == 200
        if path == "detect":
            assert totals.dropped["superseded"] > 0
    assert int(supervisor.ledger["torn"].sum()) == 0
    for camera in ("c0", "c1", "c2"):
        mine = [row for row in patterns.rows(tmp_path, "results") if row[0] == camera]
        assert [row[1] for row in mine] == sorted({row[1] for row in mine})
        assert all(value == frame_id % 251 for _, frame_id, value, _ in mine)


def count_late(supervisor):
    """A tick that ends when the source stands still: it waits for a count, or has ended."""
    before, captured = -1, int(supervisor.ledger["captured"][0])
    while before < captured:
        time.sleep(0.1)
        before, captured = captured, int(supervisor.ledger["captured"][0])


@pytest.mark.parametrize(("policy", "frames"), [("newest", 10_000), ("every", 600)])
def test_a_source_as_fast_as_it_can_beside_a_supervisor_that_is_slow_to_count(
    tmp_path, policy, frames
):
    """In newest the ledger has not places enough for all frames between two counts."""
    supervisor = run(tmp_path, count_late, policy=policy, cameras=1, frames=frames, rate_hz=0)
    for totals in (*supervisor.totals.values(), *supervisor.sink_totals.values()):
        assert (totals.error, totals.in_flight) == (0, 0)
        assert totals.captured == totals.delivered + sum(totals.dropped.values())
        assert totals.delivered == frames or policy == "newest"
    for path, name in (("detect", "results"), ("view", "frames")):
        totals = supervisor.totals["c0", path]
        assert totals.captured == frames
        assert totals.delivered == len(patterns.rows(tmp_path, name))


def test_every_goes_on_where_few_pictures_are_wanted(tmp_path):
    deadline = time.monotonic() + 120

    def on_tick(supervisor):
        assert time.monotonic() < deadline, supervisor.totals

    supervisor = run(
        tmp_path, on_tick, policy="every", cameras=2, frames=300, rate_hz=0, view_hz=2.0
    )
    for camera in ("c0", "c1"):
        mine = [row[1] for row in patterns.rows(tmp_path, "results") if row[0] == camera]
        assert mine == list(range(300))
        view = supervisor.totals[camera, "view"]
        assert view.delivered + view.dropped["unwanted"] == 300
        assert view.delivered
        assert view.dropped["unwanted"]


def test_every_goes_on_where_a_stage_gives_nothing_for_some_pictures(tmp_path):
    plan = patterns.plan(tmp_path, policy="every", cameras=1, frames=120, rate_hz=0)
    processes = tuple(
        replace(spec, run="parts:DrawHalf") if spec.name == "render" else spec
        for spec in plan.processes
    )
    supervisor = Supervisor(replace(plan, processes=processes), Options(to_bgr=None))
    supervisor.run()
    assert [row[1] for row in patterns.rows(tmp_path, "results")] == [*range(120)]
    assert [row[1] for row in patterns.rows(tmp_path, "frames")] == [*range(0, 120, 2)]
    assert supervisor.totals["c0", "view"].dropped["filtered"] == 60
    patterns.assert_accounts_are_in_files(tmp_path, supervisor)


class Chaos:
    """Kills one process after the other, each when all cameras have recovered from the last kill."""

    def __init__(self, folder, kills, how=signal.SIGKILL, only=None, beside=()):
        """only: the name of the one process that is killed; None: each in its turn. beside: those that
        are killed at the same moment."""
        self.beside = beside
        self.folder, self.how, self.only = folder, how, only
        self.left = kills
        self.captured = None
        self.killed = []
        self.deadline = time.monotonic() + 60

    def __call__(self, supervisor):
        if not supervisor.live or supervisor.stopping:
            return
        if not self.has_recovered():
            assert time.monotonic() < self.deadline, f"no newer frames after {self.killed[-1:]}"
            return
        if self.left == 0:
            supervisor.stop()
            return
        self.left -= 1
        names = [self.only] if self.only else sorted(supervisor.children)
        child = supervisor.children[names[len(self.killed) % len(names)]]
        if child.pid is None:
            self.left += 1
            return
        self.captured = [int(n) for n in supervisor.ledger["captured"]]
        self.killed.append(child.name)
        self.deadline = time.monotonic() + 60
        child.signal(self.how)
        for name in self.beside:
            supervisor.children[name].signal(self.how)

    def has_recovered(self):
        if self.captured is None:
            return bool(patterns.rows(self.folder, "frames"))
        return all(
            any(
                row[0] == f"c{i}" and row[1] >= captured for row in patterns.rows(self.folder, name)
            )
            for name in ("results", "frames")
            for i, captured in enumerate(self.captured)
        )


@pytest.mark.timeout(300)  # nine recoveries, beside busy cores
@pytest.mark.parametrize("policy", ["newest", "every"])
def test_kill_9_of_every_stage_loses_only_counted_frames(tmp_path, policy):
    chaos = Chaos(tmp_path, kills=9)  # each process once
    gc.collect()  # descriptors of the runs before this one, which are not its leaks
    before = set(os.listdir("/proc/self/fd"))
    supervisor = run(tmp_path, chaos, policy=policy, cameras=2, rate_hz=50)
    assert len(chaos.killed) == 9
    assert set(chaos.killed) == set(supervisor.children)
    patterns.assert_accounts_are_in_files(tmp_path, supervisor, chaos.killed)
    assert not any(totals.dropped["error"] for totals in supervisor.totals.values())
    assert int(supervisor.ledger["torn"].sum()) == 0
    for name in ("results", "frames"):
        rows = patterns.rows(tmp_path, name)
        assert all(value == (pts - 1) % 251 for _, _, value, pts in rows), "pixels of another frame"
    assert not supervisor._directory.sockets.exists()
    del supervisor
    gc.collect()  # the ledger's mapping holds a descriptor
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("policy", "workers"), [("newest", 1), ("newest", 2), ("every", 2)])
def test_kill_9_of_the_batcher_tears_nothing_that_a_slow_model_reads(tmp_path, policy, workers):
    chaos = Chaos(tmp_path, kills=6, only="batcher")
    supervisor = run(
        tmp_path, chaos, policy=policy, cameras=3, rate_hz=50, alpha_ms=60, workers=workers
    )
    assert len(chaos.killed) == 6
    assert int(supervisor.ledger["torn"].sum()) == 0
    patterns.assert_accounts_are_in_files(tmp_path, supervisor)


def test_a_worker_that_is_killed_beside_preprocess_does_not_block_the_order_of_frames(tmp_path):
    chaos = Chaos(tmp_path, kills=5, only="inference.0", beside=["preprocess"])
    supervisor = run(tmp_path, chaos, policy="every", cameras=3, rate_hz=200, alpha_ms=5, workers=2)
    assert len(chaos.killed) == 5
    patterns.assert_accounts_are_in_files(tmp_path, supervisor)
    assert not any(totals.dropped["error"] for totals in supervisor.totals.values())


def test_the_order_of_frames_is_kept_and_nothing_blocks_where_the_batcher_dies_before_many_workers(
    tmp_path,
):
    """A worker's batch of before the death ends behind frames that another worker got after it."""
    chaos = Chaos(tmp_path, kills=8, only="batcher")
    supervisor = run(
        tmp_path, chaos, policy="every", cameras=3, rate_hz=100, alpha_ms=60, workers=3
    )
    assert len(chaos.killed) == 8
    assert int(supervisor.ledger["torn"].sum()) == 0
    for (camera, path), totals in supervisor.totals.items():
        assert (totals.error, totals.in_flight, totals.dropped["error"]) == (0, 0, 0)
        rows = patterns.rows(tmp_path, "results" if path == "detect" else "frames")
        ids = [row[1] for row in rows if row[0] == camera]
        assert ids == sorted(set(ids))
        assert len(ids) == totals.delivered


def test_a_hung_stage_is_noticed_and_replaced(tmp_path):
    chaos = Chaos(tmp_path, kills=9, how=signal.SIGSTOP)
    supervisor = run(tmp_path, chaos, cameras=2, rate_hz=50)
    assert set(chaos.killed) == set(supervisor.children)
    patterns.assert_accounts_are_in_files(tmp_path, supervisor, chaos.killed)


def test_sigterm_ends_in_order(tmp_path, started):
    process, facts = started("newest", 2, 0, 0, 50, tmp_path)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=BOUND_S)
    assert process.returncode == 0
    for account, totals in json.loads(out.splitlines()[-1]).items():
        camera, path = account.split("/")
        name = "results" if path == "detect" else "frames"
        written = [row for row in patterns.rows(tmp_path, name) if row[0] == camera]
        assert totals["delivered"] == len(written) > 0
        assert totals["error"] == totals["in_flight"] == 0
    assert not any(exists(pid) for pid in facts["pids"].values())
    assert not Path(facts["sockets"]).exists()


def test_who_does_not_end_in_time_is_named_and_what_it_held_is_in_the_account(tmp_path, caplog):
    def tick(supervisor):
        if supervisor.totals["c0", "view"].delivered and not supervisor.stopping:
            supervisor.children["render"].signal(signal.SIGSTOP)
            supervisor.stop()

    supervisor = run(tmp_path, tick, cameras=1, rate_hz=50)
    assert "stage 'render' died: signal 9; the run ends without what it held" in caplog.text
    patterns.assert_accounts_are_in_files(tmp_path, supervisor, ["render"])


def test_what_works_ahead_of_the_model_interrupts_nobody(tmp_path, started):
    _, facts = started("newest", 2, 0, 0, 50, tmp_path)
    for name, pid in facts["pids"].items():
        works_ahead = name.startswith(("capture", "preprocess"))
        wanted = os.SCHED_BATCH if works_ahead else os.SCHED_OTHER
        names = {int(t.name): (t / "comm").read_text() for t in Path(f"/proc/{pid}/task").iterdir()}
        threads = [tid for tid, name in names.items() if tid == pid or name.startswith("ZMQ")]
        assert len(threads) > 1
        assert {os.sched_getscheduler(tid) for tid in threads} == {wanted}


def test_kill_9_of_the_supervisor_takes_everything_along(tmp_path, started):
    process, facts = started("newest", 2, 0, 0, 50, tmp_path)
    process.kill()
    process.wait()
    wait_until(lambda: not any(exists(pid) for pid in facts["pids"].values()))
    wait_until(lambda: not Path(facts["sockets"]).exists())


def test_a_second_run_on_the_same_directory_exits_75(tmp_path, started):
    started("newest", 1, 0, 0, 50, tmp_path, tmp_path / "run")
    second, _ = started("newest", 1, 0, 0, 50, tmp_path, tmp_path / "run", ready=False)
    assert second.wait(timeout=BOUND_S) == 75


class NoDescriptors:
    """Kills a camera while no file descriptor is to be had; frees them when the others went on."""

    def __init__(self):
        self.before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.held, self.served, self.step = [], {}, 0

    def free(self):
        while self.held:
            os.close(self.held.pop())
        resource.setrlimit(resource.RLIMIT_NOFILE, self.before)

    def __call__(self, supervisor):
        totals = (
            {c: supervisor.totals[c, "detect"] for c in ("c0", "c1")} if supervisor.live else {}
        )
        served = {camera: one.delivered for camera, one in totals.items()}
        child = supervisor.children["capture.c0"]
        if self.step == 0 and served and min(served.values()) > 5:
            soft = max(map(int, os.listdir("/proc/self/fd"))) + 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, self.before[1]))
            with contextlib.suppress(OSError):
                while True:
                    self.held.append(os.open(os.devnull, os.O_RDONLY))
            os.kill(child.pid, signal.SIGKILL)
            self.served, self.step = served, 1
        elif self.step == 1 and child.restarts.count >= 3:  # its death, and two refusals
            if served["c1"] > self.served["c1"] + 20:
                self.free()
                self.step = 2
        elif self.step == 2 and served["c0"] > self.served["c0"] + 20:
            supervisor.stop()


def test_a_restart_that_the_host_refuses_is_tried_again(tmp_path, caplog):
    story = NoDescriptors()
    try:
        supervisor = run(tmp_path, story, cameras=2, rate_hz=50)
    finally:
        story.free()
    assert "no restart: stage 'capture.c0': one more process: Too many open files" in caplog.text
    patterns.assert_accounts_are_in_files(tmp_path, supervisor)
