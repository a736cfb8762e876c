"""What of the way to a CUDA device can be seen without one."""

import os

import numpy as np
import pytest

from pipeline.hop.pool import PoolReader, PoolWriter, pool_bytes
from pipeline.hop.slots import Slots
from pipeline.host import memory
from pipeline.messages import ArraySpec, SlotRef
from stages.detector.cuda import memory_of

SHAPE = (32, 64, 3)


@pytest.fixture
def pictures():
    """Views of two slots, as inference gets them."""
    size = pool_bytes(2, 32 * 64 * 3)
    fd = memory.create("test", size)
    writer = PoolWriter(fd, 2, 32 * 64 * 3)
    memory.seal(fd)
    reader = PoolReader(fd, 2, 32 * 64 * 3)
    os.close(fd)
    slots = Slots(writer.generations)
    views = []
    for value in (3, 4):
        slot = slots.take()
        writer.slot(slot)[:] = value
        ref = SlotRef(pool_epoch=1, slot=slot, generation=slots.ready(slot, {"reader"}))
        views += reader.arrays(ref, [ArraySpec(dtype="|u1", shape=SHAPE, offset=0)])
    return size, views


def test_pictures_of_a_pool_share_one_mapping_in_which_they_lie(pictures):
    size, views = pictures
    found = [memory_of(view) for view in views]
    assert found[0] == found[1]
    owner, address, n_bytes = found[0]
    assert n_bytes == size
    whole = np.frombuffer(owner, np.uint8)
    for view in views:
        start = view.ctypes.data - address
        assert np.array_equal(whole[start : start + view.nbytes].reshape(SHAPE), view)


def test_a_part_of_a_picture_lies_there_too(pictures):
    _, views = pictures
    assert memory_of(views[0][4:8]) == memory_of(views[1])


def test_memory_of_its_own_is_not_worth_it():
    assert memory_of(np.zeros(SHAPE, np.uint8)) is None
    assert memory_of(np.zeros((2, *SHAPE), np.uint8)[1]) is None
    assert memory_of(np.frombuffer(bytes(6144), np.uint8).reshape(SHAPE)) is None
