"""Delivery: a thread for each target, which takes its messages out of the outbox in their order."""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import traceback
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from queue import SimpleQueue

from pipeline.errors import ConfigError
from stages.sinks.alarms import age
from stages.sinks.alarms.outbox import Message, Reader
from stages.sinks.alarms.pictures import Pictures
from stages.sinks.alarms.rules import Rule
from stages.sinks.alarms.target import NotDelivered, Target

log = logging.getLogger("manyeyes")

PAUSES_S = 0.5, 30.0  # after the first attempt that fails, and the longest


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one."""

    message: Message
    taken: bool
    seconds: float = 0.0  # from the picture to the answer, if it was taken


class Courier(threading.Thread):
    """Delivers to one target, one message at a time, each until it is taken or given up."""

    def __init__(
        self,
        target: Target,
        rules: Sequence[Rule],
        path: str,
        attempts: SimpleQueue[Attempt],
        pictures: str | None = None,
        pauses_s: tuple[float, float] = PAUSES_S,
    ) -> None:
        super().__init__(name=f"target {target.name}", daemon=True)
        self._pictures = Pictures(pictures, target.picture)
        self._target, self._path, self._attempts = target, path, attempts
        self._rules = [rule for rule in rules if target.name in rule.to]
        self._new, self._again = threading.Event(), threading.Event()
        self._is_over = False
        self._after = 0  # the place of what was taken last
        self._first_s, self._longest_s = pauses_s
        self._pause_s = 0.0  # the last

    def wake(self) -> None:
        """There is something new in the outbox. From any thread."""
        self._new.set()

    def end(self) -> None:
        """After the attempt that it is in now, it ends."""
        self._is_over = True
        self._new.set()
        self._again.set()

    def run(self) -> None:
        """The thread."""
        is_open = False
        while True:
            self._new.clear()
            self._again.clear()
            if self._is_over:  # asked only now: the clearing would else forget a call of `end`
                break
            try:
                if not is_open:
                    self._target.open(self._rules, self._again.set)
                    is_open = True
                self._deliver_all()
            except Exception as error:  # whatever it is, it is the affair of this target alone
                log.warning("target %r: %s", self._target.name, _told(error))
                # half of it by chance: many who lost the same broker do not come back all at once
                self._pause_s = min(2 * self._pause_s or self._first_s, self._longest_s)
                self._again.wait(self._pause_s * random.uniform(0.5, 1.0))
            else:
                self._new.wait()
        if is_open:
            self._target.close()

    def _deliver_all(self) -> None:
        """Until nothing waits. Raises NotDelivered, sqlite3.Error, or what nobody has thought of."""
        with closing(Reader(self._path, self._target.name)) as reader:
            while not self._is_over and (message := reader.next(self._after)) is not None:
                self._deliver(message)

    def _deliver(self, message: Message) -> None:
        try:
            picture = self._pictures.of(message)
            self._target.deliver(message.id, message.document, picture)
        except Exception:
            self._attempts.put(Attempt(message, taken=False))
            raise
        seconds = age.seconds_since(message.t_capture_ns, message.t_wall_ns, message.boot)
        self._after, self._pause_s = message.seq, 0.0
        self._attempts.put(Attempt(message, taken=True, seconds=seconds))


def _told(error: Exception) -> str:
    """Of an error that nobody has thought of only what it is and where: its text may hold a secret."""
    if isinstance(error, NotDelivered | sqlite3.Error | ConfigError):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {where.name}, {where.filename}:{where.lineno}"
