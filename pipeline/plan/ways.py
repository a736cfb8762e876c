"""Which way of the ledger each sink has: it keeps it while it runs, and gets it again if it comes back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count

from pipeline.accounts.layout import PATHS


def ways_of(
    sinks: Iterable[str], before: Mapping[str, int], room: int | None = None
) -> dict[str, int]:
    """By name, those that are gone first, and of these the one that went first.

    before: the same as it was; room: for so many sinks there is a way, None: for any number. Who is new
    gets one that nobody had, if there is one, since somebody who goes needs his own for a while.
    """
    wanted = dict.fromkeys(sinks)
    gone = {name: way for name, way in before.items() if name not in wanted}
    ways = {name: before[name] for name in wanted if name in before}
    for name in wanted:
        if name in ways:
            continue
        taken = {*ways.values(), *gone.values()}
        way = next(n for n in count(len(PATHS)) if n not in taken)
        if gone and room is not None and way >= len(PATHS) + room:
            way = gone.pop(next(iter(gone)))
        ways[name] = way
    return gone | ways
