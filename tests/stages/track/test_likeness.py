"""The library's DIoU is the oracle; height and class count, too."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trackers import DIoU

from pipeline.detections import Detections
from stages.track.likeness import Known, Likeness
from stages.track.stitching import Place

SIDE = st.floats(1, 300, width=32)
BOXES = st.lists(st.tuples(SIDE, SIDE, SIDE, SIDE), max_size=6).map(
    lambda rows: np.array([(x, y, x + w, y + h) for x, y, w, h in rows], float).reshape(-1, 4)
)


@given(BOXES, BOXES)
def test_without_classes_it_is_the_librarys(one, other):
    theirs = DIoU().compute(one, other)
    np.testing.assert_allclose(Likeness().compute(one, other), theirs, atol=1e-6)


def compared(track, boxes, votes, *, label=0, score=1.0, interval_s=0.04, at=None, unseen_s=0.0):
    """What a track with votes is to boxes that are all of a class."""
    xyxy = np.float32(boxes)
    found = Detections(
        xyxy, np.full(len(xyxy), score, np.float32), np.full(len(xyxy), label, np.int32)
    )
    likeness = Likeness()
    likeness.expect(lambda: [Known(votes, at, unseen_s)], found, interval_s)
    return likeness.compute(np.array([track], float), xyxy)[0]


TRACK = [0, 0, 40, 80]
HALF, ALL = [20, 0, 60, 80], [2, 0, 42, 80]


@pytest.mark.parametrize(
    ("votes", "half", "all_"),
    [
        ({1: 20.0}, False, True),  # of another class, for sure
        ({1: 20.0, 0: 16.0}, True, True),  # it was taken for that class before
        ({1: 0.3}, True, True),  # weak votes
        ({0: 20.0}, True, True),
        ({}, True, True),  # seen once
    ],
)
def test_a_box_of_another_class_takes_a_track_if_it_lies_on_it_or_the_votes_are_weak(
    votes, half, all_
):
    assert (compared(TRACK, [HALF, ALL], votes) >= 0).tolist() == [half, all_]


def test_a_box_of_another_class_with_a_low_score_says_little_against_a_track():
    assert compared(TRACK, [HALF], {1: 20.0}, score=0.1) >= 0


def test_the_class_that_a_track_has_had_is_liked_best():
    votes = {0: 10.0, 1: 6.0}
    first, second, never = (compared(TRACK, [ALL], votes, label=label) for label in (0, 1, 2))
    assert first > second > never


@pytest.mark.parametrize("interval_s", [0.1, 0.8])
def test_after_a_gap_one_of_the_same_height_is_liked_best(interval_s):
    boxes = [[9, 0, 49, 80], [0, 18, 40, 98], [0, 0, 40, 51]]
    same, lower, smaller = compared(TRACK, boxes, {}, interval_s=interval_s)
    assert same > max(lower, smaller)


def test_who_was_unseen_is_as_large_and_as_high_as_it_was_where_its_filter_has_it():
    blown_up, at = [-50, -90, 110, 130], Place(x=-10, y=40, height=80, width=40)
    (seen,) = compared(blown_up, [ALL], {0: 9.0}, at=at, unseen_s=0.04)
    (unseen,) = compared(blown_up, [[10, 0, 50, 80]], {0: 9.0}, at=at, unseen_s=0.8)
    assert seen < 0.5
    assert unseen > 0.99


@pytest.mark.parametrize(("unseen_s", "may_be"), [(0.04, True), (0.8, False)])
def test_who_was_unseen_is_nobody_of_another_height_though_others_were_seen_just_now(
    unseen_s, may_be
):
    at = Place(x=20, y=40, height=80, width=40)
    (alike,) = compared(TRACK, [[0, 32, 40, 80]], {0: 9.0}, at=at, unseen_s=unseen_s)
    assert (alike >= 0) == may_be


@given(BOXES, BOXES, st.integers(0, 3))
def test_pairs_that_cannot_be_are_all_as_unlike(one, other, label):
    found = Detections(
        other.astype(np.float32), np.ones(len(other), np.float32), np.zeros(len(other), np.int32)
    )
    likeness = Likeness()
    known = Known({label: 9.0}, None, 0.0)
    likeness.expect(lambda: [known] * len(one), found, 0.04)
    alike = likeness.compute(one, other)
    assert len(set(alike[alike < 0].tolist())) <= 1


def test_who_was_seen_once_may_be_beside_its_place_if_the_last_picture_is_long_ago():
    boxes = [[30, 0, 50, 40], [30, 0, 50, 60]]
    for interval_s, alike in [(0.04, [False, False]), (0.2, [True, False])]:
        found = compared([0, 0, 20, 40], boxes, {}, interval_s=interval_s)
        assert (found >= 0).tolist() == alike
