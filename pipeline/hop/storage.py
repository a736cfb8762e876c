"""The memory that a process writes its results into: its pools, and the slots that are open."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from operator import is_
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.errors import FrameError
from pipeline.hop.pool import PoolWriter
from pipeline.hop.slots import Slots
from pipeline.host.memory import Bytes
from pipeline.messages import ArraySpec, SlotRef, copies, lay_out

Slot = tuple[int, int]  # the epoch of its pool, its number in it


class _Place(NamedTuple):
    """The arrays that were made in a slot."""

    arrays: tuple[npt.NDArray[Any], ...]
    specs: tuple[ArraySpec, ...]


class _Own(NamedTuple):
    pool: PoolWriter
    slots: Slots


_NOTHING = _Place((), ())


class Storage:
    """One pool from the start, and one more for cameras that come later. One thread, but `empty`."""

    def __init__(self, process: str) -> None:
        """process: whose it is, for errors. It has no memory before the first `add`."""
        self._process = process
        self._pools: dict[int, _Own] = {}  # by epoch
        self._in_use: dict[int, _Own] = {}  # those that slots are taken from
        self._open: dict[Slot, _Place] = {}  # given out and not yet published

    def add(self, pool_epoch: int, pool: PoolWriter) -> None:
        """One pool more. Those whose slots are smaller are not used any more: one size fits all."""
        own = self._pools[pool_epoch] = _Own(pool, Slots(pool.generations))
        same = {k: v for k, v in self._in_use.items() if v.pool.slot_bytes >= pool.slot_bytes}
        self._in_use = {**same, pool_epoch: own}

    @property
    def has_memory(self) -> bool:
        """There is a pool."""
        return bool(self._pools)

    @property
    def free_slots(self) -> int:
        """How many results can be written now."""
        if not self._in_use:
            return 1 << 30
        free = 0
        for own in self._in_use.values():  # no generator: this is asked for each frame
            free += own.slots.free
        return free

    @property
    def leased(self) -> int:
        """Slots that somebody holds."""
        return sum(own.slots.leased for own in self._pools.values())

    def take(self) -> tuple[Slot, Bytes] | None:
        """A free slot and all its bytes, to be published or given back; None: none is free."""
        if not self._pools:
            raise FrameError(f"{self._process}: this process has no pool; set slot_bytes()")
        for pool_epoch, own in self._in_use.items():
            if (index := own.slots.take()) is not None:
                slot = pool_epoch, index
                self._open[slot] = _NOTHING
                return slot, own.pool.slot(index)
        return None

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """See runtime.Runtime.empty."""
        kind = np.dtype(dtype)
        slot, buffer = self._take(int(np.prod(shape)) * kind.itemsize)
        array = buffer.view(kind).reshape(shape)
        self._open[slot] = _Place((array,), (ArraySpec(kind.str, array.shape, 0),))
        return array

    def pack(self, arrays: Sequence[npt.NDArray[Any]]) -> tuple[npt.NDArray[Any], ...]:
        """See runtime.Runtime.pack."""
        specs = lay_out(arrays)
        slot, buffer = self._take(specs[-1].end)
        place = self._open[slot] = _Place(copies(arrays, specs, buffer), specs)
        return place.arrays

    def cancel(self) -> None:
        """Give back every slot that was taken and not published."""
        while self._open:
            (pool_epoch, index), _ = self._open.popitem()
            self._pools[pool_epoch].slots.cancel(index)

    def give_back(self, slot: Slot) -> None:
        """A slot that was taken and not published."""
        del self._open[slot]
        self._pools[slot[0]].slots.cancel(slot[1])

    def place(
        self, arrays: Sequence[npt.NDArray[Any]]
    ) -> tuple[Slot | None, tuple[ArraySpec, ...]]:
        """The slot in which all arrays lie, copied there if need be, and where each lies."""
        if not arrays or not self._pools:
            return None, ()
        for slot, place in self._open.items():
            if len(place.arrays) == len(arrays) and all(map(is_, place.arrays, arrays)):
                return slot, place.specs
        places = [self._locate(array) for array in arrays]
        slots = {place[0] for place in places if place is not None}
        if None in places or len(slots) != 1 or not all(a.flags.c_contiguous for a in arrays):
            return self.place(self.pack(arrays))
        specs = tuple(
            ArraySpec(array.dtype.str, array.shape, place[1])
            for array, place in zip(arrays, places, strict=True)
            if place is not None
        )
        return slots.pop(), specs

    def ref(self, slot: Slot) -> SlotRef:
        """An open slot as its readers will know it."""
        pool_epoch, index = slot
        return SlotRef(pool_epoch, index, self._pools[pool_epoch].slots.generation(index) + 1)

    def publish(self, ref: SlotRef, holders: set[Hashable]) -> None:
        """Lease an open slot to `holders` (at least one; kept)."""
        pool_epoch, index, _ = ref
        del self._open[pool_epoch, index]
        self._pools[pool_epoch].slots.ready(index, holders)

    def share(self, ref: SlotRef, holder: Hashable) -> None:
        """One holder more, if the slot is still what it was."""
        self._pools[ref.pool_epoch].slots.share(ref.slot, ref.generation, holder)

    def release(self, ref: SlotRef, holder: Hashable) -> None:
        """A holder is through with it; the last one frees it."""
        self._pools[ref.pool_epoch].slots.release(ref.slot, ref.generation, holder)

    def _take(self, nbytes: int) -> tuple[Slot, Bytes]:
        """A slot and its first `nbytes`. Raises FrameError."""
        taken = self.take()
        if taken is None:
            raise FrameError(f"{self._process}: no free slot for another result of this call")
        slot, buffer = taken
        if nbytes > len(buffer):
            raise FrameError(
                f"{self._process}: a result of {nbytes} bytes does not fit a slot of {len(buffer)}; "
                "raise slot_bytes() or the camera's max_size"
            )
        return slot, buffer[:nbytes]

    def _locate(self, array: npt.NDArray[Any]) -> tuple[Slot, int] | None:
        """The slot in which an array lies, and its offset there in bytes; None for other memory."""
        for pool_epoch, own in self._pools.items():
            if (found := own.pool.locate(array)) is not None:
                return (pool_epoch, found[0]), found[1]
        return None
