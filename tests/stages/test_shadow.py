"""A model that looks on is compared with the one that delivers: what both find, and what only one does."""

import numpy as np
import pytest

from pipeline.detections import Detections
from pipeline.errors import ConfigError
from pipeline.messages import SHADOW, FrameInfo, Result
from stages.compare import COMPARED, Compare, CompareConfig

CLASSES = ("person", "car", "truck")


def result(frame_id, *found, is_new=False, camera="gate"):
    """found: (label, left edge in px) of boxes of 10 px."""
    boxes = [(x, 0, x + 10, 10) for _, x in found]
    detections = Detections(
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.full(len(found), 0.9, np.float32),
        labels=np.array([label for label, _ in found], np.int32),
    )
    info = FrameInfo(camera, frame_id, 0, 0, 100, 100)
    return Result(info=info, detections=detections, model_id=SHADOW * is_new + "5c1e")


def counted(*results):
    stage = Compare(CompareConfig(classes=CLASSES))
    names = stage.counters(stage.config)
    for one in results:
        stage.process(one)
    found = {name: stage.runtime.counted(name, "gate") for name in names}
    return {name: n for name, n in found.items() if n}


def test_what_both_find_and_what_only_one_does_is_counted_by_its_class():
    old = result(7, (0, 0), (1, 40), (1, 80))
    new = result(7, (0, 2), (2, 40), (0, 60), is_new=True)
    wanted = {
        COMPARED: 1, "both:person": 1, "only_new:truck": 1, "only_new:person": 1, "only_old:car": 2,
    }  # fmt: skip
    assert counted(old, new) == wanted
    assert counted(new, old) == wanted  # whoever is faster


def test_only_results_of_one_frame_of_one_camera_are_compared():
    assert counted() == {}
    assert counted(result(1), result(2, is_new=True), result(1, camera="yard", is_new=True)) == {}
    assert counted(result(3), result(3)) == {}  # it came again
    assert counted(result(4), result(4, is_new=True)) == {COMPARED: 1}


def test_a_shadow_that_falls_behind_keeps_nothing_for_ever():
    old = [result(n, (0, 0)) for n in range(1000)]
    assert counted(*old, result(0, is_new=True)) == {}
    assert counted(*old, result(999, is_new=True)) == {COMPARED: 1, "only_old:person": 1}


def test_a_threshold_out_of_range_is_refused():
    with pytest.raises(ConfigError, match=r"within 0\.\.1, got 50"):
        Compare.check(CompareConfig(classes=CLASSES, iou_threshold=50))
