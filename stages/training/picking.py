"""Which pictures of a run are worth labelling next: those that the model is least to be trusted in.

A frame is worth more the nearer one of its scores is to a half, if its classes are rare in the run, and
if it disagrees with a track: another class than the track's others, or a track that is missing for a
moment. The best of each stretch of time are taken in turn from all cameras and days.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from stages.training.detection_files import events_of

MISSED_FOR_S = 1.0  # a track that is away for longer may be hidden
Track = tuple[int, str, int]  # file, camera, track_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """One frame, and why."""

    camera: str
    frame_id: int
    time: str
    name: str | None  # of a picture
    media_time: float | None  # s, of a recording
    worth: float  # sum of the reasons, each 0..1
    reasons: tuple[str, ...]  # those that count most, first

    def to_json(self) -> dict[str, Any]:
        """Plain types; what is not known is left out."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {key: value for key, value in fields.items() if value is not None}


@dataclass(slots=True)
class _Known:
    """What the first reading told of all events together."""

    labels: Counter[str] = field(default_factory=Counter)
    votes: dict[Track, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    last: dict[Track, float] = field(default_factory=dict)  # when it was seen, s


def pick(files: Sequence[Path], count: int, *, gap_s: float = 10.0) -> list[Pick]:
    """At most `count` frames of the events in `files`, best first of each camera and day in turn.

    gap_s: between two of one camera, as pictures of one moment teach little; of named pictures none.
    Reads the files twice, and keeps one frame for each `gap_s`. Raises DataError: no events.
    """
    known = _Known()
    for number, event in _events(files):
        for row in event["detections"]:
            known.labels[row["label"]] += 1
            if row.get("track_id") is not None:
                track = (number, event["camera"], row["track_id"])
                known.votes[track][row["label"]] += 1
                known.last[track] = _seconds(event)
    best: dict[tuple[Any, ...], Pick] = {}
    seen: dict[tuple[int, str], dict[int, float]] = defaultdict(dict)
    for number, event in _events(files):
        named, at_s = event.get("name"), _seconds(event)
        tracks = seen[number, event["camera"]]
        worth = _worth(event, number, known, tracks, at_s)
        for row in event["detections"]:
            if row.get("track_id") is not None:
                tracks[row["track_id"]] = at_s
        key = (number, event["camera"], named or math.floor(at_s / gap_s))
        one = _pick(event, worth)
        if one.worth > 0 and (key not in best or one.worth > best[key].worth):
            best[key] = one
    return _spread(list(best.values()), count, gap_s)


def _worth(
    event: dict[str, Any], number: int, known: _Known, seen: dict[int, float], at_s: float
) -> dict[str, float]:
    """Reasons, each 0..1, and how much they count."""
    rows = event["detections"]
    rarest = min(known.labels.values(), default=1)
    worth = {"uncertain": 0.0, "disagrees": 0.0, "missing": 0.0, "rare": 0.0}
    for row in rows:
        worth["uncertain"] = max(worth["uncertain"], 1 - abs(2 * row["score"] - 1))
        worth["rare"] = max(worth["rare"], math.sqrt(rarest / known.labels[row["label"]]))
        votes = known.votes.get((number, event["camera"], row.get("track_id")))
        if votes and votes[row["label"]] < votes.total() / 2:
            worth["disagrees"] = 1.0
    here = {row.get("track_id") for row in rows}
    if any(
        track not in here
        and at_s - when <= MISSED_FOR_S
        and known.last[number, event["camera"], track] > at_s
        for track, when in seen.items()
    ):
        worth["missing"] = 1.0
    if len(known.labels) < 2:
        worth["rare"] = 0.0  # all are of one class
    return worth


def _pick(event: dict[str, Any], worth: dict[str, float]) -> Pick:
    reasons = sorted((name for name in worth if worth[name] >= 0.5), key=lambda name: -worth[name])
    return Pick(
        camera=event["camera"],
        frame_id=event["frame_id"],
        time=event["time"],
        name=event.get("name"),
        media_time=event.get("media_time"),
        worth=round(sum(worth.values()), 3),
        reasons=tuple(reasons),
    )


def _spread(found: list[Pick], count: int, gap_s: float) -> list[Pick]:
    """The best of each camera and day in turn, none too near in time to one that was taken."""
    groups: dict[tuple[str, str], list[Pick]] = defaultdict(list)
    for one in sorted(found, key=lambda one: -one.worth):
        groups[one.camera, one.time[:10]].append(one)
    taken: list[Pick] = []
    at_s: dict[tuple[str, str], list[float]] = defaultdict(list)
    while len(taken) < count and any(groups.values()):
        for key in sorted(groups):
            while groups[key] and len(taken) < count:
                one = groups[key].pop(0)
                when = _when(one.time, one.media_time)
                if one.name is not None or all(abs(when - t) >= gap_s for t in at_s[key]):
                    taken.append(one)
                    at_s[key].append(when)
                    break
    return taken


def _seconds(event: dict[str, Any]) -> float:
    return _when(event["time"], event.get("media_time"))


def _when(time: str, media_time: float | None) -> float:
    from datetime import datetime

    return media_time if media_time is not None else datetime.fromisoformat(time).timestamp()


def _events(files: Sequence[Path]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The events of all files with the number of their file. Raises DataError for what is none."""
    for number, file in enumerate(files):
        try:
            for line, event in events_of(file):
                try:
                    _when(event["time"], event.get("media_time"))
                    str.casefold(event["camera"]), int(event["frame_id"])
                    for row in event["detections"]:
                        str.casefold(row["label"]), float(row["score"])
                except (KeyError, TypeError, ValueError) as error:
                    raise DataError(
                        f"{file}:{line}: no event of a run: {error!r}; wanted what the events sink writes"
                    ) from error
                yield number, event
        except OSError as error:
            raise DataError(f"{file}: can't be read: {error.strerror}") from error


def write(picks: Sequence[Pick], sources: dict[str, str], output: Path) -> int:
    """A new folder with the picked pictures, as JPEG or as they are, and `picked.jsonl`.

    sources: camera → its film, or its folder of pictures. Returns how many pictures are there: those of
    other cameras are in the list alone. Raises DataError: a source without what was picked of it.
    """
    import shutil

    import cv2

    from stages.training.annotate import shots
    from stages.training.convert import new_folder

    written = 0
    with new_folder(output) as folder:
        rows = (json.dumps(one.to_json()) + "\n" for one in picks)
        (folder / "picked.jsonl").write_text("".join(rows), encoding="utf-8")
        for camera, source in sources.items():
            mine = [one for one in picks if one.camera == camera]
            for one in (one for one in mine if one.name is not None):
                picture = Path(source) / str(one.name)
                if not picture.is_file():
                    raise DataError(
                        f"{picture}: no such picture; is {source} the source of {camera!r}?"
                    )
                shutil.copyfile(picture, folder / f"{camera}-{one.name}")
                written += 1
            wanted = {one.frame_id for one in mine if one.name is None}
            for shot in shots([source], lambda text: None) if wanted else ():
                if shot.index in wanted:
                    wanted.discard(shot.index)
                    name = folder / f"{camera}-{shot.index:06d}.jpg"
                    cv2.imwrite(str(name), shot.image, [cv2.IMWRITE_JPEG_QUALITY, 95])
                    written += 1
                if not wanted:
                    break
            if wanted:
                raise DataError(
                    f"{source}: has no frame {min(wanted)}; is it the source of {camera!r}?"
                )
    return written
