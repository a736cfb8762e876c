"""Weekly schedules in the time of a place. Pure.

    mon-fri 18:00-06:00      what passes midnight belongs to the day that it begins on
    sat,sun 00:00-24:00
    22:00-06:00              every day

A schedule is what a clock on the wall of that place shows: on the night on which clocks are set back, an
hour that comes twice counts twice; on the one on which they are set forward, what is left out is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo, available_timezones

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = 24 * 60
_WEEK = 7 * _DAY
_LINE = re.compile(r"(?:([a-z,-]+) +)?(\d\d):(\d\d)-(\d\d):(\d\d)")

Span = tuple[int, int]  # from the first to before the second


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something holds. spans: minutes of the week from Monday 00:00 on, within 0..10080."""

    spans: tuple[Span, ...]
    zone: ZoneInfo

    def holds(self, t_s: int) -> bool:
        """At a moment, in seconds since 1970."""
        minute = self._minute(t_s)
        return any(begin <= minute < end for begin, end in self.spans)

    def between(self, begin_s: int, end_s: int) -> Iterator[Span]:
        """All of the longest stretches within begin_s..end_s in which it holds, in order."""
        since: int | None = None
        t_s = begin_s
        while t_s < end_s:
            if not self.holds(t_s):
                if since is not None:
                    yield since, t_s
                since = None
            elif since is None:
                since = t_s
            t_s = self._next_change(t_s)
        if since is not None:
            yield since, end_s

    def _local(self, t_s: int) -> datetime:
        return datetime.fromtimestamp(t_s, self.zone)

    def _minute(self, t_s: int) -> int:
        local = self._local(t_s)
        return local.weekday() * _DAY + local.hour * 60 + local.minute

    def _next_change(self, t_s: int) -> int:
        """The first moment after t_s at which it may begin or end to hold; at most a day later."""
        minute = self._minute(t_s)
        edges = [edge for span in self.spans for edge in span if edge > minute]
        wait = min([*edges, minute + _DAY - minute % _DAY]) - minute
        later_s = t_s + wait * 60 - self._local(t_s).second
        before = self._local(t_s).utcoffset()
        if self._local(later_s).utcoffset() == before:
            return later_s
        low, high = (
            t_s,
            later_s,
        )  # clocks are set in between: at `high`, when they are next to each other
        while high - low > 1:
            middle = (low + high) // 2
            if self._local(middle).utcoffset() == before:
                low = middle
            else:
                high = middle
        return high


def parse(lines: Sequence[str], zone: str) -> Schedule:
    """The schedule of some lines, in a zone of the time zone database. Raises ValueError, in a sentence."""
    if zone not in available_timezones():
        raise ValueError(
            f"time_zone: there is no time zone {zone!r} here; write one like 'Europe/Berlin' "
            "(where there is none at all: pip install tzdata)"
        )
    spans = tuple(sorted(span for line in lines for span in _spans(line)))
    return Schedule(spans, ZoneInfo(zone))


def _spans(line: str) -> Iterator[Span]:
    match = _LINE.fullmatch(line.strip().lower())
    if match is None:
        raise ValueError(f"when: wanted a text like 'mon-fri 18:00-06:00', got {line!r}")
    begin, end = (_minutes(match[i], match[i + 1], line) for i in (2, 4))
    if begin in (end, _DAY):
        raise ValueError(f"when: {line!r} has no length; for a whole day write 00:00-24:00")
    for day in _days(match[1], line):
        first = day * _DAY + begin
        last = day * _DAY + (end if end > begin else end + _DAY)
        yield first, min(last, _WEEK)
        if last > _WEEK:  # from Sunday to Monday
            yield 0, last - _WEEK


def _minutes(hours: str, minutes: str, line: str) -> int:
    total = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or total > _DAY:
        raise ValueError(f"when: wanted times within 00:00..24:00, got {line!r}")
    return total


def _days(text: str | None, line: str) -> list[int]:
    if text is None:
        return list(range(7))
    days: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise ValueError(f"when: wanted days out of {', '.join(DAYS)}, got {line!r}")
        begin = DAYS.index(first)
        length = (DAYS.index(last or first) - begin) % 7
        days += [(begin + n) % 7 for n in range(length + 1)]
    return sorted(set(days))
