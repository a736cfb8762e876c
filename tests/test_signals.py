"""What ends a run from outside, at every moment of its life; as a terminal, a shell or a container do."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from patience import BOUND_S

from pipeline.host.signals import ENDING

EVENTS = ("run", "synthetic://?seed=1", "--events", "e.jsonl")


def wait_until(condition):
    """Poll for what another process does; there is nothing to wait on."""
    end = time.monotonic() + BOUND_S
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.001)
    return value


def wait_for(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(process.stderr.read())


@pytest.mark.parametrize("born", [1, 2, 3, 4, 6])
def test_ctrl_c_reaches_no_child_however_young(manyeyes, born):
    process = manyeyes.start("run", "synthetic://", process_group=0)
    wait_until(lambda: len(manyeyes.processes()) > born)  # so many children, the last one just now
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=BOUND_S)
    assert (process.returncode, err) == (0, "")
    manyeyes.assert_nothing_left()


def slow_to_load(manyeyes):
    """A process that stands still in the first import that is not of the standard library."""
    folder = manyeyes.folder / "slow"
    folder.mkdir()
    (folder / "typer.py").write_text("import sys\nprint('loading', flush=True)\nsys.stdin.read()\n")
    manyeyes.environment["PYTHONPATH"] = str(folder)


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_while_it_is_loaded_ends_it_without_a_word(manyeyes, number):
    slow_to_load(manyeyes)
    process = manyeyes.start("run", "synthetic://", stdin=subprocess.PIPE)
    wait_for(process, "loading")
    process.send_signal(number)
    out, err = process.communicate(timeout=BOUND_S)
    assert (process.returncode, out, err) == (128 + number, "", "")


def test_a_shell_that_ignores_ctrl_c_for_it_does_not_keep_it_alive(manyeyes):
    slow_to_load(manyeyes)
    before = signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # as a script does with `manyeyes run … &`
    try:
        process = manyeyes.start("run", "synthetic://", stdin=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for(process, "loading")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=BOUND_S)
    assert (process.returncode, err) == (130, "")


IN_A_CONTAINER = ("unshare", "--pid", "--fork", "--kill-child")


@pytest.fixture
def first_process(manyeyes):
    """Starts it as process 1 of a container; returns (the process to wait for, the pid to signal)."""
    if not shutil.which("unshare") or subprocess.run([*IN_A_CONTAINER, "true"]).returncode:
        pytest.skip("no new PID namespace is to be had here: it takes root")

    def start(*arguments):
        outer = manyeyes.start(*arguments, before=IN_A_CONTAINER, stdin=subprocess.PIPE)
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        return outer, int(wait_until(lambda: children.read_text().split())[0])

    return start


def test_the_first_process_of_a_container_ends_while_it_is_loaded(manyeyes, first_process):
    slow_to_load(manyeyes)
    outer, pid = first_process("run", "synthetic://")
    wait_for(outer, "loading")
    os.kill(pid, signal.SIGTERM)  # which such a process ignores unless it has a handler
    _, err = outer.communicate(timeout=BOUND_S)
    assert (outer.returncode, err) == (143, "")


def test_the_first_process_of_a_container_closes_its_files(manyeyes, first_process):
    outer, pid = first_process(*EVENTS)
    events = manyeyes.folder / "e.jsonl"
    wait_until(lambda: events.exists() and events.stat().st_size)
    os.kill(pid, signal.SIGTERM)
    out, err = outer.communicate(timeout=BOUND_S)
    assert (outer.returncode, err) == (0, "")
    (row,) = re.findall(r"^ cam0 +detect +(\d+) +(\d+) +(\d+) +(\d+)", out, re.M)
    captured, delivered, in_flight, error = map(int, row)
    assert (delivered, in_flight, error) == (len(events.read_text().splitlines()), 0, 0)
    assert captured >= delivered > 0
    manyeyes.assert_nothing_left()
