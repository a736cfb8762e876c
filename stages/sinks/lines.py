"""Files of lines that stay whole whatever is killed, and the time in them."""

from __future__ import annotations

import errno
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.errors import FrameError, ResourceError
from stages.sinks.files import check_folder, is_at, make_folder

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BLOCK_BYTES = 1 << 16


class LinesFile:
    """A file that lines are appended to; one that was renamed or deleted gets a successor.

    sink: whose it is, for the words of errors.
    """

    def __init__(self, sink: str, path: str) -> None:
        self._sink, self._path = sink, Path(path)
        self._fd = -1
        self._tail = b""  # the last lines of who wrote before

    def check(self) -> None:
        """Raises ResourceError if the file can't be made or written. Leaves nothing."""
        sink, path = self._sink, self._path
        if path.is_dir():
            raise ResourceError(f"sink {sink}: wanted a file at {path}, got a folder; name a file")
        check_folder(sink, path.parent)
        if path.exists() and not os.access(path, os.W_OK):
            raise ResourceError(f"sink {sink}: the file {path} is not writable; change its mode")

    def open(self) -> None:
        """Make it and its folder, and cut what a killed writer left after the last whole line."""
        self.check()
        make_folder(self._sink, self._path.parent)
        try:
            self._open()
        except OSError as error:
            raise ResourceError(
                f"sink {self._sink}: {self._path} can't be opened ({error.strerror}); "
                "choose another path"
            ) from error

    def append(self, lines: bytes) -> None:
        """In one write. Raises FrameError if the disk does not take them whole; the next may be taken.

        What a killed writer wrote last comes again, to the byte, if it could not say so: it stays once.
        """
        try:
            if self._fd < 0:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._open()
            if self._tail.endswith(lines):
                return
            if os.write(self._fd, lines) != len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self.close()  # whoever opens it again cuts what was written of the line
            raise FrameError(
                f"sink {self._sink}: {self._path} can't be written ({error.strerror}); make room"
            ) from error

    def follow(self) -> None:
        """Let go of a file that is not at its path any more: a rotated log, a deleted one."""
        if self._fd >= 0 and not is_at(self._fd, str(self._path)):
            self.close()

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o644)
        if stat.S_ISREG(os.fstat(self._fd).st_mode):
            self._tail = _cut_torn_tail(self._fd)


def utc(t_wall_ns: int) -> str:
    """Since 1970 in ns, as UTC with microseconds; in integers, so that nothing is rounded up."""
    moment = _EPOCH + timedelta(microseconds=t_wall_ns // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _cut_torn_tail(fd: int) -> bytes:
    """Remove the bytes after the last newline; reads from the end only as far as needed.

    Returns the end of what is left, as much as the lines of one result may take.
    """
    end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    os.ftruncate(fd, end)
    start = max(0, end - _BLOCK_BYTES)
    return os.pread(fd, end - start, start)
