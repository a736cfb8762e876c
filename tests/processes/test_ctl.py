"""A run is looked at and told what to do while it goes on: `manyeyes ctl`, over its real socket."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import patterns
import pytest
from patience import BOUND_S

from pipeline.supervision.ctl import NAME, ControlSocket


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Two pattern cameras; yields (process, facts of READY). Its sockets lie in a folder of our own."""
    (tmp_path / "t").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    process = subprocess.Popen(
        [sys.executable, str(patterns.HERE / "patterns.py"), "newest", "2", "0", "0", "50", str(tmp_path)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": patterns.PATH},
    )  # fmt: skip
    line = process.stdout.readline()
    assert line.startswith("READY"), line
    yield process, json.loads(line.removeprefix("READY"))
    process.kill()
    process.wait()
    process.stdout.close()


def ctl(run, *arguments):
    process, _ = run
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pipeline", "ctl", *arguments, "--pid", str(process.pid)],
        capture_output=True, text=True, timeout=BOUND_S,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def status(run):
    code, out, err = ctl(run, "status", "--json")
    assert code == 0, err
    return json.loads(out)


def wait_until(condition):
    """Poll for what another process does; there is nothing to wait on."""
    end = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def captured(run, camera):
    return status(run)["cameras"][camera]["captured"]


def test_a_paused_camera_is_not_read_and_the_others_do_not_notice(run, tmp_path):
    process, _ = run
    assert ctl(run, "pause", "c0")[:2] == (0, "camera 'c0': paused\n")
    wait_until(lambda: captured(run, "c0") == captured(run, "c0"))
    before, other = captured(run, "c0"), captured(run, "c1")
    wait_until(lambda: captured(run, "c1") > other + 50)
    now = status(run)
    assert (now["cameras"]["c0"]["captured"], now["cameras"]["c0"]["state"]) == (before, "paused")
    assert (now["state"], now["cameras"]["c1"]["state"]) == ("running", "up")

    # its process may die: it stays paused
    pid = now["stages"]["capture.c0"]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: status(run)["stages"]["capture.c0"]["pid"] not in (None, pid))
    wait_until(lambda: status(run)["stages"]["capture.c0"]["state"] == "ready")
    other = captured(run, "c1")
    wait_until(lambda: captured(run, "c1") > other + 50)
    assert captured(run, "c0") == before

    assert ctl(run, "resume", "c0")[0] == 0
    wait_until(lambda: captured(run, "c0") > before)
    process.send_signal(signal.SIGINT)
    totals = json.loads(process.communicate(timeout=BOUND_S)[0].splitlines()[-1])
    assert all(row["error"] == row["in_flight"] == 0 for row in totals.values())
    for camera in ("c0", "c1"):
        written = [row for row in patterns.rows(tmp_path, "results") if row[0] == camera]
        assert totals[f"{camera}/detect"]["delivered"] == len(written)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("pause", "c00"), "there is no camera 'c00'; did you mean 'c0'?"),
        (("resume", "gate"), "there is no camera 'gate'; known: c0, c1"),
        (("add", "clip.mp4"), "ctl add: wanted NAME=SOURCE"),
        (("add", "rtsp://10.0.0.7/live?channel=1"), "ctl add: wanted NAME=SOURCE"),
    ],
)
def test_an_order_that_can_not_be_is_one_sentence_and_changes_nothing(run, arguments, sentence):
    code, out, err = ctl(run, *arguments)
    assert (code, out) == (78, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert {row["state"] for row in status(run)["cameras"].values()} == {"up"}


def test_the_socket_is_the_users_own_and_odd_clients_hold_nobody_up(run):
    _, facts = run
    path = Path(facts["sockets"]) / NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    clients = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    try:
        for n, client in enumerate(clients):
            client.connect(str(path))
            client.sendall((b"", b"{", b"[1]\n", b"\xff\n", b'{"do": "fly"}\n')[n % 5])
        clients[-1].settimeout(BOUND_S)
        assert json.loads(clients[-1].recv(4096))["error"].startswith("ctl: this run knows status")
        assert status(run)["state"] == "running"
    finally:
        for client in clients:
            client.close()


def test_a_run_that_is_gone_and_a_socket_that_was_left_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    folder = tmp_path / "manyeyes-run-old"
    folder.mkdir()
    ControlSocket(folder, lambda asked: asked).close()  # as after kill -9: the file is there
    assert (folder / NAME).exists()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pipeline", "ctl", "status", "--pid", "1"],
        capture_output=True, text=True, timeout=BOUND_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "manyeyes: ctl: no run has the process id 1 here, of this user; `manyeyes run` starts one\n"
    )
