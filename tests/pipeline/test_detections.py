"""Detections are checked once, on construction; a Fit leads there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detections import Detections, Fit

GOOD = {
    "xyxy": np.float32([[0, 0, 4, 2]]),
    "scores": np.float32([0.9]),
    "labels": np.int32([1]),
    "track_ids": np.int64([5]),
}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("xyxy", [[0, 0, 4, 2]], "xyxy: must be float32 (1, 4), got list"),
        ("xyxy", np.zeros((1, 4)), "xyxy: must be float32 (1, 4), got float64 (1, 4)"),
        ("xyxy", np.zeros(4, np.float32), "xyxy: must be float32 (1, 4), got float32 (4,)"),
        ("xyxy", np.zeros((2, 4), np.float32), "xyxy: must be float32 (1, 4), got float32 (2, 4)"),
        ("xyxy", np.float32([[0, 0, np.nan, 2]]), "must be finite"),
        ("xyxy", np.float32([[0, 0, np.inf, 2]]), "must be finite"),
        ("xyxy", np.float32([[5, 0, 4, 2]]), "x1 <= x2"),
        ("xyxy", np.float32([[0, 3, 4, 2]]), "y1 <= y2"),
        ("scores", np.float32(0.9), "must be float32"),
        ("scores", None, "must be float32"),
        ("scores", np.float32([np.nan]), "must be finite"),
        ("scores", np.float64([0.9]), "scores: must be float32 (1,), got float64 (1,)"),
        ("labels", np.int64([1]), "labels: must be int32 (1,), got int64 (1,)"),
        ("labels", np.int32([[1]]), "labels: must be int32 (1,), got int32 (1, 1)"),
        ("track_ids", np.int32([5]), "track_ids: must be int64 (1,), got int32 (1,)"),
        ("track_ids", np.int64([]), "track_ids: must be int64 (1,), got int64 (0,)"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_wanted(field, value, message):
    with pytest.raises(ValueError, match=r"^Detections") as error:
        Detections(**{**GOOD, field: value})
    assert message in str(error.value)


def test_a_box_may_be_a_point():
    assert len(Detections(np.float32([[1, 1, 1, 1]]), np.float32([1]), np.int32([0]))) == 1


def test_nothing_found():
    empty = Detections.empty()
    assert len(empty) == len(empty[empty.scores > 0]) == 0
    assert (empty.xyxy.shape, empty.track_ids) == ((0, 4), None)
    with pytest.raises(ValueError, match="xyxy"):
        Detections(np.zeros((0, 5), np.float32), empty.scores, empty.labels)


def test_all_fields_are_chosen_together():
    found = Detections(
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.float32([0.1, 0.9, 0.5]),
        np.int32([0, 1, 2]),
        np.int64([10, 11, 12]),
    )
    best = found[np.argsort(-found.scores)]
    assert best.labels.tolist() == [1, 2, 0]
    assert best.track_ids is not None
    assert best.track_ids.tolist() == [11, 12, 10]
    assert found[found.scores > 0.4].xyxy.tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert len(found[:2]) == 2


@given(
    st.tuples(st.integers(1, 8192), st.integers(1, 8192)),
    st.tuples(st.integers(16, 2048), st.integers(16, 2048)),
    st.booleans(),
    st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 4), max_size=8),
)
def test_there_and_back_is_the_same_box(source_wh, input_wh, stretch, corners):
    (width, height), (in_w, in_h) = source_wh, input_wh
    scales = in_w / width, in_h / height
    if not stretch:
        scales = (min(scales), min(scales))
    fit = Fit(
        scale_x=scales[0],
        scale_y=scales[1],
        offset_x_px=(in_w - width * scales[0]) / 2,
        offset_y_px=(in_h - height * scales[1]) / 2,
    )
    xyxy = np.float32(corners).reshape(-1, 4) * np.float32([width, height] * 2)
    there = fit.to_input(xyxy)
    assert there.dtype == np.float32
    back = fit.to_source(there, source_wh)
    assert (back.dtype, back.shape) == (np.float32, xyxy.shape)
    # 1e-3 px of the input; where the source is larger, float32 leaves as much of its pixels.
    assert np.abs(back - xyxy).max(initial=0) <= 1e-3 * max(1, *(1 / s for s in scales))


def test_boxes_that_stick_out_are_clipped_to_the_picture():
    fit = Fit(scale_x=2.0, scale_y=1.0, offset_y_px=10.0)
    boxes = np.float32([[-5, 0, 500, 500], [0, 10, 20, 20]])
    assert fit.to_source(boxes, (100, 50)).tolist() == [[0, 0, 100, 50], [0, 0, 10, 10]]
    assert boxes.tolist() == [[-5, 0, 500, 500], [0, 10, 20, 20]]
    assert fit.to_source(np.zeros((0, 4), np.float32), (100, 50)).shape == (0, 4)
