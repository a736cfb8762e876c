"""What the host refuses, as one sentence that says what to do about it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import ManyeyesError, ResourceError
from pipeline.redaction import shown

_FILES = "raise the limit of open files (ulimit -n), or use fewer cameras"
_MEMORY = "use fewer cameras, or raise the limit of memory (ulimit -v, or the container's)"
_PROCESSES = (
    "raise the limit of processes (ulimit -u, or the container's pids), or use fewer cameras"
)
_DISK = "make room on that disk, and inodes; or name a folder on another one"
_WRITABLE = "name a folder that can be written"
_ADVICE = {
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOMEM: _MEMORY,
    errno.EAGAIN: _PROCESSES,
    errno.ENOSPC: _DISK,
    errno.EDQUOT: _DISK,
    errno.EROFS: _WRITABLE,
    errno.EACCES: _WRITABLE,
    errno.EPERM: _WRITABLE,
    errno.ENAMETOOLONG: "name a shorter path",
}
_NO_THREAD = "can't start new thread"


@contextmanager
def refused(what: str) -> Iterator[None]:
    """What the system refuses within becomes a ResourceError: `what`, why, and what to do."""
    try:
        yield
    except ManyeyesError:
        raise
    except (OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and str(error) != _NO_THREAD:
            raise
        raise ResourceError(f"{what}: {sentence(error)}") from error


def sentence(error: OSError | MemoryError | RuntimeError) -> str:
    """Why, and what to do."""
    if isinstance(error, RuntimeError):
        return f"no more threads; {_PROCESSES}"
    if isinstance(error, MemoryError):
        return f"{os.strerror(errno.ENOMEM)}; {_MEMORY}"
    advice = _ADVICE.get(error.errno or 0, "")
    is_of_path = error.filename is not None and advice not in (_FILES, _MEMORY, _PROCESSES)
    where = f" ({shown(os.fsdecode(error.filename))!r})" if is_of_path else ""
    return f"{error.strerror or error}{where}{advice and f'; {advice}'}"
