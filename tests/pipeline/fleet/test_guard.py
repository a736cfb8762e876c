"""What holds the deadline of a run: with real processes, an agent that hangs, and one that is killed."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from patience import BOUND_S

from pipeline.fleet.guard import now_s

HOUR_S = 3600.0
# prints, and ends in order when it is asked to
RUN = (
    "import signal, sys, time;"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7));"
    "print('runs', file=sys.stderr, flush=True);"
    "time.sleep(600)"
)
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


@pytest.fixture
def guarded():
    guards = []

    def start(code, until_s):
        guard = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.fleet.guard", str(until_s), sys.executable, "-c", code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        guards.append(guard)
        pid = int(guard.stdout.readline())
        if code == RUN:
            assert guard.stderr.readline() == "runs\n"
        return guard, pid

    yield start
    for guard in guards:
        guard.kill()
        guard.communicate()


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_the_run_is_killed_when_the_lease_is_over_though_nobody_says_so(guarded):
    guard, pid = guarded(DEAF, now_s() + 1.0)
    assert guard.wait(timeout=BOUND_S) == 128 + signal.SIGKILL
    assert is_gone(pid)


def test_a_longer_lease_keeps_it_and_a_shorter_one_ends_it(guarded):
    guard, pid = guarded(RUN, now_s() + 30.0)
    guard.stdin.write(f"{now_s() + HOUR_S}\n{now_s() - 1}\n")
    guard.stdin.flush()
    assert guard.wait(timeout=BOUND_S) == 128 + signal.SIGKILL
    assert is_gone(pid)


def test_it_ends_in_order_when_that_is_asked_for(guarded):
    guard, _ = guarded(RUN, now_s() + HOUR_S)
    guard.stdin.write("stop\n")
    guard.stdin.flush()
    assert guard.wait(timeout=BOUND_S) == 7, "the exit code of the run"


def test_it_ends_in_order_when_the_agent_is_killed(guarded):
    guard, pid = guarded(RUN, now_s() + HOUR_S)
    guard.stdin.close()
    assert guard.wait(timeout=BOUND_S) == 7
    assert is_gone(pid)
    guard.stdin = None


def test_the_run_dies_with_its_guard(guarded):
    guard, pid = guarded(DEAF, now_s() + HOUR_S)
    guard.kill()
    guard.wait()
    end_s = now_s() + 30
    while not is_gone(pid):
        assert now_s() < end_s, "a run is left behind"


@pytest.mark.parametrize(
    ("code", "expected"), [("raise SystemExit(70)", 70), ("import os; os.abort()", 134)]
)
def test_its_exit_code_is_that_of_the_run(guarded, code, expected):
    guard, _ = guarded(code, now_s() + HOUR_S)
    assert guard.wait(timeout=BOUND_S) == expected
