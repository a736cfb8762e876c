"""Shared memory: memfd pools of slots, sealed so that only their writer can write.

A pool is one memfd: a page-aligned array of generation words, 64 bytes apart, then the slots, each
page-aligned. The supervisor creates it (so that it outlives any stage and vanishes with the run), the
writer maps it for writing, the supervisor seals it, readers map it read-only. It has no name: nothing
is left after kill -9, and a container's small /dev/shm does not matter.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import MessageError, ResourceError, TornFrame
from pipeline.host.refusal import refused
from pipeline.messages import ArraySpec, SlotRef

_PAGE = mmap.PAGESIZE
_CGROUP = Path("/sys/fs/cgroup")
_WORD_STRIDE = 64  # a cache line, so that two words never share one
# <linux/fcntl.h>; Python 3.11 has no name for the last one
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL | 0x0010  # F_SEAL_FUTURE_WRITE

Bytes = npt.NDArray[np.uint8]


def available_bytes() -> int:
    """What new memory may take: MemAvailable, or less in a container (cgroup v2 or v1)."""
    available = _table("/proc/meminfo").get("MemAvailable:", 1 << 32) * 1024
    for limit, used, stat, cache in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat",
         "total_inactive_file"),
    ):  # fmt: skip
        with contextlib.suppress(OSError, ValueError):  # no such limit, or "max"
            size, taken = (int((_CGROUP / name).read_text()) for name in (limit, used))
            cached = _table(_CGROUP / stat).get(cache, 0)
            available = min(available, max(0, size - taken + cached))
    return available


def _table(path: str | Path) -> dict[str, int]:
    rows = (line.split() for line in Path(path).read_text().splitlines())
    return {row[0]: int(row[1]) for row in rows}


def create(name: str, nbytes: int) -> int:
    """A new memfd of `nbytes`, all of it really there. Returns its file descriptor, close-on-exec.

    Raises ResourceError, instead of a SIGBUS later, if the memory is not to be had.
    """
    with refused(f"shared memory for {name}"):
        fd = os.memfd_create(f"manyeyes-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(fd, 0, nbytes)
    except OSError as error:
        os.close(fd)
        raise ResourceError(
            f"shared memory for {name}: wanted {nbytes / 2**20:.0f} MiB, got {error.strerror}; "
            "use fewer cameras, a smaller max_size, or a machine (container limit) with more memory"
        ) from error
    return fd


def seal(fd: int, *, writable: bool = True) -> None:
    """From now on nobody can resize the memory or map it for writing; the writer's mapping stays.

    Not writable: there is no such mapping, and nobody writes into it in any other way either.
    """
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS if writable else _SEALS | fcntl.F_SEAL_WRITE)


def sealed(name: str, data: bytes) -> int:
    """A new memfd that holds `data` and can't be changed by anybody; the caller closes it.

    Raises ResourceError if the memory is not to be had.
    """
    fd = create(name, len(data))
    os.pwrite(fd, data, 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | _SEALS)
    return fd


def shared(fd: int, nbytes: int) -> Bytes:
    """The first `nbytes` of the memory, for reading and writing: uint8 (nbytes,).

    It stays mapped as long as the array or a view of it lives; the descriptor may be closed. Raises
    ResourceError if the process may not map so much.
    """
    with refused(f"shared memory of {nbytes / 2**20:.0f} MiB"):
        return np.frombuffer(mmap.mmap(fd, nbytes), np.uint8)


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

    def slot(self, index: int) -> Bytes:
        """All bytes of a slot, writable: uint8 (slot_bytes,)."""
        return self._slots[index, : self.slot_bytes]

    def locate(self, array: npt.NDArray[Any]) -> tuple[int, int] | None:
        """(slot, offset in bytes) of an array that lies in this pool; None for any other memory."""
        distance: int = array.__array_interface__["data"][0] - self._base
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
