"""The evaluation: equal to pycocotools, consistent with itself, right on cases known by hand."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.detections import Detections
from pipeline.errors import DataError
from stages.training.datasets import DataSet, Sample, load
from stages.training.detection_files import read_detections
from stages.training.evaluate import evaluate
from stages.training.figures import FIGURES, coco_results, coco_truth

CLASSES = ("car", "person", "dog")


def found(*rows: tuple[float, ...]) -> Detections:
    """Rows of x1, y1, x2, y2, score, label."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(
        table[:, :4].astype(np.float32),
        table[:, 4].astype(np.float32),
        table[:, 5].astype(np.int32),
    )


def sample(image_id: int, *rows: tuple[float, ...]) -> Sample:
    """Rows of x1, y1, x2, y2, label, crowd, difficult."""
    table = np.array(rows, np.float64).reshape(-1, 7)
    return Sample(
        path=Path(f"{image_id}.jpg"),
        width=200,
        height=200,
        xyxy=table[:, :4].astype(np.float32),
        labels=table[:, 4].astype(np.int32),
        crowd=table[:, 5].astype(bool),
        difficult=table[:, 6].astype(bool),
        image_id=image_id,
        group="",
    )


def data_set(*samples: Sample, classes: tuple[str, ...] = CLASSES) -> DataSet:
    return DataSet(name="test", classes=classes, samples=samples, problems=(), sha256="0" * 64)


