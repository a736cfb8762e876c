import numpy as np
import pytest

from pipeline.detections import Fit
from stages.detector.bundle import Defaults, Facts, InputFacts
from stages.detector.decode import Options, detections_from

SIZE = (200, 100)  # px of the source, twice the inner picture
FIT = Fit(
    scale_x=0.5, scale_y=0.5, offset_x_px=0, offset_y_px=25
)  # in 100x100: bars above and below
FACTS = Facts(
    name="m",
    architecture="a",
    classes=("cat", "dog", "cow"),
    input=InputFacts(width=100, height=100),
    layout="candidates",
    defaults=Defaults(score_threshold=0.3, iou_threshold=0.5, max_detections=3),
)


def decode(rows, options=None, facts=FACTS):
    """rows: (x1, y1, x2, y2, score, label) in input px."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    arrays = (table[:, :4], table[:, 4], table[:, 5].astype(np.int64))
    return detections_from(arrays, facts, FIT, SIZE, options or Options())


def test_back_to_the_source():
    found = decode([(10, 30, 20, 40, 0.9, 1)])
    assert found.xyxy.tolist() == [[20, 10, 40, 30]]
    assert found.labels.tolist() == [1]


def test_nothing():
    assert len(decode([])) == 0
    assert len(decode([(10, 30, 20, 40, 0.3, 1)])) == 0  # not above the threshold


def test_best_first_and_at_most_max_detections():
    rows = [(10 * i, 30, 10 * i + 5, 40, 0.4 + i / 100, 0) for i in range(5)]
    assert decode(rows).scores.tolist() == pytest.approx([0.44, 0.43, 0.42])
    assert len(decode(rows, Options(max_detections=5))) == 5


def test_nms_within_a_class_only():
    rows = [(10, 30, 30, 50, 0.9, 0), (11, 30, 31, 50, 0.8, 0), (11, 30, 31, 50, 0.7, 1)]
    assert decode(rows).scores.tolist() == pytest.approx([0.9, 0.7])
    assert len(decode(rows, Options(iou_threshold=0.99))) == 3


def test_clipped_to_the_picture_before_nms():
    # both look out into the bar above; in the picture (y >= 25) they are the same box
    rows = [(10, 0, 30, 35, 0.9, 0), (10, 20, 30, 35, 0.8, 0)]
    found = decode(rows)
    assert found.xyxy.tolist() == [[20, 0, 60, 20]]


def test_thresholds_per_class_and_class_filter():
    rows = [(10, 30, 20, 40, 0.5, 0), (30, 30, 40, 40, 0.5, 1), (50, 30, 60, 40, 0.1, 2)]
    assert decode(rows, Options(per_class={0: 0.6, 2: 0.05})).labels.tolist() == [1, 2]
    assert decode(rows, Options(classes=frozenset({1}))).labels.tolist() == [1]
    assert len(decode(rows, Options(classes=frozenset()))) == 0
    assert len(decode(rows, Options(score_threshold=0.05))) == 3


def test_garbage_is_ignored():
    nan, inf = np.nan, np.inf
    rows = [
        (nan, 30, 20, 40, 0.9, 0),
        (10, 30, inf, 40, 0.9, 0),
        (20, 30, 10, 40, 0.9, 0),
        (10, 30, 20, 40, nan, 0),
        (10, 30, 20, 40, inf, 0),
        (10, 30, 20, 40, 0.9, 3),
        (10, 30, 20, 40, 0.9, -1),
        (10, 30, 20, 40, 0.8, 0),
    ]
    assert decode(rows).scores.tolist() == pytest.approx([0.8])


def test_final_boxes_are_not_thinned_out():
    rows = [(10, 30, 30, 50, 0.8, 0), (10, 30, 30, 50, 0.9, 0)]
    facts = Facts(
        **{f: getattr(FACTS, f) for f in FACTS.__dataclass_fields__} | {"layout": "torchvision"}
    )
    assert decode(rows, facts=facts).scores.tolist() == pytest.approx([0.9, 0.8])
