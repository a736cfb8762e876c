import os
import re
import threading

from pipeline.face.terminal import Stream


def pipe():
    ours, theirs = os.pipe()
    return ours, theirs, Stream(theirs, "utf-8")


def test_what_nobody_reads_makes_nobody_wait_and_is_said_to_be_missing():
    ours, theirs, stream = pipe()
    lines = [f"{n:06} {'x' * 93}\n" for n in range(30_000)]  # 3 MB into a pipe of 64 kB
    for line in lines:
        stream.write(line)
    stream.finish()  # returns although nobody reads
    assert not stream.idle
    received = []
    reader = threading.Thread(target=_read, args=(ours, received))
    reader.start()
    while not stream.idle:
        stream.finish()
    stream.write("last\n")
    stream.finish()
    os.close(theirs)
    reader.join()
    assert received.pop() == "last\n"
    n = kept = 0
    for line in received:  # the pipe may take some more after something was left out
        if gap := re.fullmatch(
            r"\[here something was left out, (\d+) times: nobody read it\]\n", line
        ):
            n += int(gap[1])
        else:
            assert line == lines[n]
            n, kept = n + 1, kept + 1
    assert n == 30_000
    assert 10_000 <= kept < 30_000


def _read(fd, lines):
    with os.fdopen(fd) as file:
        lines.extend(file)


def test_a_reader_that_is_gone_takes_everything():
    ours, theirs, stream = pipe()
    os.close(ours)
    for _ in range(100):
        stream.write("x" * 100_000)
        stream.finish()
        assert stream.idle
    os.close(theirs)


def test_letters_that_are_not_to_be_had_are_spelt_out():
    ours, theirs = os.pipe()
    stream = Stream(theirs, "ascii")
    stream.write("α ≤ 3 – «gate» ─► \udcff\n")
    stream.finish()
    os.close(theirs)
    with os.fdopen(ours, encoding="ascii") as lines:
        assert lines.read() == "alpha <= 3 - ?gate? -> ?\n"
