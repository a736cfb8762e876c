"""What became of each camera's frames in each minute: so little that it can be kept for a month."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.messages import Result
from pipeline.runtime import Runtime

MINUTE_NS = 60_000_000_000
_LOOK_S = 1.0  # between two looks at the ledger
_WRITE_S = 10.0  # between two writes: what a crash costs
_MOST = 10_000  # that wait for a disk that is full; the oldest go


@dataclass(slots=True)
class _Minute:
    served: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    found: int = 0
    missed: tuple[float, str] = (0.0, "")


class Minutes:
    """Adds up in memory, and writes what is new now and then. A camera without frames has a row, too."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._new: defaultdict[tuple[int, str], _Minute] = defaultdict(_Minute)
        self._below: dict[str, int] = {}  # ids of frames that are counted
        self._look_at_s = 0.0
        self._write_at_s = time.monotonic() + _WRITE_S

    def see(self, result: Result) -> None:
        """One result with frames."""
        minute = self._new[result.info.t_wall_ns // MINUTE_NS, result.info.camera]
        minute.found += len(result.detections)
        if result.missed is not None:
            label, score = result.missed
            known = self._classes[label] if label < len(self._classes) else str(label)
            minute.missed = max(minute.missed, (score, known))

    def look(self, runtime: Runtime) -> None:
        """At what became of frames since the last look."""
        if time.monotonic() < self._look_at_s:
            return
        self._look_at_all(runtime)
        while len(self._new) > _MOST:
            del self._new[next(iter(self._new))]

    def leave(self, runtime: Runtime, camera: str) -> None:
        """A last look at one that leaves."""
        self._look_at(runtime, camera, time.time_ns() // MINUTE_NS)
        del self._below[camera]

    def _look_at_all(self, runtime: Runtime) -> None:
        self._look_at_s = time.monotonic() + _LOOK_S
        for camera in runtime.cameras:
            self._look_at(runtime, camera, time.time_ns() // MINUTE_NS)

    def _look_at(self, runtime: Runtime, camera: str, now: int) -> None:
        # one that is new here begins now: what was before is the row's of who was here before
        since = self._below.setdefault(camera, runtime.camera(camera).frames)
        fates = runtime.fates(camera, since)
        self._below[camera] = fates.below
        minute = self._new[now, camera]
        minute.served += fates.served
        minute.dropped.update(fates.dropped)

    @property
    def is_due(self) -> bool:
        """Whether it is time to write."""
        return bool(self._new) and time.monotonic() >= self._write_at_s

    def end(self, runtime: Runtime) -> None:
        """A last look, since no frame is under way any more; all that is left is due."""
        self._look_at_all(runtime)
        self._write_at_s = 0.0

    def write(self, db: sqlite3.Connection) -> None:
        """Add to the rows that are there, within the transaction of the caller."""
        self._write_at_s = time.monotonic() + _WRITE_S
        for (at, camera), new in self._new.items():
            known = db.execute(
                "SELECT served, dropped, found, missed, missed_label FROM minute "
                "WHERE (minute, camera) = (?, ?)", (at, camera),
            ).fetchone()  # fmt: skip
            served, dropped, found, *missed = known or (0, "{}", 0, 0.0, "")
            score, label = max(tuple(missed), new.missed)
            row = (
                at, camera, served + new.served,
                json.dumps(Counter(json.loads(dropped)) + new.dropped), found + new.found, score, label,
            )  # fmt: skip
            db.execute("INSERT OR REPLACE INTO minute VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def forget(self) -> None:
        """What was written."""
        self._new.clear()
