"""Why there was, or was not, an alarm at a moment: reasons out of what was kept. Pure.

Asked from the camera on: a frame that never came was never looked at, what was not found is no object, what
is no object does nothing, and of what nothing is wanted nobody is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_FEW = 0.5  # share of frames that were looked at, below which that is a reason
_WHY = {
    "superseded": "the model was slower than the camera",
    "unwanted": "above max_fps",
    "no_slot": "their memory was still in use",
    "filtered": "a stage left them out",
    "error": "they could not be used",
    "stage_died": "a process died with them",
    "stopped": "the run ended",
    "overflow": "who was to take them was too slow",
    "sink": "a sink lost their results",
}
_CAMERA = {
    "frozen": "the picture was frozen",
    "dark": "it was dark",
    "blinded": "the camera was blinded",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One of them; cause: a word for programs."""

    cause: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One `[[alert]]`, and what it said of each happening."""

    name: str
    kinds: tuple[str, ...]
    cameras: tuple[str, ...] | None
    zones: tuple[str, ...] | None
    lines: tuple[str, ...] | None
    classes: tuple[str, ...] | None
    min_score: float
    verdicts: Sequence[tuple[str, str, str]]  # id of the happening, what it was, the verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that is known of a camera around a moment."""

    camera: str
    minutes: Sequence[Mapping[str, Any]]
    health: Sequence[Mapping[str, Any]]  # happenings to the camera until then, newest first
    happenings: Sequence[Mapping[str, Any]]  # by objects, then
    incidents: Sequence[Mapping[str, Any]]  # who was there then
    threshold: float | None  # of scores, as the configuration has it
    per_class: Mapping[str, float]  # and of classes that have their own
    rules: Sequence[Rule]
    deliveries: Mapping[str, Mapping[str, str]]  # id of an alarm → target → state


def reasons(facts: Facts) -> Iterator[Reason]:
    """From the most to the least far-reaching; at least one."""
    yield from _of_camera(facts)
    if not (facts.minutes or facts.health or facts.happenings or facts.incidents):
        yield Reason(cause="no run", text="no run wrote into this store then")
        return
    yield from _of_frames(facts)
    if not facts.incidents and not facts.happenings:
        yield from _of_scores(facts)
    yield from _of_rules(facts)


def _of_camera(facts: Facts) -> Iterator[Reason]:
    """What was wrong with the camera, and not over again."""
    over: set[str] = set()
    for one in facts.health:
        kind, cause = one["kind"], one.get("cause", "")
        if kind in ("up", "recovered"):
            over.add("down" if kind == "up" else cause)
        elif kind not in over:
            over.add(kind)  # what was before is over since then
            if kind == "down":
                text = f"the camera was down since {_local(one['time'])} ({cause})"
                yield Reason(cause=f"down: {cause}", text=text)
            elif kind == "moved":
                yield Reason(cause=kind, text=f"the camera was turned at {_local(one['time'])}")
            else:
                yield Reason(cause=kind, text=f"{_CAMERA[kind]} since {_local(one['time'])}")


def _local(time: str) -> str:
    return f"{datetime.fromisoformat(time).astimezone():%Y-%m-%d %H:%M:%S}"


def _of_frames(facts: Facts) -> Iterator[Reason]:
    served = sum(minute["served"] for minute in facts.minutes)
    dropped: Counter[str] = Counter()
    for minute in facts.minutes:
        dropped.update(minute["dropped"])
    total = served + dropped.total()
    if total and served < _FEW * total:
        listed = ", ".join(
            f"{n} {name} ({_WHY.get(name, name)})" for name, n in dropped.most_common()
        )
        text = f"of {total} frames {served} were looked at; dropped: {listed}"
        yield Reason(cause=f"dropped: {dropped.most_common(1)[0][0]}", text=text)
    elif not total and facts.minutes:
        yield Reason(cause="no frames", text="not one frame came of the camera")


