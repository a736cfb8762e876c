"""Tracks that break: what is joined, and what is not."""

from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detections import Detections
from stages.track.objects import Objects

SIZE = (640, 360)
FRAME_NS = 100_000_000
SPEED = 60  # px a second, rightward


def boxes(*at, label=0, height=80, width=40):
    """Boxes around points."""
    middle = np.float32(at).reshape(-1, 2)
    half = np.float32([width / 2, height / 2])
    n = len(middle)
    xyxy = np.concatenate([middle - half, middle + half], axis=1)
    return Detections(xyxy, np.full(n, 0.9, np.float32), np.full(n, label, np.int32))


def after_a_break(x, y=180, *, unseen=5, start=100, seen=11, width=40, **box):
    """The ids of an object that was followed for some frames, and of who is at (x, y) after a gap."""
    numbers = count(1)
    objects = Objects(3.0, SIZE, lambda: next(numbers))
    for n in range(11 - seen, 11):
        found = boxes((start + SPEED * n / 10, 180), width=width)
        first = objects.update(found, np.int64([0]), n * FRAME_NS)
    t_ns = (10 + unseen) * FRAME_NS
    second = objects.update(boxes((x, y), width=width, **box), np.int64([1]), t_ns)
    return first.track_ids.tolist()[0], second.track_ids.tolist()[0]


@pytest.mark.parametrize("unseen", [1, 5, 10, 20])
def test_who_is_where_it_would_be_by_now_is_the_same(unseen):
    here = 160 + SPEED * unseen / 10
    assert after_a_break(here, unseen=unseen) == (1, 1)
    assert after_a_break(here + 30, 190, unseen=unseen) == (1, 1)


def test_the_longer_it_was_unseen_the_further_away_it_may_be():
    assert after_a_break(166 + 100, unseen=1) == (1, 2)
    assert after_a_break(160 + 2 * SPEED + 100, unseen=20) == (1, 1)


def test_what_is_long_may_be_further_away_since_it_is_fast():
    assert after_a_break(166 + 200, unseen=1) == (1, 2)
    assert after_a_break(166 + 200, unseen=1, width=200) == (1, 1)


def test_who_was_hardly_seen_may_be_further_away_since_nobody_knows_how_fast_it_was():
    assert after_a_break(160 + SPEED / 2 + 150) == (1, 2)
    assert after_a_break(160 + SPEED / 2 + 150, seen=4) == (1, 1)


@pytest.mark.parametrize("box", [{"label": 1}, {"height": 100}, {"height": 60}, {"unseen": 51}])
def test_another_class_or_height_or_too_long_a_time_is_another_object(box):
    unseen = box.pop("unseen", 5)
    assert after_a_break(160 + SPEED * unseen / 10, unseen=unseen, **box) == (1, 2)


def test_one_box_of_a_bad_height_does_not_make_it_another_object():
    numbers = count(1)
    objects = Objects(3.0, SIZE, lambda: next(numbers))
    for n in range(11):
        found = boxes((100, 180), height=80 if n < 10 else 96)
        objects.update(found, np.int64([0]), n * FRAME_NS)
    again = objects.update(boxes((100, 180)), np.int64([1]), 15 * FRAME_NS)
    assert again.track_ids.tolist() == [1]


def test_who_has_left_the_picture_is_not_who_comes_in_there():
    assert after_a_break(630, start=570, unseen=10) == (1, 2)


def test_a_track_that_comes_back_after_another_took_its_place_is_another_object():
    numbers = count(1)
    objects = Objects(3.0, SIZE, lambda: next(numbers))
    rows = []
    for n, keys in enumerate([[0], [0], [5], [0, 5], [0, 5]]):
        found = boxes(*[(100 + 3 * k, 100) for k in keys])
        rows.append(objects.update(found, np.int64(keys), n * FRAME_NS).track_ids.tolist())
    assert rows == [[1], [1], [1], [2, 1], [2, 1]]


FRAME = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 640)), unique_by=lambda one: one[0])


@given(st.lists(FRAME, max_size=40), st.lists(st.integers(1, 30), min_size=40, max_size=40))
def test_ids_are_those_of_one_box_each_and_new_ones_were_never_used(frames, steps):
    numbers = count(1)
    objects = Objects(1.0, SIZE, lambda: next(numbers))
    seen_ns, t_ns, keep_ns = {}, 0, 3 * 10**9
    for frame, step in zip(frames, steps, strict=False):
        t_ns += step * FRAME_NS
        found = boxes(*[(x, 100) for _, x in frame])
        keys = np.array([key for key, _ in frame], np.int64)
        ids = objects.update(found, keys, t_ns).track_ids.tolist()
        assert len(set(ids)) == len(ids)
        for one in ids:
            assert one in seen_ns or one == len(seen_ns) + 1
            assert t_ns - seen_ns.get(one, t_ns) <= keep_ns
            seen_ns[one] = t_ns
