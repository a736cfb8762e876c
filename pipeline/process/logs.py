"""What is said over and over is said sparingly: a full disk has something to say for every frame."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

_FIRST = 3  # alike messages that are all shown
_EVERY_S = 10.0  # then one in so many seconds, which says how many were left out
_KINDS = 256  # that are remembered; beyond them all begin anew


@dataclass
class _Kind:
    """Messages that differ in numbers alone."""

    shown: int = 0
    shown_at_s: float = 0.0
    left_out: int = 0


class Sparingly(logging.Filter):
    """For a handler. Messages are alike if they differ in their numbers only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show it; one that comes after others says how many were not shown."""
        text = record.getMessage()
        key = re.sub(r"\b\d+\b", "#", text)  # and not the number in a name such as cam7
        if key not in self._kinds and len(self._kinds) >= _KINDS:
            self._kinds.clear()
        kind = self._kinds.setdefault(key, _Kind())
        now_s = self._clock()
        if kind.shown >= _FIRST and now_s - kind.shown_at_s < _EVERY_S:
            kind.left_out += 1
            return False
        if kind.left_out:
            record.msg, record.args = f"{text} (and {kind.left_out} more like it)", ()
        kind.shown, kind.shown_at_s, kind.left_out = kind.shown + 1, now_s, 0
        return True
