"""Runs whose terminal or pipe is not as it should be: nothing else may change."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patience import BOUND_S

RUN = ("run", "synthetic://?seed=1&size=320x180", "--events", "e.jsonl")


def wait_until(condition):
    """Poll for what another process does; there is nothing to wait on."""
    end = time.monotonic() + BOUND_S
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
    return value


def events(manyeyes):
    path = manyeyes.folder / "e.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def camera_pid(manyeyes):
    """Of the process that runs capture.cam0; None while there is none."""
    for pid in manyeyes.processes():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"capture.cam0" in words:
            return int(pid)
    return None


def kill_the_camera(manyeyes):
    """And wait until it delivers again; the supervisor has something to say about it."""
    before = len(events(manyeyes))
    wait_until(lambda: len(events(manyeyes)) > before)
    first = wait_until(lambda: camera_pid(manyeyes))
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: camera_pid(manyeyes) not in (None, first))
    before = len(events(manyeyes))
    wait_until(lambda: len(events(manyeyes)) > before + 3)


def end(manyeyes, process):
    process.send_signal(signal.SIGTERM)
    assert process.wait(BOUND_S) == 0
    assert all(json.loads(line) for line in events(manyeyes))
    manyeyes.assert_nothing_left()


def test_a_terminal_that_nobody_reads_holds_nothing_up(manyeyes):
    ours, theirs = pty.openpty()
    process = manyeyes.start_on(theirs, *RUN)
    for _ in range(3):
        kill_the_camera(manyeyes)
    end(manyeyes, process)
    os.close(ours)


def test_pipes_that_nobody_reads_hold_nothing_up(manyeyes):
    pipes = []
    for _ in range(2):
        ours, theirs = os.pipe()
        os.set_blocking(theirs, False)
        try:
            while True:
                os.write(theirs, bytes(4096))
        except BlockingIOError:
            os.set_blocking(theirs, True)
        pipes.append((ours, theirs))
    (_, out), (_, err) = pipes
    process = manyeyes.start(*RUN, stdout=out, stderr=err)
    for _ in range(2):
        kill_the_camera(manyeyes)
    end(manyeyes, process)
    for pair in pipes:
        for fd in pair:
            os.close(fd)


def test_a_reader_of_the_log_that_goes_away_is_not_missed(manyeyes):
    process = manyeyes.start(*RUN)
    wait_until(lambda: events(manyeyes))
    process.stdout.close()
    process.stderr.close()
    for _ in range(2):
        kill_the_camera(manyeyes)
    end(manyeyes, process)


def test_closed_standard_streams_are_not_missed(manyeyes):
    command = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    null = subprocess.DEVNULL
    process = manyeyes.start(*RUN, before=command, stdout=null, stderr=null)
    kill_the_camera(manyeyes)
    end(manyeyes, process)


def test_a_terminal_that_is_closed_ends_the_run_in_order(manyeyes):
    ours, theirs = pty.openpty()
    process = manyeyes.start_on(theirs, *RUN, "--video", "v")
    wait_until(lambda: events(manyeyes))
    os.close(ours)  # SIGHUP to all of it; nobody reads or writes there any more
    assert process.wait(BOUND_S) == 0
    assert all(json.loads(line) for line in events(manyeyes))
    probe = [
        sys.executable,
        "-c",
        "import av, sys; print(len(list(av.open(sys.argv[1]).decode())))",
    ]
    video = [*probe, str(manyeyes.folder / "v" / "cam0.mp4")]
    assert int(subprocess.run(video, capture_output=True, check=True).stdout) > 0
    manyeyes.assert_nothing_left()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_letters_that_a_terminal_does_not_have_are_spelt_out(manyeyes, encoding):
    manyeyes.environment["PYTHONIOENCODING"] = encoding
    manyeyes.write(
        '[metrics]\nenabled = false\n[[camera]]\nname = "gate"\n'
        'source = "synthetic://?seed=1&size=320x180"\n'
    )
    code, out, err = manyeyes("graph", "run.toml", encoding=encoding)
    assert (code, err) == (0, "")
    assert "-> preprocess" in out
    for arguments in (["check", "run.toml"], ["run", "run.toml", "--seconds", "1"]):
        code, out, err = manyeyes(*arguments, encoding=encoding)
        assert (code, err) == (0, ""), arguments
    assert re.search(r"gate +\|? *detect", out)
    code, _, err = manyeyes("run", "\u2014gate\u2014.mp4", encoding=encoding)
    assert code == 78
    assert err.count("\n") == 1, err


def test_a_pipe_that_takes_the_first_line_only(manyeyes):
    process = manyeyes.start("graph", RUN[1])
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(BOUND_S) == 0


def test_results_that_find_a_full_disk_are_a_failure(manyeyes):
    with open("/dev/full", "w") as full:
        process = manyeyes.start("graph", RUN[1], stdout=full)
        _, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == 78
    assert err == "manyeyes: standard output can't be written: No space left on device\n"
