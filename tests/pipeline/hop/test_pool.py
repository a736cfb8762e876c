import mmap
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
from patience import BOUND_S

from pipeline.errors import MessageError, ResourceError, TornFrame
from pipeline.hop.pool import PoolReader, PoolWriter, pool_bytes
from pipeline.hop.slots import Slots
from pipeline.host import memory
from pipeline.messages import ArraySpec, SlotRef


@pytest.fixture
def pool():
    fd = memory.create("test", pool_bytes(3, 5000))
    writer = PoolWriter(fd, 3, 5000)
    memory.seal(fd)
    yield fd, writer, PoolReader(fd, 3, 5000)
    os.close(fd)


def spec(shape=(4, 5), offset=0, dtype="|u1"):
    return ArraySpec(dtype=dtype, shape=shape, offset=offset)


def written(writer, value):
    slots = Slots(writer.generations)
    slot = slots.take()
    writer.slot(slot)[:] = value
    generation = slots.ready(slot, {"reader"})
    return slots, SlotRef(pool_epoch=1, slot=slot, generation=generation)


def test_a_reader_sees_what_was_written_without_a_copy(pool):
    _, writer, reader = pool
    _, ref = written(writer, 7)
    (array,) = reader.arrays(ref, [spec()])
    assert (array == 7).all()
    assert array.shape == (4, 5)
    writer.slot(ref.slot)[:] = 8
    assert (array == 8).all()


def test_a_reader_can_neither_write_nor_resize_nor_map_for_writing(pool):
    fd, writer, reader = pool
    _, ref = written(writer, 7)
    (array,) = reader.arrays(ref, [spec()])
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    with pytest.raises(PermissionError):
        mmap.mmap(fd, 4096)
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)


def test_a_slot_that_was_written_again_is_torn(pool):
    _, writer, reader = pool
    slots, ref = written(writer, 7)
    slots.release(ref.slot, ref.generation, "reader")
    assert slots.take() == ref.slot
    with pytest.raises(TornFrame, match="wanted generation 2, got 3"):
        reader.check(ref)
    with pytest.raises(TornFrame):
        reader.arrays(ref, [spec()])


@pytest.mark.parametrize(
    ("ref", "array"),
    [
        (SlotRef(pool_epoch=1, slot=3, generation=0), spec()),
        (SlotRef(pool_epoch=1, slot=0, generation=0), spec(offset=4990)),
        (SlotRef(pool_epoch=1, slot=0, generation=0), spec(shape=(1 << 20,))),
    ],
)
def test_a_descriptor_that_points_outside_is_refused(pool, ref, array):
    with pytest.raises(MessageError):
        pool[2].arrays(ref, [array])


def test_locate_finds_the_slot_of_a_view_and_knows_strangers(pool):
    _, writer, _ = pool
    assert writer.locate(writer.slot(2)[64:128]) == (2, 64)
    assert writer.locate(np.zeros(4)) is None


def test_too_little_memory_is_one_sentence_and_no_sigbus():
    code = (
        "import resource, sys\nfrom pipeline.host import memory\n"
        "from pipeline.errors import ResourceError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "try: memory.create('frames of gate', 1 << 24)\n"
        "except ResourceError as error: print(error); sys.exit(78)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=BOUND_S
    )
    assert done.returncode == 78, done.stderr
    assert "frames of gate: wanted 16 MiB" in done.stdout
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1 << 20
    assert issubclass(ResourceError, Exception)
