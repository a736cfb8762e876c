"""What the processes of a run say on standard error: whole lines, and each kind of line a few times.

The children write into a pipe that is always read, so that none of them ever waits for a terminal or dies
of one that is gone.
"""

from __future__ import annotations

import logging
import os
import re
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.host.refusal import refused

AT_MOST = 5  # lines of a kind …
WINDOW_S = 60.0  # … within this time
_KINDS = 1000  # that are told apart
_LAST_WORDS_S = 1.0
_NUMBER = re.compile(r"0x[0-9a-f]+|(?<![\w'-])\d[\d.,]*(?![\w'-])")  # not those of names


@dataclass(slots=True)
class _Kind:
    line: str  # the last one
    since_s: float
    seen: int = 0


class Repeats:
    """Which lines to pass on: of those that are equal but for numbers, so many within a minute.

    Pure; the caller has the clock. A line that is indented belongs to the one before it.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}
        self._passes = True

    def take(self, line: str, now_s: float) -> list[str]:
        """The lines to pass on now: this one or not, and how many others were not, a minute later."""
        said = self.due(now_s)
        if line[:1].isspace():
            return [*said, line] if self._passes else said
        key = _NUMBER.sub("#", line)
        if key not in self._kinds and len(self._kinds) >= _KINDS:
            said += self._end(next(iter(self._kinds)))
        kind = self._kinds.setdefault(key, _Kind(line, now_s))
        kind.line = line
        kind.seen += 1
        self._passes = kind.seen <= AT_MOST
        return [*said, line] if self._passes else said

    def due(self, now_s: float) -> list[str]:
        """What to say of the kinds whose minute is over."""
        over = [key for key, kind in self._kinds.items() if now_s - kind.since_s >= WINDOW_S]
        return [line for key in over for line in self._end(key)]

    def rest(self) -> list[str]:
        """What is left to say at the end."""
        return [line for key in list(self._kinds) for line in self._end(key)]

    def _end(self, key: str) -> list[str]:
        kind = self._kinds.pop(key)
        more = kind.seen - AT_MOST
        return [f"[{more} more like this, the last one:] {kind.line}"] if more > 0 else []


class Chatter(logging.Handler):
    """Takes the log of this process and the standard error of its children."""

    def __init__(self, say: Callable[[str], object]) -> None:
        """say: called with one line at a time, without its end, from several threads; may not block."""
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s manyeyes: %(message)s"))
        self._say, self._repeats = say, Repeats()
        self._ours, self.descriptor = os.pipe()  # the second one is for the children
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        for line in self.format(record).splitlines():
            self.take(line)

    def take(self, line: str) -> None:
        """Say it, if it was not said too often."""
        with self.lock:  # type: ignore[union-attr]  # there is one
            for said in self._repeats.take(line, time.monotonic()):
                self._say(said)

    def close(self) -> None:
        """To be called when the children are dead: what they had to say is said when this returns."""
        os.close(self.descriptor)
        self._thread.join(_LAST_WORDS_S)  # a process of a stage may live on and keep the pipe
        with self.lock:  # type: ignore[union-attr]
            for line in self._repeats.rest():
                self._say(line)
        super().close()

    def _listen(self) -> None:
        poller = select.poll()
        poller.register(self._ours, select.POLLIN)
        begun = b""
        while True:
            if not poller.poll(1000):
                with self.lock:  # type: ignore[union-attr]
                    for said in self._repeats.due(time.monotonic()):
                        self._say(said)
                continue
            data = os.read(self._ours, 1 << 16)
            *lines, begun = (begun + data).split(b"\n")
            if not data and begun:
                lines.append(begun)
            for line in lines:
                self.take(line.decode(errors="replace"))
            if not data:
                os.close(self._ours)
                return


@contextmanager
def listening(say: Callable[[str], object]) -> Iterator[Chatter]:
    """Within, the log of this process goes there, too; `descriptor` is for the children."""
    with refused("a pipe for what the processes say"):
        chatter = Chatter(say)
    log = logging.getLogger()
    log.addHandler(chatter)
    try:
        yield chatter
    finally:
        log.removeHandler(chatter)
        chatter.close()
