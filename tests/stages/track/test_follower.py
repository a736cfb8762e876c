"""Boxes that move as objects do, followed over dropped frames; the library itself is the oracle."""

import numpy as np
import pytest
import supervision as sv
from hypothesis import given, settings
from hypothesis import strategies as st
from trackers import ByteTrackTracker, OCSORTTracker
from trackers.utils.state_representations import XCYCSRStateEstimator

from pipeline.detections import Detections
from stages.track.follower import FollowerConfig, LibraryFollower
from stages.track.likeness import NOBODY, Likeness

SECOND = 1_000_000_000
TYPES = ("bytetrack", "ocsort")
SIDE = np.float32([40, 80])


def found(centers, scores=None):
    """Boxes of 40x80 px around centers (N, 2)."""
    centers = np.asarray(centers, np.float32).reshape(-1, 2)
    n = len(centers)
    xyxy = np.concatenate([centers - SIDE / 2, centers + SIDE / 2], axis=1)
    scores = np.full(n, 0.9, np.float32) if scores is None else np.float32(scores)
    return Detections(xyxy, scores, np.zeros(n, np.int32))


def lanes(t_s):
    """Five objects in lanes of their own, two of them leftward, up to 90 px a second."""
    speed = np.array([60, -60, 30, 90, -45])
    return np.stack([320 + speed * (t_s - 3), 60 + 90 * np.arange(5)], axis=1)


def follow(follower, times_s, at, order=None):
    """The ids (len(times), 5) of objects that are all found at all times."""
    rows = []
    for t_s in times_s:
        centers = at(t_s)
        places = np.arange(len(centers)) if order is None else order.permutation(len(centers))
        ids = follower.update(found(centers[places]), int(t_s * SECOND))
        row = np.empty(len(centers), np.int64)
        row[places] = ids
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize(
    ("kind", "rate_hz"),  # OC-SORT wants boxes that overlap, which 5 Hz and drops don't leave
    [("bytetrack", 5), ("bytetrack", 8), ("bytetrack", 25), ("ocsort", 8), ("ocsort", 25)],
)
@pytest.mark.parametrize("kept", ["all", "half", "bursts"])
def test_objects_keep_their_ids_whatever_frames_are_dropped(kind, rate_hz, kept):
    times = np.arange(0, 6, 1 / rate_hz)
    keep = np.ones(len(times), bool)
    if kept == "half":
        keep = np.random.default_rng(1).random(len(times)) < 0.5
    elif kept == "bursts":  # half a second, half a second not
        keep = (times % 1) < 0.5
    ids = follow(LibraryFollower(FollowerConfig(type=kind)), times[keep], lanes)
    for column in ids.T:
        assert len(set(column.tolist()) - {-1}) == 1
    assert len(set(ids[-1].tolist())) == 5
    assert (ids[4:] >= 0).all()


@pytest.mark.parametrize("kind", TYPES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10)
def test_at_the_librarys_own_rate_the_ids_are_the_librarys_own(kind, seed):
    rng = np.random.default_rng(seed)
    likeness = Likeness()
    if kind == "ocsort":
        theirs = OCSORTTracker(lost_track_buffer=90, high_conf_det_threshold=0.0)
    else:
        theirs = ByteTrackTracker(
            lost_track_buffer=90, track_activation_threshold=0.0, high_conf_det_threshold=0.0,
            iou=likeness, minimum_iou_threshold=0.0, state_estimator_class=XCYCSRStateEstimator,
        )  # fmt: skip
    ours = LibraryFollower(FollowerConfig(type=kind))
    centers, speed = rng.uniform(50, 500, (6, 2)), rng.uniform(-4, 4, (6, 2))
    for frame in range(40):
        seen = rng.random(6) < 0.8
        boxes = found((centers + speed * frame)[seen], rng.uniform(0.1, 1, seen.sum()))
        likeness.expect(lambda: [NOBODY] * len(theirs.tracks), boxes, 1 / 30)
        given_ = sv.Detections(boxes.xyxy, None, boxes.scores, np.arange(len(boxes)))
        taken = theirs.update(given_, timestamp=1 + frame / 30)
        wanted = np.full(len(boxes), -1)
        if len(taken):
            wanted[taken.class_id] = taken.tracker_id
        assert ours.update(boxes, frame * SECOND // 30).tolist() == wanted.tolist()


def test_ids_are_in_the_order_of_the_boxes():
    times = np.arange(0, 4, 0.1)
    shuffled = follow(LibraryFollower(FollowerConfig()), times, lanes, np.random.default_rng(3))
    assert (shuffled[2:] == shuffled[2]).all()
    assert len(set(shuffled[2].tolist())) == 5


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("away_s", "same"), [(1.5, True), (3.5, False)])
def test_an_object_is_the_same_until_it_was_lost_for_too_long(kind, away_s, same):
    follower = LibraryFollower(FollowerConfig(type=kind, lost_s=2.5))
    step, nothing = SECOND // 10, found([])
    for n in range(10):
        before = follower.update(found([[100, 100]]), n * step)
    away = round(away_s * 10)
    for n in range(10, 10 + away):
        assert follower.update(nothing, n * step).tolist() == []
    for n in range(10 + away, 16 + away):
        after = follower.update(found([[100, 100]]), n * step)
    assert before[0] >= 0
    assert after[0] >= 0
    assert (before[0] == after[0]) == same


def test_confirm_frames_and_new_score():
    follower = LibraryFollower(FollowerConfig(confirm_frames=4, new_score=0.5))
    rows = [
        follower.update(found([[100, 100], [400, 300]], [0.6, 0.4]), n * SECOND // 10).tolist()
        for n in range(6)
    ]
    assert [row[0] for row in rows] == [-1, -1, -1, 0, 0, 0]
    assert {row[1] for row in rows} == {-1}


def test_a_camera_may_change_its_rate():
    follower = LibraryFollower(FollowerConfig())
    times = np.concatenate([np.arange(0, 3, 0.04), np.arange(3, 6, 0.2)])
    ids = follow(follower, times, lanes)
    assert (ids[2:] == ids[2]).all()
