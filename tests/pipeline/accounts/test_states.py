"""What stages remember: the newest state that is whole, whatever was killed while it wrote."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.accounts.layout import Layout
from pipeline.accounts.ledger import Ledger
from pipeline.accounts.states import _HEAD, MAX_STATE_BYTES, PAGE_BYTES, States


def pages():
    return np.zeros((2, 2, PAGE_BYTES), np.uint8)


@given(st.lists(st.tuples(st.integers(0, 1), st.binary(max_size=300)), max_size=12))
def test_what_was_written_last_is_read(written):
    memory = pages()
    states, wanted = States(memory), {0: None, 1: None}
    for camera, state in written:
        assert states.write(camera, state)
        wanted[camera] = state or None
        assert {k: States(memory).read(k) for k in wanted} == wanted


@given(st.integers(1, 200), st.integers(0, 260), st.integers(0, 1))
def test_a_process_that_is_killed_while_it_writes_leaves_the_state_before(length, done, half_head):
    """The new state is there up to some byte, as a kill leaves it."""
    memory = pages()
    states = States(memory)
    states.write(0, b"first" * 20)
    states.write(0, b"second" * 20)
    before = memory.copy()
    states.write(0, b"x" * length)
    torn = before.copy()
    (page,) = [p for p in (0, 1) if (memory[0, p] != before[0, p]).any()]
    torn[0, page, : _HEAD.size] = 0  # these go first
    body = slice(_HEAD.size, _HEAD.size + min(done, length))
    torn[0, page, body] = memory[0, page, body]
    if half_head and done >= length:
        torn[0, page, :8] = memory[0, page, :8]
    assert States(torn).read(0) == b"second" * 20


def test_the_largest_and_one_that_is_larger():
    states = States(pages())
    assert states.write(1, bytes(MAX_STATE_BYTES))
    assert states.read(1) == bytes(MAX_STATE_BYTES)
    assert not states.write(1, bytes(MAX_STATE_BYTES + 1))
    assert states.read(1) is None  # what is old is wrong by now
    assert states.write(1, b"new")
    assert states.read(1) == b"new"


def test_the_ledger_has_room_for_those_who_remember():
    plain = Layout.of(("gate", "yard"), ("track", "scene"))
    layout = Layout.of(("gate", "yard"), ("track", "scene"), states=("scene",))
    assert layout.nbytes - plain.nbytes == pytest.approx(2 * 2 * PAGE_BYTES, abs=64)
    ledger = Ledger.local(layout)
    ledger.states("scene").write(1, b"state")
    assert ledger.states("scene").read(1) == b"state"
    assert ledger.states("scene").read(0) is None
