"""Objects that several cameras see at once, in places that are the same: which of them are one. Pure.

No likeness is asked for, only place, class and time: who comes into one camera's view of a place within
seconds of somebody of the same class in another camera's view is taken for them, each for one at most, the
nearest in time first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_APART_NS = 3_000_000_000  # between two cameras' seeing somebody come
_LEFT_NS = 2_000_000_000  # who left the one view so long ago may be coming into the other
_FORGET_NS = 60_000_000_000  # after it left

Who = tuple[str, int]  # camera, object


@dataclass(slots=True)
class _Stay:
    label: str
    since_ns: int
    until_ns: int | None = None
    seen_by: set[str] = field(default_factory=set)  # cameras that have it, its own among them


class Overlaps:
    """places: of each overlap its views, (camera, zone)."""

    def __init__(self, places: Sequence[Sequence[tuple[str, str]]]) -> None:
        self._overlap = {view: n for n, views in enumerate(places) for view in map(tuple, views)}
        self._stays: list[dict[Who, _Stay]] = [{} for _ in places]
        self._first: dict[Who, Who] = {}

    def see(
        self, kind: str, camera: str, zone: str, track: int, label: str, t_ns: int
    ) -> Iterator[tuple[Who, Who]]:
        """What an object did in a zone. Yields (it, who it was first) if it is somebody who is known."""
        overlap = self._overlap.get((camera, zone))
        if overlap is None or kind not in ("entered", "left"):
            return
        stays, who = self._stays[overlap], (camera, track)
        if kind == "left":
            if who in stays:
                stays[who].until_ns = t_ns
            self._forget(stays, t_ns)
            return
        if who in stays:  # it came back
            stays[who].until_ns = None
            return
        stay = stays[who] = _Stay(label, t_ns, seen_by={camera})
        known = self._first.get(who)
        other = known or self._partner(stays, who, stay)
        if other is None:
            return
        first = self._first.get(other, other)
        if first in stays:
            stays[first].seen_by |= stay.seen_by
            stay.seen_by = stays[first].seen_by  # one set: who is taken is taken for all of them
        if known is None:
            self._first[who] = first
            yield who, first

    def _partner(self, stays: dict[Who, _Stay], who: Who, stay: _Stay) -> Who | None:
        others = [
            (abs(stay.since_ns - other.since_ns), one)
            for one, other in stays.items()
            if one[0] != who[0] and who[0] not in other.seen_by and other.label == stay.label
            and abs(other.since_ns - stay.since_ns) <= _APART_NS
            and (other.until_ns is None or stay.since_ns - other.until_ns <= _LEFT_NS)
        ]  # fmt: skip
        return min(others)[1] if others else None

    def _forget(self, stays: dict[Who, _Stay], t_ns: int) -> None:
        old = [
            who
            for who, stay in stays.items()
            if stay.until_ns is not None and t_ns - stay.until_ns > _FORGET_NS
        ]
        for who in old:
            del stays[who]
            if not any(who in others for others in self._stays):
                self._first.pop(who, None)
