"""The filter in numbers against the library's own in matrices, set up as ByteTrack does it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trackers.core.bytetrack.tracklet import ByteTrackTracklet
from trackers.utils.predict_timing import PredictTiming
from trackers.utils.state_representations import XCYCSRStateEstimator

from stages.track.estimator import BoxEstimator

sides = st.floats(4, 200)
boxes = st.builds(
    lambda x, y, w, h: np.array([x, y, x + w, y + h]), st.floats(0, 1900), st.floats(0, 1000), sides, sides
)  # fmt: skip
steps = st.floats(0.2, 30) | st.just(1.0)


@given(first=boxes, ways=st.lists(st.tuples(steps, st.none() | boxes), max_size=20))
def test_boxes_are_those_of_the_library(first, ways):
    ours, theirs = (ByteTrackTracklet(first, kind) for kind in (BoxEstimator, XCYCSRStateEstimator))
    for step, seen in ways:
        timing = PredictTiming(frame_step=step, elapsed_seconds=step / 30, frame_rate=30.0)
        for track in (ours, theirs):
            track.predict(timing)
            if seen is not None:
                track.update(seen)
        assert ours.get_state_bbox() == pytest.approx(theirs.get_state_bbox(), rel=1e-6, abs=1e-5)


@given(first=boxes, seen=st.lists(boxes, max_size=4))
def test_a_filter_goes_on_from_its_numbers(first, seen):
    before = BoxEstimator(first)
    after = BoxEstimator(np.zeros(4))
    for box in seen:
        before.predict(2.0)
        before.update(box)
    after.set_numbers(list(before.numbers()))
    for one in (before, after):
        one.predict(3.0)
        one.update(first)
    assert after.state_to_bbox() == before.state_to_bbox()


def test_a_box_without_an_area_stays_one():
    flat = BoxEstimator(np.array([10.0, 20.0, 10.0, 60.0]))
    flat.predict(5.0)
    assert flat.state_to_bbox() == (10, 40, 10, 40)
