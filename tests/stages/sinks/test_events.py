from __future__ import annotations

import contextlib
import json
import os
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sink_frames import result
from sink_killed import run_and_kill

from pipeline.detections import Detections
from pipeline.errors import ConfigError, FrameError, ResourceError
from stages.sinks.events import Events, EventsConfig

CLASSES = ("person", "car")


def write(path: Path, *results, **config) -> list[dict]:
    sink = Events(EventsConfig(path=str(path), classes=CLASSES, **config))
    sink.check(sink.config)
    sink.setup()
    for one in results:
        sink.process(one)
    sink.close()
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_an_event_has_exactly_these_fields(tmp_path):
    one = result(120, found=2, tracks=True)
    [event] = write(tmp_path / "events.jsonl", one)
    found = one.detections
    assert list(event) == ["camera", "frame_id", "time", "width", "height", "detections"]
    assert (event["camera"], event["frame_id"]) == ("gate", 120)
    assert (event["width"], event["height"]) == (160, 90)
    assert event["time"] == "2025-11-22T10:00:04.923456Z"
    first = event["detections"][0]
    assert list(first) == ["xyxy", "label", "class_id", "score", "track_id"]
    assert (first["label"], first["class_id"], first["track_id"]) == ("person", 0, 7)
    boxes = np.float32([d["xyxy"] for d in event["detections"]])
    np.testing.assert_array_equal(boxes, found.xyxy)  # float32 for float32
    np.testing.assert_array_equal(
        [np.float32(d["score"]) for d in event["detections"]], found.scores
    )


def test_nothing_found_is_an_event_unless_only_hits_are_wanted(tmp_path):
    empty, hit = result(0, found=0), result(1, found=1)
    events = write(tmp_path / "all.jsonl", empty, hit)
    assert [event["frame_id"] for event in events] == [0, 1]
    assert events[0]["detections"] == []
    assert events[1]["detections"][0]["track_id"] is None
    hits = write(tmp_path / "hits.jsonl", empty, hit, only_hits=True)
    assert [event["frame_id"] for event in hits] == [1]


def test_a_box_of_no_object_yet_has_no_track_id(tmp_path):
    one = result(3, found=2, tracks=True)
    ids = np.int64([-1, 7])
    found = Detections(one.detections.xyxy, one.detections.scores, one.detections.labels, ids)
    [event] = write(tmp_path / "events.jsonl", replace(one, detections=found))
    assert [d["track_id"] for d in event["detections"]] == [None, 7]


def test_a_frame_of_a_recording_tells_its_time_there(tmp_path):
    film, camera = (
        result(0, found=0, pts_ns=83_333_333, recorded=recorded) for recorded in (True, False)
    )
    events = write(tmp_path / "events.jsonl", film, camera)
    assert [event.get("media_time") for event in events] == [0.083333, None]


def test_a_pictures_name_is_told_and_its_truth_is_not(tmp_path):
    one = result(0, found=0, name="tür 1.jpg", truth=Detections.empty())
    [event] = write(tmp_path / "a.jsonl", one)
    assert event["name"] == "tür 1.jpg"
    assert "truth" not in event


def test_a_label_without_a_name_is_its_number(tmp_path):
    [event] = write(tmp_path / "a.jsonl", result(0, found=3))
    assert [d["label"] for d in event["detections"]] == ["person", "car", "2"]


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        (b"", 0), (b'{"torn": ', 0), (b'{"whole": 1}\n', 1), (b'{"whole": 1}\n{"torn', 1),
        (b'{"whole": 1}\n' + b"x" * 200_000, 1),
    ],
)  # fmt: skip
def test_a_torn_tail_is_cut_and_whole_lines_are_kept(tmp_path, before, kept):
    path = tmp_path / "events.jsonl"
    path.write_bytes(before)
    events = write(path, result(3))
    assert [event.get("whole", event.get("frame_id")) for event in events] == [1] * kept + [3]


