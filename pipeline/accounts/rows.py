"""Whose the rows of a ledger are: those of who has left go to who comes. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from pipeline.accounts.layout import Layout
from pipeline.errors import ResourceError

_Row = TypeVar("_Row")


class Rows:
    """Of one run. `layout` says who has which now; it is replaced, never changed."""

    def __init__(self, layout: Layout) -> None:
        """layout: of the start; its first rows are taken."""
        self.layout = layout
        counters, histograms = (
            sum(map(len, rows.values())) for rows in (layout.counters, layout.histograms)
        )
        taken = len(layout.cameras), len(layout.processes), counters, histograms
        self._cameras, self._processes, self._counters, self._histograms = (
            deque(range(first, room)) for first, room in zip(taken, layout.room[:4], strict=True)
        )
        self._states = deque(range(len(layout.states), layout.room[5]))

    @property
    def cameras_left(self) -> int:
        """How many more cameras there is room for."""
        return len(self._cameras)

    def add_camera(self, name: str) -> int:
        """The row of a camera that joins; the one that is free for longest. Raises ResourceError."""
        if not self._cameras:
            room = self.layout.room[0]
            raise ResourceError(
                f"camera {name!r}: this run has room for {room} cameras, and none is free; remove one, "
                f"or start the run again with [run] max_cameras above {room}"
            )
        row = self._cameras.popleft()
        self.layout = replace(self.layout, cameras={**self.layout.cameras, name: row})
        return row

    def remove_camera(self, name: str) -> None:
        """Its account is closed, and no process knows it any more."""
        cameras = dict(self.layout.cameras)
        self._cameras.append(cameras.pop(name))
        self.layout = replace(self.layout, cameras=cameras)

    def add_process(
        self,
        name: str,
        counters: Sequence[str] = (),
        histograms: Sequence[str] = (),
        *,
        sink: tuple[int, int] | None = None,
        remembers: bool = False,
    ) -> None:
        """Rows of a process, of its counters and histograms, and of its state; sink: as in the layout.

        Raises ResourceError, and takes nothing.
        """
        layout = self.layout
        taken = {way for way, _ in layout.sinks.values()}
        if sink is not None and (sink[0] in taken or sink[0] >= layout.ways):
            raise ResourceError(
                f"process {name!r}: this run has room for {layout.room[4]} sinks, and none is free; "
                "remove one, and wait until it has what it was promised"
            )
        if (
            not self._processes
            or len(counters) > len(self._counters)
            or len(histograms) > len(self._histograms)
            or (remembers and not self._states)
        ):
            raise ResourceError(
                f"process {name!r}: this run has no room for one more with {len(counters)} counters; "
                "start it again, with a larger [run] max_cameras"
            )
        rows = {counter: self._counters.popleft() for counter in counters}
        durations = {histogram: self._histograms.popleft() for histogram in histograms}
        self.layout = replace(
            layout,
            processes={**layout.processes, name: self._processes.popleft()},
            counters={**layout.counters, name: rows},
            histograms={**layout.histograms, name: durations},
            sinks=layout.sinks if sink is None else {**layout.sinks, name: sink},
            states={**layout.states, name: self._states.popleft()} if remembers else layout.states,
        )

    def change_process(
        self, name: str, counters: Sequence[str], histograms: Sequence[str]
    ) -> tuple[list[int], list[int]]:
        """Other counters and histograms for a process that there is; those that it had keep their rows.

        Returns the rows of those that are new. Raises ResourceError, and takes nothing.
        """
        layout = self.layout
        old = layout.counters.get(name, {}), layout.histograms.get(name, {})
        free, wanted = (self._counters, self._histograms), (counters, histograms)
        for kind, mine, left, names in zip(
            ("counters", "histograms"), old, free, wanted, strict=True
        ):
            if (more := len({*names} - mine.keys())) > len(left):
                raise ResourceError(
                    f"process {name!r}: this run has no room for {more} more {kind}; start it again, "
                    "with a larger [run] max_cameras"
                )
        rows: list[dict[str, int]] = []
        new: list[list[int]] = []
        for mine, left, names in zip(old, free, wanted, strict=True):
            rows.append({n: mine[n] if n in mine else left.popleft() for n in names})
            new.append([row for n, row in rows[-1].items() if n not in mine])
            left.extend(row for n, row in mine.items() if n not in names)
        self.layout = replace(
            layout,
            counters={**layout.counters, name: rows[0]},
            histograms={**layout.histograms, name: rows[1]},
        )
        return new[0], new[1]

    def remove_process(self, name: str) -> None:
        """It is gone for good."""
        layout = self.layout
        self._processes.append(layout.processes[name])
        self._counters.extend(layout.counters.get(name, {}).values())
        self._histograms.extend(layout.histograms.get(name, {}).values())
        self._states.extend([layout.states[name]] if name in layout.states else ())
        self.layout = replace(
            layout,
            processes=_without(layout.processes, name),
            counters=_without(layout.counters, name),
            histograms=_without(layout.histograms, name),
            sinks=_without(layout.sinks, name),
            states=_without(layout.states, name),
        )


def _without(rows: dict[str, _Row], name: str) -> dict[str, _Row]:
    return {key: row for key, row in rows.items() if key != name}
