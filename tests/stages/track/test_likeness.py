"""The library's DIoU is the oracle; classes count where boxes hardly meet."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from trackers import DIoU

from stages.track.likeness import Likeness

SIDE = st.floats(1, 300, width=32)
BOXES = st.lists(st.tuples(SIDE, SIDE, SIDE, SIDE), max_size=6).map(
    lambda rows: np.array([(x, y, x + w, y + h) for x, y, w, h in rows], float).reshape(-1, 4)
)


@given(BOXES, BOXES)
def test_without_classes_it_is_the_librarys(one, other):
    theirs = DIoU().compute(one, other)
    np.testing.assert_allclose(Likeness().compute(one, other), theirs, atol=1e-6)


def test_two_classes_are_alike_only_where_the_boxes_clearly_overlap():
    track, found = np.array([[0.0, 0, 40, 80]]), np.array([[0.0, 5, 40, 85], [35, 0, 75, 80]])
    likeness = Likeness()
    likeness.least = -0.5  # as far apart as a tracker might allow
    for of_track, alike in [(0, [True, True]), (1, [True, False]), (-1, [True, True])]:
        likeness.expect(lambda label=of_track: np.int32([label]), np.int32([0, 0]), 0.04)
        assert (likeness.compute(track, found)[0] > -0.5).tolist() == alike
    assert (likeness.compute(track, found)[0] > -0.5).all()  # nobody said of which class they are


def test_who_was_seen_once_may_be_beside_its_place_if_the_last_picture_is_long_ago():
    track, found = np.array([[0.0, 0, 20, 40]]), np.array([[30.0, 0, 50, 40], [30.0, 0, 50, 60]])
    likeness = Likeness()
    for interval_s, alike in [(0.04, [False, False]), (0.2, [True, False])]:
        likeness.expect(lambda: np.int32([-1]), np.int32([0, 0]), interval_s)
        assert (likeness.compute(track, found)[0] >= 0).tolist() == alike
