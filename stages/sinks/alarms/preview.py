"""What alerts will do, and what they would have done. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from stages.sinks.alarms.check import rule_of
from stages.sinks.alarms.rules import Key, judge, sentence


def calendar(
    alerts: Sequence[dict[str, Any]], begin_s: int, end_s: int
) -> Iterator[dict[str, Any]]:
    """When each of them holds between two moments, in seconds since 1970; those that are armed.

    begin and end are ISO 8601 in the alert's own time zone (none: UTC).
    """
    for alert in alerts:
        rule = rule_of(alert)
        if not rule.armed:
            continue
        spans = [(begin_s, end_s)]
        if rule.schedule is not None:
            spans = list(rule.schedule.between(begin_s, end_s))
        for begin, end in spans:
            yield {
                "alert": rule.name,
                "begin": _local(begin, rule.schedule),
                "end": _local(end, rule.schedule),
                "hours": round((end - begin) / 3600, 3),
            }


def rehearsal(
    alerts: Sequence[dict[str, Any]], happenings: Iterable[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """What each alert would have said of happenings, as the store has them, in their order."""
    rules = [rule_of(alert) for alert in alerts]
    last_ns: dict[Key, int] = {}
    timed = ((one, _wall_ns(one["time"])) for one in happenings)
    for rule, one, verdict in judge(rules, timed, last_ns):
        yield {
            "alert": rule.name,
            "verdict": verdict,
            "to": list(rule.to) if verdict == "alarm" else [],
            "text": sentence(one),
            "time": one["time"],
            "happening": one["id"],
        }


def verdicts(rows: Iterable[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """(alert, verdict) → how often."""
    return Counter((row["alert"], row["verdict"]) for row in rows)


def _local(t_s: int, schedule: Any) -> str:
    zone = None if schedule is None else schedule.zone
    moment = datetime.fromtimestamp(t_s, zone) if zone else datetime.fromtimestamp(t_s).astimezone()
    return moment.isoformat(timespec="minutes")


def _wall_ns(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1_000_000) * 1000
