"""What is measured of drawn boxes, and that the measured run draws as any other."""

import numpy as np
import pytest

from benchmarks.boxes import Part, Row, _asked, ious, run, staying
from pipeline.accounts.layout import DETECT, VIEW
from pipeline.plan import config as configuration
from pipeline.plan.standard import make

NONE = ([], [])


def box(x, label=0):
    return [[x, 0, x + 10, 10]], [label]


def row(frame_id, drawn=NONE, truth=NONE, camera="cam0"):
    return Row(camera=camera, frame_id=frame_id, age_ms=1, drawn=drawn, truth=truth)


def test_a_box_is_compared_with_objects_of_its_class():
    two = ([*box(0)[0], *box(5)[0]], [0, 1])
    assert ious(box(0), two).tolist() == [[1, 0]]
    assert ious(box(5, 1), two)[0] == pytest.approx([0, 1])
    assert ious(NONE, two).shape == (0, 2)
    assert ious(two, NONE).shape == (2, 0)


def test_boxes_that_stay_are_those_of_the_last_result_before():
    rows = [row(n, truth=box(5 * n)) for n in range(4)]
    results = {("cam0", 0): box(0), ("cam0", 2): box(10), ("other", 2): box(0)}
    values = staying(Part(rows=rows, results=results))
    assert values == pytest.approx([1 / 3, 0, 1 / 3])  # frames 1, 2 and 3


def test_only_detection_is_asked_for_less():
    plan = _asked(5.0)(make(configuration.from_sources(["synthetic://"], video="unused")))
    (capture,) = (spec for spec in plan.processes if spec.role == "source")
    assert {edge.paths: edge.max_hz for edge in capture.outputs} == {(DETECT,): 5.0, (VIEW,): None}


def test_what_a_run_draws_is_noted_with_its_truth():
    part = run(1, 10.0, 3.0)
    assert len(part.rows) >= len(part.results) > 0
    drawn = [iou for row in part.rows for iou in ious(row.drawn, row.truth).max(axis=1, initial=0)]
    assert np.median(drawn) > 0.6  # on a busy machine most are moved on
