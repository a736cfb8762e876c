"""Memory: how much there is to be had, and memfd, which is shared by who is given its descriptor.

The supervisor makes it, so that it outlives any stage and vanishes with the run. It has no name: nothing is
left after kill -9, and a container's small /dev/shm does not matter.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import ResourceError
from pipeline.host import cgroup
from pipeline.host.refusal import refused

# <linux/fcntl.h>; Python 3.11 has no name for the last one
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL | 0x0010  # F_SEAL_FUTURE_WRITE

Bytes = npt.NDArray[np.uint8]


def available_bytes() -> int:
    """What new memory may take: MemAvailable, or less in a container (cgroup v2 or v1)."""
    available = _table("/proc/meminfo").get("MemAvailable:", 1 << 32) * 1024
    files = (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    )
    for folder, left in cgroup.left("memory", *files):
        stat = _table(folder / "memory.stat")
        cached = stat.get("total_inactive_file", stat.get("inactive_file", 0))
        available = min(available, left + cached)
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
