"""Who may touch a slot: generations and leases of one pool, kept by its only writer. No I/O.

    FREE ──take──► WRITING ──ready──► READY ──last release──► FREE
                   generation odd     generation even

Only the writer changes a state, so nothing is shared but the generation words: a reader compares the
word with the generation it was told, before it reads and after. A reader's lease is given by the
message that carries the slot and taken back by its DONE, or by the news of its death.
"""

from __future__ import annotations

from collections.abc import Hashable, MutableSequence
from threading import Lock
from typing import Any


class Slots:
    """The accounts of one pool. Thread-safe: a camera's reader thread takes, its runner releases."""

    def __init__(self, generations: MutableSequence[int] | Any) -> None:
        """generations: one integer a slot, shared with the readers; all even (nothing is written)."""
        self._generations = generations
        self._free = list(range(len(generations)))[::-1]
        self._holders: dict[int, set[Hashable]] = {}
        self._lock = Lock()

    @property
    def free(self) -> int:
        """How many slots can be taken now."""
        return len(self._free)

    @property
    def leased(self) -> int:
        """How many slots are READY and held by somebody."""
        return len(self._holders)

    def generation(self, slot: int) -> int:
        """The current generation of a slot: odd while it is written."""
        generation: int = self._generations[slot]
        return generation

    def take(self) -> int | None:
        """FREE → WRITING: a slot to write into, or None if none is free."""
        with self._lock:
            if not self._free:
                return None
            slot = self._free.pop()
            self._generations[slot] += 1
            return slot

    def cancel(self, slot: int) -> None:
        """WRITING → FREE: nothing was published."""
        with self._lock:
            self._generations[slot] += 1
            self._free.append(slot)

    def ready(self, slot: int, holders: set[Hashable]) -> int:
        """WRITING → READY, leased to `holders` (at least one; kept); returns the generation to send."""
        if not holders:
            raise ValueError(f"slot {slot}: ready() wants at least one holder; use cancel()")
        with self._lock:
            generation: int = self._generations[slot] + 1
            self._generations[slot] = generation
            self._holders[slot] = holders
            return generation

    def share(self, slot: int, generation: int, holder: Hashable) -> bool:
        """One holder more for a slot that is READY. False: it holds something else by now."""
        with self._lock:
            held = self._holders.get(slot)
            if held is None or self._generations[slot] != generation:
                return False
            held.add(holder)
            return True

    def release(self, slot: int, generation: int, holder: Hashable) -> bool:
        """A holder is through with it; the last one frees it. False: a lease that is not (any more)."""
        with self._lock:
            held = self._holders.get(slot)
            if held is None or holder not in held or self._generations[slot] != generation:
                return False
            held.remove(holder)
            if not held:
                del self._holders[slot]
                self._free.append(slot)
            return True
