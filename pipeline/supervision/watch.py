"""Whether a file was edited. It is looked at by its facts; a change counts when it has come to rest."""

from __future__ import annotations

import os
from pathlib import Path

_EVERY_S = 0.25

_Facts = tuple[int, int, int] | None  # inode, bytes, time of the last change; None: it is not there


class Watch:
    """Of one file, as it is from now on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = self._seen = self._facts()
        self._due_s = 0.0

    def edited(self, now_s: float) -> bool:
        """Whether it is another one than at the last True, and was so a quarter of a second ago, too.

        One that is gone is none: editors put another file in the place of the old one.
        """
        if now_s < self._due_s:
            return False
        self._due_s = now_s + _EVERY_S
        facts, before = self._facts(), self._seen
        self._seen = facts
        if facts is None or facts != before or facts == self._known:
            return False
        self._known = facts
        return True

    def _facts(self) -> _Facts:
        try:
            state = os.stat(self._file)
        except OSError:
            return None
        return state.st_ino, state.st_size, state.st_mtime_ns
