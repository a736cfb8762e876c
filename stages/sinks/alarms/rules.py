"""Which happenings are alarms: what, when and how often. Pure.

A rule is asked about a happening as the world sees it (`pipeline.happenings.to_json`), so that the same
rules judge what happens now and what a store has kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stages.sinks.alarms.schedule import Schedule

VERSION = 1
IN_ZONES = ("entered", "left", "loitering", "crowded", "uncrowded")
OF_OBJECTS = ("appeared", "gone", "entered", "left", "loitering", "crossed")

Verdict = Literal[
    "alarm",
    "disarmed",
    "not now",  # by its schedule
    "cool-down",  # it has told of the same a moment ago
]
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One `[[alert]]`. What is None holds for all."""

    name: str
    kinds: tuple[str, ...]
    to: tuple[str, ...]  # names of targets
    cameras: tuple[str, ...] | None = None
    zones: tuple[str, ...] | None = None
    lines: tuple[str, ...] | None = None
    directions: tuple[str, ...] | None = None  # of crossings
    classes: tuple[str, ...] | None = None
    min_score: float = 0.0
    above: int | None = None  # of objects, where a zone is crowded
    schedule: Schedule | None = None
    armed: bool = True
    cooldown_s: float = 60.0

    def wants(self, happening: dict[str, Any]) -> bool:
        """Whether it is about this kind of happening, here, of such a thing."""
        kind, place = happening["kind"], happening.get("place")
        if kind not in self.kinds or not _among(self.cameras, happening["camera"]):
            return False
        if kind in IN_ZONES and not _among(self.zones, place):
            return False
        if kind == "crossed" and not (
            _among(self.lines, place) and _among(self.directions, happening["direction"])
        ):
            return False
        if kind == "crowded" and self.above is not None:
            return bool(happening["count"] > self.above)
        if kind not in OF_OBJECTS:
            return True
        return _among(self.classes, happening["label"]) and happening["score"] >= self.min_score

    def key(self, happening: dict[str, Any]) -> Key:
        """What its cool-down is about: the same thing by the same object. Another object has its own."""
        who = [
            happening.get(name, "") for name in ("run", "camera", "object", "place", "direction")
        ]
        return (self.name, happening["kind"], *map(str, who))

    def verdict(self, t_ns: int, last_ns: int | None) -> Verdict:
        """On a happening that it wants, at this wall time; last_ns: of the last alarm of its key."""
        if not self.armed:
            return "disarmed"
        if self.schedule is not None and not self.schedule.holds(t_ns // 1_000_000_000):
            return "not now"
        # of a clock that was set back nothing is known; the same moment is the same happening again
        if last_ns is not None and 0 < t_ns - last_ns < self.cooldown_s * 1e9:
            return "cool-down"
        return "alarm"


def _among(names: tuple[str, ...] | None, name: Any) -> bool:
    return names is None or name in names


def judge(
    rules: Sequence[Rule],
    happenings: Iterable[tuple[dict[str, Any], int]],
    last_ns: MutableMapping[Key, int],
) -> Iterator[tuple[Rule, dict[str, Any], Verdict]]:
    """What every rule says of happenings, with their wall times, in their order, where it wants them.

    last_ns: when there was an alarm of a key; alarms are entered.
    """
    for happening, t_ns in happenings:
        for rule in rules:
            if rule.wants(happening):
                key = rule.key(happening)
                verdict = rule.verdict(t_ns, last_ns.get(key))
                if verdict == "alarm":
                    last_ns[key] = t_ns
                yield rule, happening, verdict


def to_json(rule: Rule, happening: dict[str, Any]) -> dict[str, Any]:
    """An alarm as its targets get it. `id` is the same whenever it comes."""
    return {
        "version": VERSION,
        "id": f"{happening['id']}:{rule.name}",
        "alert": rule.name,
        "text": sentence(happening),
        "happening": happening,
    }


def sentence(happening: dict[str, Any]) -> str:
    """For people.

    >>> sentence({"kind": "crossed", "camera": "gate", "label": "car", "place": "kerb", "direction": "in"})
    'gate: car crossed kerb (in)'
    """
    words = [happening.get("label", ""), happening["kind"], happening.get("place", "")]
    text = f"{happening['camera']}: {' '.join(filter(None, words))}"
    more = [str(happening[key]) for key in ("direction", "count", "cause") if key in happening]
    if "seconds" in happening:
        more.append(f"{happening['seconds']:.0f} s")
    return f"{text} ({', '.join(more)})" if more else text