def oracle(truth: dict, results: list[dict], folder: Path) -> list[float]:
    """The twelve figures of pycocotools, of files."""
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = COCO(str(folder / "truth.json"))
        if results:
            detected = annotated.loadRes(str(folder / "found.json"))
        else:  # its loadRes cannot read an empty list
            detected = COCO()
            detected.dataset = {**annotated.dataset, "annotations": []}
            detected.createIndex()
        judge = COCOeval(annotated, detected, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return list(judge.stats)


sides = st.integers(0, 160).map(lambda v: v / 4)
edges = st.integers(1, 480).map(lambda v: v / 4)
boxes = st.tuples(sides, sides, edges, edges).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
objects = st.tuples(boxes, st.integers(0, 2), st.sampled_from((0, 0, 0, 1))).map(
    lambda o: (*o[0], o[1], o[2], 0)
)
shifts = st.tuples(*[st.integers(0, 16).map(lambda v: v / 4)] * 4)
scores = st.sampled_from([0.25, 0.5, 0.5, 0.75]) | st.integers(0, 64).map(lambda v: v / 64)


@st.composite
def problems(draw: st.DrawFn) -> tuple[DataSet, list[Detections]]:
    """Pictures of 0 to 6 objects, and detections that are near some of them or anywhere."""
    samples, predictions = [], []
    for image_id in draw(st.lists(st.integers(0, 99), unique=True, min_size=1, max_size=5)):
        rows = draw(st.lists(objects, max_size=6))
        near = []
        if rows:
            pairs = st.tuples(st.sampled_from(rows), shifts, scores, st.sampled_from((0, 0, 1)))
            for row, shift, score, turn in draw(st.lists(pairs, max_size=8)):
                box = (row[0] + shift[0], row[1] + shift[1], row[2] + shift[2], row[3] + shift[3])
                near.append((box[0], box[1], max(box[2], box[0]), max(box[3], box[1]), score))
                near[-1] += ((row[4] + turn) % 3,)
        far = draw(st.lists(st.tuples(boxes, scores, st.integers(0, 2)), max_size=3))
        if draw(st.integers(0, 19)) == 0:  # more than COCO's 100
            far += [((1.0, 1.0, 9.0 + i / 4, 9.0), 0.5, 0) for i in range(120)]
        samples.append(sample(image_id, *rows))
        predictions.append(found(*near, *[(*box, score, label) for box, score, label in far]))
    return data_set(*samples), predictions


@settings(max_examples=100, deadline=None)
@given(problem=problems())
def test_the_twelve_figures_are_those_of_pycocotools(
    problem: tuple[DataSet, list[Detections]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    dataset, predictions = problem
    result = evaluate(predictions, dataset, score_threshold=0.5)
    expected = oracle(
        coco_truth(dataset), coco_results(predictions, dataset), tmp_path_factory.mktemp("coco")
    )
    assert [result.coco[name] for name in FIGURES] == pytest.approx(expected, abs=1e-6)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures of 200x200 px."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(4):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((200, 200, 3), i, np.uint8))
    return folder


hundredths = st.integers(0, 9999).map(lambda v: v / 100)
file_boxes = st.tuples(hundredths, hundredths, hundredths, hundredths).map(
    lambda b: [b[0], b[1], b[2] + 0.01, b[3] + 0.01]
)
truth_rows = st.tuples(st.integers(0, 3), st.sampled_from((3, 17, 90)), file_boxes, st.booleans())
result_rows = st.tuples(
    *[st.integers(0, 3)] * 2, file_boxes, st.integers(0, 1000), st.integers(0, 30)
)


@settings(max_examples=60, deadline=None)
@given(truths=st.lists(truth_rows, max_size=12), rows=st.lists(result_rows, max_size=25))
def test_files_give_the_figures_that_pycocotools_gives_for_them(
    truths: list, rows: list, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """From disk to figures: ids with gaps, masks' areas, two decimals, detections near objects."""
    categories = (3, 17, 90)
    document = {
        "images": [
            {"id": 7 * i + 3, "file_name": f"{i}.png", "width": 200, "height": 200} for i in range(4)
        ],
        "categories": [{"id": number, "name": f"c{number}"} for number in categories],
        "annotations": [
            {"id": k + 1, "image_id": 7 * i + 3, "category_id": c, "bbox": box, "iscrowd": int(crowd),
             "area": round(box[2] * box[3] * 0.7, 2)}  # of a mask
            for k, (i, c, box, crowd) in enumerate(truths)
        ],
    }  # fmt: skip
    results = []
    for i, category, box, score, shift in rows:
        near = [row for row in truths if row[0] == i]
        place = near[score % len(near)][2] if near and shift < 20 else box
        moved = [round(place[0] + shift / 10, 2), *place[1:]]
        row = {"image_id": 7 * i + 3, "category_id": categories[category % 3], "bbox": moved}
        results.append({**row, "score": score / 1000})
    folder = tmp_path_factory.mktemp("files")
    expected = oracle(document, results, folder)
    (pictures / "truth.json").write_text(json.dumps(document))
    dataset = load(pictures / "truth.json")
    detections = read_detections(folder / "found.json", dataset).detections
    result = evaluate(detections, dataset, score_threshold=0.5)
    assert [result.coco[name] for name in FIGURES] == pytest.approx(expected, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(problem=problems(), threshold=scores)
def test_all_views_of_one_matching_agree(
    problem: tuple[DataSet, list[Detections]], threshold: float
) -> None:
    dataset, predictions = problem
    result = evaluate(predictions, dataset, score_threshold=threshold)
    point = result.overall.chosen
    counts = result.confusion
    to_find = sum(int((~(s.crowd | s.difficult)).sum()) for s in dataset.samples)
    assert point.tp + point.fn == to_find == counts[:-1].sum()
    assert np.trace(counts[:-1, :-1]) == point.tp == sum(r.chosen.tp for r in result.per_class)
    # Without regard to class, a false detection may lie on a crowd of another one.
    assert counts[:, :-1].sum() <= point.tp + point.fp
    assert sum(v for k, v in result.errors.items() if k != "missed") == point.fp
    assert result.errors["missed"] <= point.fn
    assert sum(result.wrong) == point.fp + point.fn
    for one in result.per_class:
        assert not one.chosen.f1 > one.best.f1
    json.dumps(result.to_json(), allow_nan=False)


def test_perfect_detections() -> None:
    truth = [(10, 10, 60, 60, 0, 0, 0), (80, 80, 90, 95, 1, 0, 0)]
    dataset = data_set(sample(0, *truth), sample(7))
    result = evaluate(
        [found((10, 10, 60, 60, 0.9, 0), (80, 80, 90, 95, 0.8, 1)), found()],
        dataset,
        score_threshold=0.5,
    )
    assert result.coco["AP"] == pytest.approx(1)
    assert result.overall.chosen.precision == result.overall.chosen.recall == 1
    assert result.overall.chosen.mean_iou == 1
    assert result.overall.voc_ap50 == 1
    assert set(result.errors.values()) == {0}
    assert math.isnan(result.per_class[2].ap)  # no dog anywhere
    assert result.to_json()["per_class"][2]["ap"] is None
    assert result.sizes["small"]["truths"] == 1
    assert result.sizes["large"]["truths"] == 0


def test_a_threshold_of_best_f1_separates_right_from_wrong() -> None:
    dataset = data_set(sample(1, (0, 0, 50, 50, 0, 0, 0)), sample(2, (0, 0, 50, 50, 0, 0, 0)))
    predictions = [
        found((0, 0, 50, 50, 0.9, 0), (100, 100, 150, 150, 0.3, 0)),
        found((0, 0, 50, 40, 0.6, 0), (100, 100, 150, 150, 0.2, 0)),
    ]
    best = evaluate(predictions, dataset, score_threshold=0.1).per_class[0].best
    assert best.threshold == pytest.approx(0.6)
    assert (best.tp, best.fp, best.fn, best.f1) == (2, 0, 0, 1)
    assert best.mean_iou == pytest.approx(0.9)


def test_each_kind_of_error_once() -> None:
    dataset = data_set(
        sample(
            1,
            (0, 0, 40, 40, 0, 0, 0),  # found twice
            (100, 0, 140, 40, 0, 0, 0),  # called a person
            (0, 100, 40, 140, 0, 0, 0),  # badly placed
            (100, 100, 140, 140, 0, 0, 0),  # badly placed and called a person
            (60, 60, 70, 70, 2, 0, 0),  # not seen
        )
    )
    predictions = found(
        (0, 0, 40, 40, 0.9, 0),
        (1, 1, 40, 40, 0.8, 0),
        (100, 0, 140, 40, 0.8, 1),
        (20, 100, 60, 140, 0.8, 0),
        (120, 100, 160, 140, 0.8, 1),
        (160, 160, 190, 190, 0.8, 0),
        (160, 160, 190, 190, 0.1, 0),  # below the threshold
    )
    result = evaluate([predictions], dataset, score_threshold=0.5)
    assert result.errors == {
        "classification": 1,
        "localisation": 1,
        "both": 1,
        "duplicate": 1,
        "background": 1,
        "missed": 2,  # the one called badly in every way, and the one not seen
    }
    assert result.confusion[0].tolist() == [1, 1, 0, 2]
    assert result.confusion[3].tolist() == [3, 1, 0, 0]
    assert result.wrong == (5 + 4,)


@pytest.mark.parametrize("flag", [(1, 0), (0, 1)], ids=["crowd", "difficult"])
def test_what_lies_on_a_crowd_or_a_difficult_object_is_neither_right_nor_wrong(
    flag: tuple[int, int],
) -> None:
    dataset = data_set(sample(1, (0, 0, 100, 100, 0, *flag), (120, 120, 160, 160, 0, 0, 0)))
    predictions = found(
        (0, 0, 20, 20, 0.9, 0), (30, 30, 60, 60, 0.9, 0), (120, 120, 160, 160, 0.5, 0)
    )
    result = evaluate([predictions], dataset, score_threshold=0.1)
    assert (result.overall.chosen.tp, result.overall.chosen.fp, result.overall.chosen.fn) == (
        1,
        0,
        0,
    )
    assert result.coco["AP"] == pytest.approx(1)
    assert sum(result.errors.values()) == 0


def test_calibration_of_scores_that_mean_what_they_say() -> None:
    """Of detections with score 0.75 three in four are right: no error. At 0.95 it is 0.2."""
    box, far = (0, 0, 50, 50), (100, 100, 150, 150)
    dataset = data_set(*[sample(i, (*box, 0, 0, 0)) for i in range(1, 5)])
    for score, error in [(0.75, 0.0), (0.95, 0.2)]:
        predictions = [found((*(box if i < 3 else far), score, 0)) for i in range(4)]
        result = evaluate(predictions, dataset, score_threshold=0.5)
        assert result.calibration_error == pytest.approx(error, abs=1e-6)
        assert sum(b.n for b in result.bins) == 4


def test_nothing_found_and_nothing_there() -> None:
    nothing = evaluate([found()], data_set(sample(1, (0, 0, 9, 9, 0, 0, 0))), score_threshold=0.5)
    assert nothing.coco["AP"] == 0
    assert nothing.errors["missed"] == 1
    empty = evaluate([found()], data_set(sample(1)), score_threshold=0.5)
    assert empty.coco["AP"] == -1
    assert empty.to_json()["overall"]["ap"] is None


def test_what_does_not_fit_is_refused() -> None:
    dataset = data_set(sample(1))
    with pytest.raises(DataError, match="one Detections for each of the 1 pictures of test, got 0"):
        evaluate([], dataset, score_threshold=0.5)
    with pytest.raises(DataError, match="label 3, but test has 3 classes"):
        evaluate([found((0, 0, 1, 1, 0.5, 3))], dataset, score_threshold=0.5)
