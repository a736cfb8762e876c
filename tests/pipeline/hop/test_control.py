"""The control channel over real sockets: whole messages, in order, whatever the other side does."""

import gc
import os
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Full, PeerGone
from pipeline.hop import control
from pipeline.hop.control import Control


@pytest.fixture
def ends():
    """Both ends; nothing may be left open."""
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    ours, theirs = Control.pair()
    other = Control(theirs)
    yield ours, other
    ours.close()
    other.close()
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before


def test_nothing_is_lost_on_one_who_reads_late(ends):
    ours, theirs = ends
    fd = os.memfd_create("pool")
    os.pwrite(fd, b"pixels", 0)
    for n in range(3000):  # ten times of what the socket has room for
        ours.send("pools", [fd], n=n)
    os.close(fd)
    assert ours.behind
    heard = []
    while len(heard) < 3000:
        ours.flush()
        for command, (ours_there,) in theirs.receive():
            heard.append(command["n"])
            assert os.pread(ours_there, 6, 0) == b"pixels"
            os.close(ours_there)
    assert heard == list(range(3000))
    assert not ours.behind


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 60_000), max_size=30))
def test_messages_of_all_lengths_come_whole_and_in_order(lengths):
    ours, theirs = Control.pair()
    other = Control(theirs)
    for n, length in enumerate(lengths):
        ours.send("start", n=n, text="ä" * length)
    heard = []
    while len(heard) < len(lengths):
        ours.flush()
        heard += other.receive()
    assert [(c["n"], len(c["text"]), fds) for c, fds in heard] == [
        (n, length, []) for n, length in enumerate(lengths)
    ]
    ours.close()
    other.close()


def test_what_waits_for_the_dead_is_let_go(ends):
    ours, theirs = ends
    fd = os.memfd_create("pool")
    while not ours.behind:
        ours.send("pools", [fd])
    os.close(fd)
    theirs.close()
    with pytest.raises(PeerGone):
        ours.flush()


def test_one_who_never_reads_is_an_error_and_not_silence(ends, monkeypatch):
    monkeypatch.setattr(control, "_MAX_WAITING", 3)
    ours, _ = ends
    ours._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    while not ours.behind:
        ours.send("forget", epoch=0)
    ours.send("forget", epoch=1)
    ours.send("forget", epoch=2)
    with pytest.raises(Full, match="3 messages wait"):
        ours.send("forget", epoch=3)
