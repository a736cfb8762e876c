"""The files that a run began with, whatever becomes of them on the disk.

A model is read again whenever inference is replaced, hours after the start. By then its file may be gone,
or another one; and `cp new old` writes into the very file that is open. So what a process reads in
`setup` is copied once, into sealed memory, and every incarnation gets the descriptor of the copy: what
is hashed, loaded and loaded again is the same bytes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence

from pipeline.host import memory
from pipeline.host.refusal import refused

log = logging.getLogger("manyeyes")

_Identity = tuple[int, int, int, int]


class Originals:
    """Copies of some files, by path, until `close`."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Raises ResourceError if a file can't be read, or there is no memory for it."""
        self._copies: dict[str, int] = {}
        self._identities: dict[str, _Identity] = {}
        try:
            self.add(paths)
        except BaseException:
            self.close()
            raise

    def add(self, paths: Iterable[str]) -> None:
        """Keep these, too. Raises ResourceError."""
        for path in dict.fromkeys(paths):
            if path not in self._copies:
                with refused(f"{path}: can't be read at the start of the run"):
                    self._identities[path] = _identity(path)
                    self._copies[path] = _copied(path)

    def fds(self, paths: Iterable[str]) -> list[int]:
        """Of the copies, in this order; they stay ours."""
        return [self._copies[path] for path in paths]

    def tell_changes(self, paths: Sequence[str]) -> None:
        """Log, once for each, which of these files are not any more what they were at the start."""
        for path in paths:
            try:
                changed = _identity(path) != self._identities.get(path)
            except OSError:
                changed = True
            if changed and self._identities.pop(path, None) is not None:
                log.warning(
                    "%s: was replaced, changed or removed since the run began, which goes on with the "
                    "file as it was; start it again to use the new one",
                    path,
                )

    def close(self) -> None:
        """Let go of the copies; calling it again is fine."""
        while self._copies:
            os.close(self._copies.popitem()[1])


def nbytes(paths: Iterable[str]) -> int:
    """Of memory that copies of these files take. Raises OSError."""
    return sum(os.stat(path).st_size for path in dict.fromkeys(paths))


def _identity(path: str) -> _Identity:
    state = os.stat(path)
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def _copied(path: str) -> int:
    with open(path, "rb") as file:
        fd = memory.create(os.path.basename(path), max(1, os.fstat(file.fileno()).st_size))
        try:
            size = 0
            while part := file.read(1 << 20):
                size += os.pwrite(fd, part, size)
            os.ftruncate(fd, size)
            memory.seal(fd, writable=False)
        except BaseException:
            os.close(fd)
            raise
    return fd
