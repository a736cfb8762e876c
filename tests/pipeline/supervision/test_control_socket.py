"""The control socket of a run, and who asks: an order that fails, and one that comes when many wait."""

import errno
import os
import select
import socket
import threading
import time

import pytest

from pipeline.errors import ConfigError, ManyeyesError
from pipeline.supervision.asking import ask
from pipeline.supervision.ctl import NAME, ControlSocket


@pytest.fixture
def answering(tmp_path_factory, monkeypatch):
    """Serves a control socket of this process in a thread, once `begin` is set."""
    base = tmp_path_factory.mktemp("run")  # not by the test's name, which is too long for a socket
    monkeypatch.setenv("TMPDIR", str(base))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    folder = base / "manyeyes-run-here"
    folder.mkdir()

    def answer(asked):
        if asked["do"] == "refuse":
            raise ConfigError("ctl: there is no camera 'gat'; did you mean 'gate'?")
        if asked["do"] == "open":
            os.stat("m" * 300)
        if asked["do"] == "read":
            raise ValueError(f"a port that is none in {asked['url']}")
        return {"half": 1 / asked["n"]}

    control, begin, over = ControlSocket(folder, answer), threading.Event(), threading.Event()

    def serve():
        begin.wait()
        while not over.is_set():
            readable, _, _ = select.select(control.fds(), [], [], 0.02)
            control.turn(set(readable), time.monotonic())

    thread = threading.Thread(target=serve)
    thread.start()
    yield folder / NAME, begin
    over.set()
    begin.set()
    thread.join()
    control.close()


def test_an_order_that_fails_by_a_bug_is_a_sentence_and_the_next_one_is_answered(answering, caplog):
    _, begin = answering
    begin.set()
    with pytest.raises(
        ManyeyesError, match="ctl: 'halve' failed by an error of the program"
    ) as bug:
        ask(os.getpid(), {"do": "halve", "n": 0})
    assert "ZeroDivisionError" in str(bug.value)
    assert "in answer" in caplog.text, "where it was"
    with pytest.raises(ManyeyesError, match=r"ctl: 'read' failed by an .*: ValueError$") as bug:
        ask(os.getpid(), {"do": "read", "url": "rtsp://10.0.0.7:hunter22/1"})
    assert "hunter22" not in caplog.text
    with pytest.raises(ManyeyesError, match=r"ctl: 'open': File name too long.*shorter path$"):
        ask(os.getpid(), {"do": "open"})
    with pytest.raises(ManyeyesError, match="did you mean 'gate'"):
        ask(os.getpid(), {"do": "refuse"})
    assert ask(os.getpid(), {"do": "halve", "n": 2}) == {"half": 0.5}


def test_who_asks_a_run_that_is_busy_with_many_others_is_answered(answering):
    path, begin = answering
    others, is_full = [], False
    while not is_full:
        others.append(socket.socket(socket.AF_UNIX))
        others[-1].setblocking(False)
        is_full = others[-1].connect_ex(str(path)) == errno.EAGAIN
    threading.Timer(0.1, begin.set).start()
    try:
        assert ask(os.getpid(), {"do": "halve", "n": 4}) == {"half": 0.25}
    finally:
        for other in others:
            other.close()
