"""What a control channel does beyond any other channel: it carries descriptors, and it waits for room."""

import os
from contextlib import closing

from pipeline.hop.control import Control


def test_descriptors_come_with_their_messages_however_late_these_are_read():
    ours, theirs = Control.pair()
    with closing(ours), closing(Control(theirs)) as child:
        fd = os.memfd_create("pool")
        os.pwrite(fd, b"pixels", 0)
        for n in range(3000):  # ten times of what the socket has room for
            ours.send("pools", [fd], n=n)
        os.close(fd)
        assert ours.behind
        heard = []
        while len(heard) < 3000:
            ours.flush()
            for command, (there,) in child.receive():
                heard.append(command["n"])
                assert os.pread(there, 6, 0) == b"pixels"
                os.close(there)
        assert heard == list(range(3000))
        assert not ours.behind


def test_descriptors_that_wait_are_closed_with_the_channel():
    before = set(os.listdir("/proc/self/fd"))
    ours, theirs = Control.pair()
    fd = os.memfd_create("pool")
    while not ours.behind:
        ours.send("pools", [fd])
    os.close(fd)
    theirs.close()
    ours.close()
    assert set(os.listdir("/proc/self/fd")) == before
