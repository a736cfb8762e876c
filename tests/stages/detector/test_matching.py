import numpy as np

from pipeline.detections import Detections
from stages.detector.matching import iou_matrix, match


def boxes(*rows):
    """rows: (x1, y1, x2, y2, score, label)."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4].copy(), table[:, 4].copy(), table[:, 5].astype(np.int32))


def test_iou():
    a = np.float32([[0, 0, 2, 2], [5, 5, 5, 5]])
    b = np.float32([[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 5, 5]])
    assert np.allclose(iou_matrix(a, b), [[1, 1 / 3, 0], [0, 0, 0]])


def test_best_score_chooses_first_and_each_box_counts_once():
    truth = boxes((0, 0, 10, 10, 1, 0))
    found = boxes((0, 0, 10, 10, 0.5, 0), (0, 0, 10, 9, 0.9, 0))
    assert match(found, truth, 0.5) == [(1, 0)]


def test_only_within_a_class():
    assert match(boxes((0, 0, 9, 9, 1, 1)), boxes((0, 0, 9, 9, 1, 0)), 0.5) == []


def test_empty():
    some = boxes((0, 0, 9, 9, 1, 0))
    for found, truth in ((boxes(), some), (some, boxes()), (boxes(), boxes())):
        assert match(found, truth, 0.5) == []
