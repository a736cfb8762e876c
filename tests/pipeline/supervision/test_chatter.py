import os
import threading

from hypothesis import given
from hypothesis import strategies as st

from pipeline.supervision.chatter import AT_MOST, WINDOW_S, Repeats, listening

LOST = "WARNING capture.{0}: camera '{0}': lost for {1} s; trying again in {1} s"


def test_a_kind_is_said_a_few_times_and_then_counted():
    repeats = Repeats()
    lines = [LOST.format("gate", n) for n in range(100)]
    said = [line for n, line in enumerate(lines) for line in repeats.take(line, n / 10)]
    assert said == lines[:AT_MOST]
    assert repeats.due(WINDOW_S - 0.1) == []
    assert repeats.due(WINDOW_S) == [f"[95 more like this, the last one:] {lines[-1]}"]
    assert repeats.take(lines[0], WINDOW_S + 1) == [lines[0]]
    assert repeats.rest() == []


def test_cameras_are_told_apart_also_by_their_numbers():
    repeats = Repeats()
    for name in ("cam0", "cam1", "gate-1", "gate-2", "7", "8"):
        said = [repeats.take(LOST.format(name, n), 0.0) for n in range(20)]
        assert sum(map(len, said)) == AT_MOST, name


def test_what_is_indented_goes_with_the_line_before_it():
    repeats = Repeats()
    said = []
    for n in range(20):
        for line in (f"Fatal: {n}", "  File a, line 3", "    x()", f"Other: {n}", "  File b"):
            said += repeats.take(line, 0.0)
    assert said.count("  File a, line 3") == said.count("    x()") == AT_MOST
    assert len(said) == 5 * AT_MOST


@given(st.lists(st.tuples(st.sampled_from(["a 1", "a 2", "b", "", " c"]), st.floats(0, 30))))
def test_every_line_is_said_or_counted(steps):
    repeats, now_s, said, taken = Repeats(), 0.0, [], 0
    for line, wait_s in steps:
        now_s += wait_s
        said += repeats.take(line, now_s)
        taken += not line.startswith(" ")
    said += repeats.rest()
    counts = [int(line[1:].split()[0]) for line in said if line.startswith("[")]
    assert taken == sum(counts) + sum(not line.startswith(("[", " ")) for line in said)


def test_memory_does_not_grow_with_the_kinds():
    repeats = Repeats()
    for n in range(5_000):
        repeats.take(f"{'x' * n}", 0.0)
    assert len(repeats._kinds) <= 1_000


def test_children_never_wait_and_whole_lines_arrive():
    said = []
    with listening(said.append) as chatter:
        writers = [
            threading.Thread(target=_write, args=(os.dup(chatter.descriptor), name))
            for name in ("one", "two")
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
    assert sorted(said) == sorted(
        f"{name} x{'y' * n}" for name in ("one", "two") for n in range(900)
    )


def _write(fd, name):
    with os.fdopen(fd, "wb", buffering=0) as pipe:
        for n in range(900):
            pipe.write(f"{name} x{'y' * n}\n".encode())