@pytest.mark.parametrize("after", [0, 7, 300])
def test_kill_9_leaves_whole_lines_and_the_next_start_goes_on(tmp_path, after):
    path = tmp_path / "events.jsonl"
    said = run_and_kill("events", path, after)
    events = write(path, result(10**6))
    ids = [event["frame_id"] for event in events]
    assert ids[:-1] == list(range(len(ids) - 1))
    assert len(ids) - 1 >= said + 1  # nothing is lost that was written
    assert ids[-1] == 10**6


@pytest.mark.parametrize("found", [0, 3])
def test_a_line_whose_writer_was_killed_before_it_could_say_so_is_not_written_twice(
    tmp_path, found
):
    path = tmp_path / "events.jsonl"
    first, last, later = (result(n, found=found) for n in (6, 7, 8))
    other = replace(last, info=last.info._replace(camera="yard"))
    write(path, first, last)
    # the frames of several cameras come again in any order; the last is one of another run
    another = replace(first, info=first.info._replace(t_wall_ns=9))
    events = write(path, other, last, later, another)
    told = [(event["camera"], event["frame_id"]) for event in events]
    assert told == [("gate", 6), ("gate", 7), ("yard", 7), ("gate", 8), ("gate", 6)]


def test_places_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"wanted a folder at .*file, got a file"):
        Events.check(EventsConfig(path=str(tmp_path / "file" / "deep" / "events.jsonl")))
    with pytest.raises(ConfigError, match=r"wanted a file at .*, got a folder"):
        Events.check(EventsConfig(path=str(tmp_path)))
    Events.check(EventsConfig(path=str(tmp_path / "new" / "deep" / "events.jsonl")))
    assert not (tmp_path / "new").exists()


@contextmanager
def not_root():
    """Root may write everywhere: within, this process is somebody else."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65533)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_folder_of_others_is_refused():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o777)
        with not_root():
            Events.check(EventsConfig(path=f"{folder}/events.jsonl"))
        os.chmod(folder, 0o555)
        with not_root(), pytest.raises(ResourceError, match="is not writable"):
            Events.check(EventsConfig(path=f"{folder}/events.jsonl"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_costs_the_events_that_it_does_not_take():
    sink = Events(EventsConfig(path="/dev/full"))
    sink.setup()
    for _ in range(3):
        with pytest.raises(FrameError, match=r"/dev/full can't be written .*make room"):
            sink.process(result())
    sink.close()


def test_a_disk_that_takes_half_a_line_is_left_with_whole_ones(tmp_path, small_files):
    path = tmp_path / "events.jsonl"
    sink = Events(EventsConfig(path=str(path), classes=CLASSES))
    sink.setup()
    taken = []
    with small_files(2000):
        for n in range(20):
            with contextlib.suppress(FrameError):
                sink.process(result(n))
                taken.append(n)
    sink.process(result(20))  # there is room again
    sink.close()
    ids = [json.loads(line)["frame_id"] for line in path.read_text().splitlines()]
    assert ids == [*taken, 20]
    assert 2 < len(taken) < 19


@pytest.mark.parametrize("how", ["rename", "delete", "folder"])
def test_a_file_that_was_rotated_or_deleted_gets_a_successor(tmp_path, how):
    path = tmp_path / "new" / "events.jsonl"
    sink = Events(EventsConfig(path=str(path), classes=CLASSES))
    sink.setup()
    sink.process(result(0))
    sink.idle()
    sink.process(result(1))
    if how == "rename":
        path.rename(tmp_path / "events.1")
    elif how == "delete":
        path.unlink()
    else:
        path.parent.rename(tmp_path / "old")
    sink.idle()
    sink.process(result(2))
    sink.close()
    assert [json.loads(line)["frame_id"] for line in path.read_text().splitlines()] == [2]
    if how == "rename":
        rotated = (tmp_path / "events.1").read_text().splitlines()
        assert [json.loads(line)["frame_id"] for line in rotated] == [0, 1]