def _of_scores(facts: Facts) -> Iterator[Reason]:
    """Why there was no object."""
    best = max(facts.minutes, key=lambda minute: minute["missed"], default=None)
    if any(minute["found"] for minute in facts.minutes):
        text = "boxes were found, and none of them in several frames in a row: they made no object"
        yield Reason(cause="unconfirmed", text=text)
    elif best is not None and best["missed"] > 0:
        label = best["missed_label"]
        threshold = facts.per_class.get(label, facts.threshold)
        limit = "" if threshold is None else f", the threshold is {threshold:g}"
        text = f"the best that was not sure enough was {label} {best['missed']:.2f}{limit}"
        yield Reason(cause="score", text=text)
    elif any(minute["served"] for minute in facts.minutes):
        yield Reason(cause="nothing", text="frames were looked at, and nothing was found in them")


def _of_rules(facts: Facts) -> Iterator[Reason]:
    if not facts.rules:
        yield Reason(cause="no alert", text="there is no [[alert]], so nobody is told of anything")
    for rule in facts.rules:
        if rule.cameras is not None and facts.camera not in rule.cameras:
            text = f"alert {rule.name!r} is not about this camera"
            yield Reason(cause="other camera", text=text)
        elif rule.verdicts:
            yield from _of_verdicts(rule, facts)
        elif facts.incidents or facts.happenings:
            yield _of_nearly(rule, facts)


def _of_verdicts(rule: Rule, facts: Facts) -> Iterator[Reason]:
    for happening, what, verdict in rule.verdicts:
        where = f"alert {rule.name!r}: {what}"
        if verdict == "disarmed":
            yield Reason(cause="muted", text=f"{where}: it is not armed")
        elif verdict == "not now":
            yield Reason(cause="schedule", text=f"{where}: not at this time, by its schedule")
        elif verdict == "cool-down":
            text = f"{where}: the same was told a moment before, within its cool-down"
            yield Reason(cause="cool-down", text=text)
        else:
            yield from _of_delivery(where, facts.deliveries.get(f"{happening}:{rule.name}", {}))


def _of_delivery(where: str, targets: Mapping[str, str]) -> Iterator[Reason]:
    if not targets:
        yield Reason(
            cause="not kept", text=f"{where}: an alarm that is not in the outbox (any more)"
        )
    for target, state in targets.items():
        if state == "waiting":
            text = f"{where}: it waits for target {target!r}, which did not take it"
            yield Reason(cause="target away", text=text)
        elif state == "given up":
            text = f"{where}: target {target!r} did not take it for so long that it was given up"
            yield Reason(cause="given up", text=text)
        else:
            yield Reason(cause="alarm", text=f"{where}: target {target!r} has it")


def _of_nearly(rule: Rule, facts: Facts) -> Reason:
    """Somebody was there, and did nothing that the rule wants: what was missing."""
    where = f"alert {rule.name!r}"
    labels = {one["label"] for one in (*facts.incidents, *facts.happenings) if one.get("label")}
    if rule.classes is not None and not labels & set(rule.classes):
        text = (
            f"{where}: wants {', '.join(rule.classes)}, and there was {', '.join(sorted(labels))}"
        )
        return Reason(cause="class", text=text)
    same = [one for one in facts.happenings if one["kind"] in rule.kinds]
    unsure = [one for one in same if one.get("score", 1.0) < rule.min_score]
    if same and len(unsure) == len(same):
        best = max(one["score"] for one in same)
        return Reason(
            cause="min_score",
            text=f"{where}: min_score is {rule.min_score:g}, the best was {best:g}",
        )
    places = (*(rule.zones or ()), *(rule.lines or ()))
    if set(rule.kinds) <= {"appeared", "gone"}:
        text = f"{where}: who was there had come before, and was not gone yet"
        return Reason(cause="nothing new", text=text)
    named = f" {', '.join(places)}" if places else ""
    who = ", ".join(sorted(labels)) or "somebody"
    text = f"{where}: {who} was there, and outside every zone and line{named}"
    return Reason(cause="outside", text=text)
