"""The memory of a writer: a second pool for cameras that come later."""

import os

import numpy as np
import pytest

from pipeline.errors import FrameError
from pipeline.hop.pool import PoolWriter, pool_bytes
from pipeline.hop.storage import Storage
from pipeline.host import memory


def pool(slots, slot_bytes):
    fd = memory.create("storage", pool_bytes(slots, slot_bytes))
    try:
        return PoolWriter(fd, slots, slot_bytes)
    finally:
        os.close(fd)


@pytest.fixture
def storage():
    made = Storage("preprocess")
    made.add(7, pool(2, 64))
    return made


def published(storage):
    """The reference of a slot that "reader" holds."""
    slot, _ = storage.take()
    ref = storage.ref(slot)
    storage.publish(ref, {"reader"})
    return ref


def test_without_memory_nothing_can_be_taken_and_nothing_is_missing():
    empty = Storage("postprocess")
    assert empty.free_slots > 1000
    assert not empty.has_memory
    with pytest.raises(FrameError, match="postprocess: this process has no pool"):
        empty.take()


def test_slots_of_both_pools_are_given_out_and_come_back_to_their_own(storage):
    storage.add(9, pool(1, 64))
    refs = [published(storage) for _ in range(3)]
    assert [ref.pool_epoch for ref in refs] == [7, 7, 9]
    assert (storage.take(), storage.free_slots, storage.leased) == (None, 0, 3)
    for ref in refs:
        storage.release(ref, "reader")
        storage.release(ref, "reader")  # once more is nothing
    assert (storage.free_slots, storage.leased) == (3, 0)
    assert {published(storage).pool_epoch for _ in range(3)} == {7, 9}


def test_where_larger_slots_came_smaller_ones_are_not_taken_any_more(storage):
    held = published(storage)
    storage.add(9, pool(2, 128))
    assert storage.free_slots == 2
    assert [published(storage).pool_epoch for _ in range(2)] == [9, 9]
    assert storage.take() is None
    storage.release(held, "reader")  # it comes back, and stays unused
    assert storage.free_slots == 0


def test_an_array_is_found_in_the_pool_that_it_lies_in(storage):
    storage.add(9, pool(1, 64))
    arrays = [storage.empty((4, 4), np.uint8) for _ in range(3)]
    slots = [storage.place([array[:2]])[0] for array in arrays]  # a part of what was made
    assert [slot[0] for slot in slots] == [7, 7, 9]
    storage.cancel()
    assert storage.free_slots == 3
