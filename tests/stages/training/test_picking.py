"""Which frames of a run are worth labelling: events with known weaknesses, and pictures fetched."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from pipeline.errors import DataError
from stages.training.picking import Pick, pick, write

START = datetime(2026, 5, 1, 12, tzinfo=UTC)


def event(
    at_s: float, *found: tuple[Any, ...], camera: str = "gate", **more: Any
) -> dict[str, Any]:
    """found: label, score and perhaps a track each."""
    time = (START + timedelta(seconds=at_s)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    rows = [
        {"xyxy": [0, 0, 9, 9], "label": label, "class_id": 0, "score": score,
         "track_id": track[0] if track else None}
        for label, score, *track in found
    ]  # fmt: skip
    head = {"camera": camera, "frame_id": round(at_s * 10), "time": time, "width": 64, "height": 48}
    return {**head, **more, "detections": rows}


def file_of(folder: Path, *events: dict[str, Any]) -> Path:
    path = folder / "events.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in events))
    return path


def reasons(picks: list[Pick]) -> dict[float, tuple[str, ...]]:
    return {one.frame_id / 10: one.reasons for one in picks}


def test_each_weakness_is_found_and_named(tmp_path: Path) -> None:
    sure = ("car", 0.99, 1)
    events = [event(t / 2, sure) for t in range(200)]
    events[20] = event(10, ("car", 0.5, 1))
    events[60] = event(30, ("bus", 0.99, 1))  # by a track that is a car
    events[100] = event(50)  # for one frame it is not there
    events[140] = event(70, sure, ("tram", 0.99, 2))
    found = reasons(pick([file_of(tmp_path, *events)], 4))
    assert found == {
        10: ("uncertain",), 30: ("disagrees", "rare"), 50: ("missing",), 70: ("rare",),
    }  # fmt: skip


def test_what_is_lost_for_good_or_hidden_for_long_is_not_missing(tmp_path: Path) -> None:
    events = [
        event(t / 2, ("car", 0.99, 1)) if t < 20 or t > 40 else event(t / 2) for t in range(50)
    ]
    events += [event(t / 2) for t in range(50, 60)]
    found = pick([file_of(tmp_path, *events)], 99, gap_s=0.5)
    missing = [one.frame_id / 10 for one in found if "missing" in one.reasons]
    assert missing == [10.0, 10.5]  # within a second of being seen


def test_cameras_and_days_take_turns_and_moments_keep_apart(tmp_path: Path) -> None:
    day_s = 86_400
    busy = [event(t, ("car", 0.5)) for t in range(100)]
    other_day = [event(day_s + t, ("car", 0.7)) for t in range(100)]
    yard = [event(t, ("car", 0.8), camera="yard") for t in range(100)]
    picks = pick([file_of(tmp_path, *busy, *other_day, *yard)], 9)
    groups = [(one.camera, one.time[8:10]) for one in picks]
    assert groups == [("gate", "01"), ("gate", "02"), ("yard", "01")] * 3
    for group in set(groups):
        times = sorted(
            datetime.fromisoformat(one.time)
            for one, its in zip(picks, groups, strict=True)
            if its == group
        )
        assert all((b - a).total_seconds() >= 10 for a, b in itertools.pairwise(times))


def test_pictures_keep_no_distance_and_nothing_is_nothing(tmp_path: Path) -> None:
    named = [event(0, ("car", 0.6), name=f"{i}.jpg") for i in range(5)]
    assert len(pick([file_of(tmp_path, *named)], 9)) == 5
    assert pick([file_of(tmp_path)], 9) == []
    assert pick([file_of(tmp_path, event(0))], 9) == []


@pytest.mark.parametrize("line", ['{"camera": "gate"}', "[1]", "no JSON", '{"a": '])
def test_what_is_no_event_is_named(tmp_path: Path, line: str) -> None:
    path = file_of(tmp_path, event(0))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=r"events\.jsonl:2: "):
        pick([path], 9)
    with pytest.raises(DataError, match="No such file"):
        pick([tmp_path / "none.jsonl"], 9)


def test_pictures_come_from_films_and_folders(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "film.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for value in range(0, 200, 10):
            grey = np.full((48, 64, 3), value, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="bgr24")))
        container.mux(stream.encode(None))
    (tmp_path / "folder").mkdir()
    cv2.imwrite(str(tmp_path / "folder" / "b.png"), np.zeros((8, 8, 3), np.uint8))
    events = [
        event(0.7, ("car", 0.5), media_time=0.7),
        event(0, ("car", 0.5), camera="stills", name="b.png"),
    ]
    picks = pick([file_of(tmp_path, *events)], 9)
    sources = {"gate": str(tmp_path / "film.mkv"), "stills": str(tmp_path / "folder")}
    assert write(picks, sources, tmp_path / "out") == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "gate-000007.jpg", "stills-b.png", "picked.jsonl",
    }  # fmt: skip
    assert abs(float(cv2.imread(str(tmp_path / "out" / "gate-000007.jpg")).mean()) - 70) < 3
    with pytest.raises(DataError, match=r"b\.png: no such picture; is .* the source of 'stills'"):
        write(picks, {"stills": str(tmp_path)}, tmp_path / "other")
    assert not (tmp_path / "other").exists()
