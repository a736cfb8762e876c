"""When the slots that a dead process had passed on may be written again. Pure.

The batcher passes on slots of preprocess that the workers read, and the leases are in its name. When it
dies they can't end with it: a worker may be in the middle of a batch. So the supervisor asks the readers
behind it ("settle"). Each refuses what still comes from the dead process, and says "settled" when it holds
nothing of it any more; one that dies holds nothing either. After the last one the writers are told, and
only then the leases end. There is no timer: a reader that hangs is killed as any process that hangs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

Dead = TypeVar("Dead")


class Settling(Generic[Dead]):
    """Who is waited for, for each dead process."""

    def __init__(self) -> None:
        self._readers: dict[Dead, set[str]] = {}

    def begin(self, dead: Dead, readers: Iterable[str]) -> None:
        """These (at least one) may hold slots that the dead process passed on."""
        self._readers[dead] = set(readers)

    def said(self, reader: str, dead: Dead) -> list[Dead]:
        """A reader holds nothing of it any more. Returns what is settled by that: `dead` or nothing."""
        return self._without(reader, [dead])

    def died(self, reader: str) -> list[Dead]:
        """A reader died. Returns what is settled by that."""
        return self._without(reader, list(self._readers))

    def _without(self, reader: str, dead: Iterable[Dead]) -> list[Dead]:
        settled = []
        for one in dead:
            waited_for = self._readers.get(one, set())
            if reader in waited_for:
                waited_for.remove(reader)
                if not waited_for:
                    del self._readers[one]
                    settled.append(one)
        return settled
