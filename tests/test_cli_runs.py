"""What the console command does with sources, signals, and a second run beside the first."""

import http.client
import json
import os
import re
import signal
import time
from pathlib import Path

from patience import BOUND_S

CAMERA = '[[camera]]\nname = "gate"\nsource = "synthetic://?seed=1&size=320x180"\n'
QUIET = "[metrics]\nenabled = false\n"


def test_a_source_that_does_not_open_is_tried_again_while_the_others_run(manyeyes):
    manyeyes.write(f'{QUIET}{CAMERA}[[camera]]\nname = "away"\nsource = "rtsp://127.0.0.1:1/x"\n')
    code, out, err = manyeyes("run", "run.toml", "--seconds", "3")
    assert code == 0
    assert err.count("camera 'away': source rtsp://127.0.0.1:1/…: can't be opened") >= 2
    assert "Traceback" not in err
    served = {row[0]: int(row[1]) for row in re.findall(r"^ (gate|away) +\d+ +(\d+)", out, re.M)}
    assert served["gate"] > 0
    assert served["away"] == 0
    manyeyes.assert_nothing_left()


def test_strict_ends_the_run_for_a_source_that_does_not_open(manyeyes):
    manyeyes.write(f'{QUIET}{CAMERA}[[camera]]\nname = "away"\nsource = "rtsp://127.0.0.1:1/x"\n')
    code, _, err = manyeyes("run", "run.toml", "--strict")
    assert code == 78, err
    assert err.count("\n") == 1, err
    assert "camera 'away': source rtsp://127.0.0.1:1/…: can't be opened" in err
    manyeyes.assert_nothing_left()


def wait_for(process, text):
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(process.stderr.read())


def test_the_second_run_on_a_directory_says_so_and_leaves_the_first_alone(manyeyes):
    manyeyes.write(f'[metrics]\nport = 0\n[run]\ndirectory = "here"\n{CAMERA}')
    first = manyeyes.start("run", "run.toml")
    line = wait_for(first, "metrics on")
    code, _, err = manyeyes("run", "run.toml")
    assert code == 75, err
    assert err.count("\n") == 1, err
    assert "here: another run holds it" in err
    port = int(re.search(r":(\d+)/", line)[1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=BOUND_S)
    assert first.returncode == 0, err
    manyeyes.assert_nothing_left()


def test_ctrl_c_ends_a_run_in_order(manyeyes):
    process = manyeyes.start(
        "run", "synthetic://?seed=1", "synthetic://?seed=2", "--events", "e.jsonl", "--video", "v",
        process_group=0,
    )  # fmt: skip
    events = manyeyes.folder / "e.jsonl"
    end = time.monotonic() + BOUND_S
    while not (events.exists() and events.stat().st_size):
        assert time.monotonic() < end
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    out, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == 0
    worse = [line for line in err.splitlines() if not line.startswith("INFO ")]
    assert worse == []  # INFO: the engine that it took, where this is the first run on the host
    for camera in ("cam0", "cam1"):
        assert re.search(rf"^ {camera} +detect +\d+ +\d+ +0 +0 ", out, re.M), out
        assert (manyeyes.folder / "v" / f"{camera}.mp4").stat().st_size > 0
    assert [json.loads(line) for line in events.read_text().splitlines()]
    manyeyes.assert_nothing_left()


def test_ctrl_c_while_it_starts_is_no_traceback(manyeyes):
    process = manyeyes.start("run", "synthetic://", process_group=0)
    wait_for(process, "inference in")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=BOUND_S)
    assert "Traceback" not in err
    assert process.returncode in (0, 130)
    manyeyes.assert_nothing_left()


def test_check_says_what_a_run_would_take(manyeyes):
    manyeyes.write(QUIET + CAMERA)
    code, out, err = manyeyes("check", "run.toml")
    assert (code, err) == (0, "")
    assert re.match(
        r"run\.toml: fine\. \d+ processes, \d+ MiB of shared memory and about \d+ MiB of their own\n",
        out,
    )
    assert manyeyes.files() == {Path("run.toml")}


def test_graph_names_every_process_and_draws_it(manyeyes):
    manyeyes.write(f'{QUIET}{CAMERA}[[sink]]\ntype = "snapshot"\npath = "s"\n')
    code, out, err = manyeyes("graph", "run.toml", "--svg", "wiring.svg")
    assert (code, err) == (0, "")
    svg = (manyeyes.folder / "wiring.svg").read_text()
    for name in (
        "capture.gate", "preprocess", "batcher", "inference", "postprocess", "render",
        "sink.snapshot",
    ):  # fmt: skip
        assert re.search(rf"^{re.escape(name)} ", out, re.M)
        assert name in svg
