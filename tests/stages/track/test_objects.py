"""Ids of the run, classes by vote, and what is forgotten."""

from itertools import count

import numpy as np

from pipeline.detections import Detections
from stages.track.objects import Objects
from stages.track.switches import Switches

SECOND = 1_000_000_000


def found(labels, scores=None, track_ids=None, shift=0):
    n = len(labels)
    x = np.arange(n)[:, None] * 100 + shift
    xyxy = (np.float32([0, 0, 40, 80]) + np.concatenate([x, x * 0, x, x * 0], axis=1)).astype(
        np.float32
    )
    ids = None if track_ids is None else np.int64(track_ids)
    return Detections(xyxy, np.float32(scores or [0.5] * n), np.int32(labels).reshape(n), ids)


def objects(lost_s=1.0):
    numbers = count(1)
    return Objects(lost_s, (640, 360), lambda: next(numbers))


def test_the_class_of_an_object_is_that_of_most_votes():
    one = objects()
    labels = []
    for n, (label, score) in enumerate([(2, 0.5), (1, 0.9), (2, 0.3), (2, 0.4), (1, 0.2)]):
        labels += one.update(found([label], [score]), np.int64([0]), n).labels.tolist()
    assert labels == [2, 1, 1, 2, 2]


def test_a_box_of_no_object_keeps_its_class_and_votes_for_nobody():
    one = objects()
    for n in range(3):
        tracked = one.update(found([1, 0]), np.int64([-1, 0]), n)
        assert tracked.track_ids.tolist() == [-1, 1]
        assert tracked.labels.tolist() == [1, 0]
    assert len(one) == 1


def test_what_came_in_is_not_changed():
    given = found([1])
    one = objects()
    one.update(found([0], [0.9]), np.int64([0]), 0)
    one.update(given, np.int64([0]), 1)
    assert given.labels.tolist() == [1]


def test_without_boxes_there_are_no_ids():
    tracked = objects().update(Detections.empty(), np.zeros(0, np.int64), 0)
    assert tracked.track_ids.tolist() == []


def test_ten_thousand_objects_later_it_knows_those_of_the_last_seconds():
    one, given = objects(lost_s=1.0), [found([0], shift=300 * (n % 2)) for n in range(62)]
    for n, box in enumerate(given):  # each of another size than all that it still knows
        box.xyxy[:, 3] = 1.21**n
    ids = [
        int(one.update(given[n % 62], np.int64([n]), n * SECOND // 10).track_ids[0])
        for n in range(10_000)
    ]
    assert ids == list(range(1, 10_001))
    assert len(one) <= 31


def test_switches():
    switches, truth = Switches(), found([0, 0], track_ids=[7, 9])
    rows = [([1, 2], 0), ([1, -1], 0), ([1, 3], 1), ([3, 1], 2), ([3, 1], 0)]
    for ids, wanted in rows:
        assert switches.update(found([0, 0], track_ids=ids), truth) == wanted


def test_a_box_somewhere_else_is_no_switch():
    switches, truth = Switches(), found([0], track_ids=[7])
    assert switches.update(found([0], track_ids=[1]), truth) == 0
    assert switches.update(found([0], track_ids=[2], shift=30), truth) == 0
    assert switches.update(found([], track_ids=[]), truth) == 0
