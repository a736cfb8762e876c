"""Standard output and error, whatever is behind them: nobody has to read, and no letter is impossible."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
import threading
from collections import deque

from pipeline.errors import ResourceError

_KEPT_CHARS = 1 << 20  # for a terminal that does not read
_LAST_WORDS_S = 1.0  # for it to read on at the end
_GONE = (errno.EPIPE, errno.EIO)  # a pipe or a terminal without anybody at its other end
_PLAIN = {
    "–": "-", "─": "-", "►": ">", "≤": "<=", "≥": ">=", "×": "x", "…": "...", "→": "->",
    "α": "alpha", "β": "beta", "Σ": "sum",
}  # fmt: skip


def prepare() -> None:
    """Before the first word. What is closed becomes /dev/null, what can't be encoded is spelt out, and
    a reader that goes away is not an error."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets this number, the lowest that is free
    sys.stdout, sys.stderr = _text(1, sys.stdout), _text(2, sys.stderr)


def never_wait() -> tuple[Stream, Stream]:
    """From now on nothing that is written to standard output or error makes its writer wait."""
    sys.stdout, sys.stderr = Stream(1, sys.stdout.encoding), Stream(2, sys.stderr.encoding)
    return sys.stdout, sys.stderr


def finish() -> None:
    """After the last word. Raises ResourceError if it could not be written, to a full disk."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.finish() if isinstance(stream, Stream) else stream.flush()
        except OSError as error:
            sys.stdout = sys.stderr  # or the interpreter tries again
            raise ResourceError(f"standard output can't be written: {error.strerror}") from error


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter, "?") for letter in letters), error.end


codecs.register_error("plain", _plain)


class _Forgiving(io.FileIO):
    def write(self, data: object, /) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return len(data)  # type: ignore[arg-type]


def _text(fd: int, before: object) -> io.TextIOWrapper:
    encoding = getattr(before, "encoding", None) or "utf-8"
    raw = _Forgiving(fd, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, "plain", line_buffering=fd == 2 or os.isatty(fd)
    )


class Stream(io.TextIOBase):
    """A text stream to a file descriptor that neither blocks nor fails; a thread of its own writes.

    What nobody reads is kept, up to a million characters; what comes then is left out, and said to be as
    soon as somebody reads again.
    """

    def __init__(self, fd: int, encoding: str) -> None:
        self._fd, self._encoding = fd, encoding
        self._waiting: deque[str] = deque()
        self._chars = 0
        self._left_out = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._write_all, daemon=True).start()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As standard output had it."""
        return self._encoding

    @property
    def idle(self) -> bool:
        """Everything so far was taken."""
        return not self._chars

    def isatty(self) -> bool:
        """Whether a person may look at it."""
        return os.isatty(self._fd)

    def fileno(self) -> int:
        """To ask for its size, not to write to."""
        return self._fd

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str, /) -> int:
        """Returns at once."""
        with self._changed:
            if self._chars + len(text) > _KEPT_CHARS:
                self._left_out += 1
            else:
                self._keep(self._gap() + text)
        return len(text)

    def _keep(self, text: str) -> None:
        if text:
            self._waiting.append(text)
            self._chars += len(text)
            self._changed.notify_all()

    def _gap(self) -> str:
        n, self._left_out = self._left_out, 0
        return f"[here something was left out, {n} times: nobody read it]\n" if n else ""

    def finish(self) -> None:
        """Wait until all of it is written, one second at most."""
        with self._changed:
            self._keep(self._gap())
            self._changed.wait_for(lambda: self.idle, _LAST_WORDS_S)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                text = self._waiting.popleft()
            self._write(text.encode(self._encoding, "plain"))
            with self._changed:
                self._chars -= len(text)
                self._changed.notify_all()

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # somebody made it so
                threading.Event().wait(0.05)
            except OSError:
                return  # nobody is there, or the disk is full; the run goes on
