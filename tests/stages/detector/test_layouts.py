import numpy as np
import pytest

from pipeline.errors import ModelError
from stages.detector.bundle import Facts, InputFacts
from stages.detector.layouts import candidates, check


def facts(layout, **more):
    size = InputFacts(width=64, height=64)
    return Facts(
        name="m", architecture="a", classes=("cat", "dog"), input=size, layout=layout, **more
    )


def test_candidates_leaves_out_padding():
    arrays = (np.float32([[1, 2, 3, 4], [0, 0, 0, 0]]), np.float32([0.5, 0]), np.int64([2, 1]))
    found = candidates(arrays, facts("candidates", label_offset=1), 0.0)
    assert found.xyxy.tolist() == [[1, 2, 3, 4]]
    assert (found.labels.tolist(), found.final) == ([1], False)


def test_yolox_multiplies_objectness_and_takes_the_best_class():
    rows = np.float32([[16, 12, 8, 4, 0.5, 0.2, 0.8], [16, 12, 8, 4, 0.01, 1, 1]])
    found = candidates((rows,), facts("yolox"), 0.1)
    assert found.xyxy.tolist() == [[12, 10, 20, 14]]
    assert found.scores.tolist() == pytest.approx([0.4])
    assert found.labels.tolist() == [1]


def test_yolox_raw_is_yolox_before_the_grid():
    raw = np.zeros((84, 7), np.float32)  # 64 px: 8x8 + 4x4 + 2x2 cells
    raw[:, 4:] = 1
    raw[9, :4] = 0.5, 0.25, np.log(2), np.log(4)  # stride 8, cell x 1, y 1
    raw[64 + 6, :4] = 0, 0, 0, 0  # stride 16, cell x 2, y 1
    raw[80 + 3, :4] = 0.5, 0.5, 1, 1  # stride 32, cell x 1, y 1
    xyxy = candidates((raw,), facts("yolox-raw"), 0.5).xyxy
    assert xyxy[9].tolist() == pytest.approx([12 - 8, 10 - 16, 12 + 8, 10 + 16])
    assert xyxy[64 + 6].tolist() == pytest.approx([32 - 8, 16 - 8, 32 + 8, 16 + 8])
    half = 16 * np.e
    assert xyxy[80 + 3].tolist() == pytest.approx([48 - half, 48 - half, 48 + half, 48 + half])


def test_ultralytics_before_and_after_nms():
    dense = np.zeros((6, 10), np.float32)
    dense[:, 3] = 16, 12, 8, 4, 0.1, 0.7
    found = candidates((dense,), facts("ultralytics"), 0.3)
    assert (found.xyxy.tolist(), found.labels.tolist(), found.final) == (
        [[12, 10, 20, 14]],
        [1],
        False,
    )
    after = np.float32([[1, 2, 3, 4, 0.9, 1], [1, 2, 3, 4, 0.2, 0]])
    found = candidates((after,), facts("ultralytics"), 0.3)
    assert (found.xyxy.tolist(), found.labels.tolist(), found.final) == ([[1, 2, 3, 4]], [1], True)


def test_torchvision_is_final():
    arrays = (np.float32([[1, 2, 3, 4]]), np.float32([0.5]), np.int64([1]))
    found = candidates(arrays, facts("torchvision", label_offset=1), 0.3)
    assert (found.labels.tolist(), found.final) == ([0], True)


@pytest.mark.parametrize("layout", ["candidates", "yolox", "ultralytics", "torchvision"])
def test_nothing_found(layout):
    shapes = {"yolox": [(0, 7)], "ultralytics": [(6, 0)]}.get(layout, [(0, 4), (0,), (0,)])
    arrays = [np.zeros(shape, np.float32) for shape in shapes]
    check(arrays, facts(layout), "m")
    found = candidates(arrays, facts(layout), 0.3)
    assert (found.xyxy.shape, found.scores.shape, found.labels.shape) == ((0, 4), (0,), (0,))


def test_detr_with_sigmoids_takes_the_best_of_all_queries_and_classes():
    logits = np.float32([[0, 2], [-9, -9], [3, -9]])  # (queries, classes)
    boxes = np.float32([[0.5, 0.25, 0.5, 0.5], [0.5, 0.5, 1, 1], [0.25, 0.5, 0.125, 0.25]])
    for arrays in ((logits, boxes), (boxes, logits)):
        found = candidates(arrays, facts("detr", activation="sigmoid"), 0.3)
        assert found.final
        assert found.labels.tolist() == [0, 1, 0]  # the first query stands for two
        assert found.scores.tolist() == pytest.approx([0.9526, 0.8808, 0.5], abs=1e-4)
        assert found.xyxy.tolist() == [[12, 24, 20, 40], [16, 0, 48, 32], [16, 0, 48, 32]]


def test_detr_with_a_softmax_has_a_column_for_nothing():
    logits = np.float32([[0, 2, 0], [0, 0, 9]])
    boxes = np.float32([[0.5, 0.25, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    found = candidates((logits, boxes), facts("detr", activation="softmax"), 0.1)
    assert found.labels.tolist() == [1]
    assert found.scores.tolist() == pytest.approx([0.787], abs=1e-3)
    with pytest.raises(ModelError, match=r"logits \(Q, 2\) and boxes \(Q, 4\)"):
        check((logits, boxes), facts("detr", activation="sigmoid"), "m.pt")


@pytest.mark.parametrize(
    ("layout", "shapes", "says"),
    [
        ("candidates", [(5, 4), (5,)], "labels (K,)"),
        ("candidates", [(5, 4), (4,), (5,)], "labels (K,)"),
        ("candidates", [], "nothing"),
        ("yolox", [(9, 85)], "(N, 7) for 2 classes"),
        ("yolox-raw", [(85, 7)], "84 rows for 64x64"),
        ("ultralytics", [(84, 100)], "(6, N) for 2 classes"),
        ("torchvision", [(84, 7)], "boxes (K, 4)"),
    ],
)
def test_what_does_not_fit_is_named(layout, shapes, says):
    arrays = [np.zeros(shape, np.float32) for shape in shapes]
    with pytest.raises(ModelError, match=r"m\.pt: layout") as caught:
        check(arrays, facts(layout), "m.pt")
    assert says in str(caught.value)


def test_undecoded_boxes_are_no_yolox():
    raw = np.full((84, 7), -0.5, np.float32)
    with pytest.raises(ModelError, match="--layout yolox-raw"):
        check((raw,), facts("yolox"), "m.pt")
    check((raw,), facts("yolox-raw"), "m.pt")
