"""The stage: several cameras, restarts, pictures of another size."""

import sys

import numpy as np
import pytest

from pipeline.detections import Detections
from pipeline.errors import ConfigError
from pipeline.messages import FrameInfo, Result
from pipeline.runtime import LocalRuntime
from pipeline.testing import run_inline
from stages.track.stage import SWITCHES, TRACKS, Track, TrackConfig


def result(frame_id, camera="gate", objects=2, *, width=640, truth=None, label=0):
    """Objects that stand 100 px from each other."""
    x = 100 * np.arange(objects, dtype=np.float32) + 10
    xyxy = np.stack([x, x, x + 50, x + 80], axis=1)
    info = FrameInfo(camera, frame_id, 1 + frame_id * 10**8, 0, width, 360, truth=truth)
    labels = np.full(objects, label, np.int32)
    found = Detections(xyxy, np.full(objects, 0.8, np.float32), labels)
    return Result(info=info, detections=found, model_id="m")


def ids(results, camera="gate"):
    return [r.detections.track_ids.tolist() for r in results if r.info.camera == camera]


def test_two_cameras_share_no_id():
    items = [result(n, camera) for n in range(5) for camera in ("gate", "yard")]
    results = run_inline(Track(TrackConfig()), items)
    assert ids(results) == [[-1, -1]] + 4 * [[1, 2]]
    assert ids(results, "yard") == [[-1, -1]] + 4 * [[3, 4]]
    assert {r.model_id for r in results} == {"m"}
    assert [r.info for r in results] == [item.info for item in items]


def test_a_tracker_that_was_killed_gives_no_id_again():
    runtime = LocalRuntime(("gate", "yard"))
    first, second = Track(TrackConfig()), Track(TrackConfig())
    first.runtime = second.runtime = runtime
    before = run_inline(first, [result(n) for n in range(4)])
    after = run_inline(second, [result(n) for n in range(4, 8)])
    assert ids(before)[-1] == [1, 2]
    assert ids(after)[-1] == [3, 4]
    assert runtime.counts[TRACKS, "gate"] == 4


def test_pictures_of_another_size_show_other_objects():
    items = [*(result(n) for n in range(3)), *(result(n, width=1280) for n in range(3, 6))]
    assert ids(run_inline(Track(TrackConfig()), items)) == [
        [-1, -1], [1, 2], [1, 2], [-1, -1], [3, 4], [3, 4],
    ]  # fmt: skip


def test_frames_without_boxes():
    counts = [0, 0, 1, 1, 0, 1]
    results = run_inline(Track(TrackConfig()), [result(n, objects=k) for n, k in enumerate(counts)])
    assert ids(results) == [[], [], [-1], [1], [], [1]]


def test_switches_are_counted_where_the_truth_is_known():
    def truth(order):
        known = result(0).detections
        return Detections(known.xyxy, known.scores, known.labels, np.int64(order))

    stage = Track(TrackConfig())
    orders = [[5, 6], [5, 6], [5, 6], [6, 5], [6, 5]]  # two who changed places unseen
    run_inline(stage, [result(n, truth=truth(order)) for n, order in enumerate(orders)])
    assert stage.runtime.counts[SWITCHES, "gate"] == 2


def test_a_flicker_of_the_class_is_not_shown():
    labels = [0, 0, 0, 1, 0, 0]
    results = run_inline(Track(TrackConfig()), [result(n, label=k) for n, k in enumerate(labels)])
    assert {label for r in results for label in r.detections.labels.tolist()} == {0}


def passing(frame_id, *boxes):
    """A frame with boxes (x, y, width, height, label)."""
    x, y, width, height, label = np.float32(boxes).reshape(-1, 5).T
    xyxy = np.stack([x, y, x + width, y + height], axis=1)
    info = FrameInfo("gate", frame_id, 1 + frame_id * 10**8, 0, 640, 360)
    found = Detections(xyxy, np.full(len(xyxy), 0.9, np.float32), label.astype(np.int32))
    return Result(info=info, detections=found)


def test_who_rides_in_front_of_a_parked_car_does_not_get_its_id():
    car = (200, 100, 120, 60, 1)

    def bicycle(n):
        return (100 + 8 * n, 98, 70, 66, 2)

    alone = [passing(n, car) for n in range(10)]
    hidden = [passing(n, bicycle(n)) for n in range(10, 16)]  # the car is not found behind it
    after = [passing(n, bicycle(n), car) for n in range(16, 24)]
    results = run_inline(Track(TrackConfig()), [*alone, *hidden, *after])
    assert ids(results)[9] == [1]
    assert ids(results)[10:] == [[-1], *5 * [[2]], *8 * [[2, 1]]]
    assert [r.detections.labels.tolist() for r in results[10:]] == [*6 * [[2]], *8 * [[2, 1]]]


def test_one_object_that_is_taken_for_two_classes_at_once_is_one():
    frames = [
        passing(n, (100 + 9 * n, 100, 120, 60, 1), (101 + 9 * n, 102, 118, 58, 2)) for n in range(6)
    ]
    for frame in frames:  # the surer one comes second
        frame.detections.scores[0] = 0.6
    alone = [passing(n, (100 + 9 * n, 100, 120, 60, 1)) for n in range(6, 9)]
    results = run_inline(Track(TrackConfig()), [*frames, *alone])
    assert ids(results) == [[-1, -1], *5 * [[-1, 1]], *3 * [[1]]]


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)  # as Python marks what can't be imported
    with pytest.raises(ConfigError, match=r"pip install 'manyeyes\[track\]'"):
        Track.check(TrackConfig())
