"""Pools of slots in shared memory, sealed so that only their writer can write.

A pool is one memfd: a page-aligned array of generation words, 64 bytes apart, then the slots, each
page-aligned. The supervisor creates it (so that it outlives any stage and vanishes with the run), the
writer maps it for writing, the supervisor seals it, readers map it read-only.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import MessageError, TornFrame
from pipeline.host.memory import Bytes
from pipeline.messages import ArraySpec, SlotRef

_PAGE = mmap.PAGESIZE
_WORD_STRIDE = 64  # a cache line, so that two words never share one


def pool_bytes(slots: int, slot_bytes: int) -> int:
    """Size of a pool of `slots` slots of `slot_bytes` each."""
    return _up(slots * _WORD_STRIDE) + slots * _up(slot_bytes)


class _Pool:
    def __init__(self, fd: int, slots: int, slot_bytes: int, *, writable: bool) -> None:
        size = pool_bytes(slots, slot_bytes)
        # pre-faulted: a page fault for each page of the first frames would cost more than the copy
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._map = mmap.mmap(fd, size, flags=flags, prot=access)
        everything: Bytes = np.frombuffer(self._map, np.uint8, size)
        words = everything[: slots * _WORD_STRIDE].view(np.uint64)
        # (slots,) one aligned 8-byte store each
        self.generations = memoryview(words.data)[:: _WORD_STRIDE // 8]
        self._first = _up(slots * _WORD_STRIDE)
        self._slots = everything[self._first :].reshape(slots, _up(slot_bytes))
        self._stride = _up(slot_bytes)
        self.slot_bytes = slot_bytes

    def __len__(self) -> int:
        return len(self._slots)


class PoolWriter(_Pool):
    """The writer's side. To be made before the pool is sealed."""

    def __init__(self, fd: int, slots: int, slot_bytes: int) -> None:
        super().__init__(fd, slots, slot_bytes, writable=True)
        self._base = self._slots.ctypes.data
        self._views = [slot[:slot_bytes] for slot in self._slots]

    def slot(self, index: int) -> Bytes:
        """All bytes of a slot, writable: uint8 (slot_bytes,)."""
        return self._views[index]

    def locate(self, array: npt.NDArray[Any]) -> tuple[int, int] | None:
        """(slot, offset in bytes) of an array that lies in this pool; None for any other memory."""
        distance: int = array.ctypes.data - self._base
        if not 0 <= distance < self._slots.nbytes:
            return None
        return divmod(distance, self._stride)


class PoolReader(_Pool):
    """A reader's side: read-only views, checked against the generation."""

    def __init__(self, fd: int, slots: int, slot_bytes: int) -> None:
        super().__init__(fd, slots, slot_bytes, writable=False)
        # of each slot, for the specs that were last seen in it: a camera's frames are all alike
        self._views: list[tuple[Sequence[ArraySpec], list[npt.NDArray[Any]]]] = [((), [])] * slots

    def arrays(self, ref: SlotRef, specs: Sequence[ArraySpec]) -> list[npt.NDArray[Any]]:
        """Read-only views of the arrays in a slot.

        Raises TornFrame if the slot holds something else by now, MessageError if an array does not lie
        inside the slot.
        """
        self.check(ref)
        known, views = self._views[ref.slot]
        if known is not specs and known != specs:  # those of two cameras are equal
            views = [self._view(ref.slot, spec) for spec in specs]
            self._views[ref.slot] = specs, views
        return views

    def _view(self, slot: int, spec: ArraySpec) -> npt.NDArray[Any]:
        if spec.end > self.slot_bytes:
            raise MessageError(
                f"array of {spec.nbytes} bytes at {spec.offset} in a slot of {self.slot_bytes}"
            )
        start = self._first + slot * self._stride + spec.offset
        return np.ndarray(spec.shape, spec.dtype, self._map, start)

    def check(self, ref: SlotRef) -> None:
        """To be called again after the last read. Raises TornFrame if the slot was written since."""
        if ref.slot >= len(self):
            raise MessageError(f"slot {ref.slot} of a pool of {len(self)}")
        if (now := self.generations[ref.slot]) != ref.generation:
            raise TornFrame(
                f"slot {ref.slot} of pool {ref.pool_epoch}: wanted generation {ref.generation}, got {now}"
            )


def _up(nbytes: int) -> int:
    return -(-nbytes // _PAGE) * _PAGE
