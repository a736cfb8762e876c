"""Where boxes are between two results."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detections import Detections
from pipeline.process.motion import moved


def found(*boxes, labels=None, tracks=None) -> Detections:
    n = len(boxes)
    return Detections(
        np.float32(boxes).reshape(n, 4),
        np.linspace(0.5, 1, n).astype(np.float32),
        np.int32(labels if labels is not None else [0] * n),
        None if tracks is None else np.int64(tracks),
    )


@pytest.mark.parametrize(("share", "x"), [(0, 0), (0.5, 5), (1, 10), (2, 20), (2.5, 25)])
def test_a_box_goes_straight_on_and_keeps_its_size(share, x):
    here = moved(found([0, 0, 40, 80]), found([8, 1, 52, 79]), share)
    assert here.xyxy[0, 2:] - here.xyxy[0, :2] == pytest.approx([44, 78])
    assert (here.xyxy[0, 0] + here.xyxy[0, 2]) / 2 == pytest.approx(20 + x)


def test_each_goes_its_own_way():
    first = found([0, 0, 20, 20], [100, 0, 120, 20])
    last = found([90, 0, 110, 20], [10, 0, 30, 20], tracks=[7, 3])
    here = moved(first, last, 2)
    assert here.xyxy[:, 0].tolist() == [80, 20]
    assert here.track_ids.tolist() == [7, 3]


def test_what_was_not_there_before_has_no_speed_and_is_left_out():
    first = found([0, 0, 20, 20])
    assert len(moved(first, found([100, 0, 120, 20]), 2)) == 0
    assert len(moved(first, found([0, 0, 20, 20], labels=[1]), 2)) == 0
    both = moved(first, found([0, 0, 20, 20], [5, 5, 25, 25]), 2)  # one partner is one thing
    assert both.xyxy[:, 0].tolist() == [0]


def test_a_followed_object_is_known_by_its_id_wherever_it_went():
    first = found([0, 0, 20, 20], [100, 0, 120, 20], [50, 0, 70, 20], tracks=[3, 7, -1])
    last = found([40, 0, 60, 20], [101, 0, 121, 20], [52, 0, 72, 20], tracks=[3, 8, -1])
    here = moved(first, last, 2)
    assert here.track_ids.tolist() == [3, -1]  # 8 was not there before
    assert here.xyxy[:, 0].tolist() == [80, 54]


@pytest.mark.parametrize("first", [found(), found([0, 0, 2, 2])])
def test_nothing_found_moves_nothing(first):
    assert len(moved(first, found(), 2)) == 0
    assert len(moved(found(), first, 2)) == 0


BOXES = st.lists(st.tuples(*[st.floats(0, 4000, width=32)] * 4), max_size=6)


@given(BOXES, BOXES, st.floats(-10, 10))
def test_any_boxes_give_boxes(first, last, share):
    def sorted_boxes(boxes):
        corners = np.sort(np.float32(boxes).reshape(-1, 2, 2), axis=1)
        return found(*corners.reshape(-1, 4))

    first, last = sorted_boxes(first), sorted_boxes(last)
    here = moved(first, last, share)
    assert len(here) <= min(len(first), len(last))
