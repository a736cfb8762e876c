"""COCO as it is found in the wild: read in full, repaired where that is safe, never silent."""

from __future__ import annotations

from pathlib import Path

import pytest
from labelled import coco, kinds, picture

from pipeline.errors import DataError
from stages.training.datasets import load


def test_coco_with_gaps_crowds_areas_and_rubbish(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.jpg")
    picture(tmp_path / "train" / "b.jpg")
    images = [
        {"id": 70, "file_name": "a.jpg", "width": 64, "height": 48},
        {"id": 9, "file_name": "b.jpg", "width": 64, "height": 40},
        {"id": 9, "file_name": "a.jpg"},
        {"id": "x"},
    ]
    box = {"image_id": 70, "category_id": 90, "bbox": [1, 2, 10.5, 20], "area": 99.5, "iscrowd": 0}
    rows = [
        {"id": 1, **box},
        {"id": 2, **box, "category_id": 3, "iscrowd": 1},
        {"id": 3, **box, "category_id": 4},
        {"id": 4, **box, "image_id": 5},
        {"id": 5, **box, "bbox": [1, 2, None, 3]},
        {"id": 6, **box, "bbox": [1, 2, 0, 3]},
        None,
    ]
    file = coco(
        tmp_path / "annotations" / "instances_train2017.json", images, rows, {90: "b", 3: "a"}
    )
    data = load(tmp_path, split="train")
    assert data.classes == ("a", "b")
    assert data.category_ids == (3, 90)
    assert [s.image_id for s in data.samples] == [70, 9]
    first = data.samples[0]
    assert first.labels.tolist() == [1, 0]
    assert first.crowd.tolist() == [False, True]
    assert first.area.tolist() == [99.5, 99.5]
    assert first.group == "train"
    assert kinds(data) == {
        "annotation": 4,
        "class": 1,
        "box": 1,
        "degenerate": 1,
        "size": 1,
    }
    assert load(file).sha256 == data.sha256


def test_a_picture_of_another_split_is_never_taken_for_one_that_is_gone(tmp_path: Path) -> None:
    for split in ("train", "val"):
        picture(tmp_path / split / "7.jpg")
        rows = [{"id": 1, "file_name": "7.jpg"}]
        coco(tmp_path / "annotations" / f"{split}.json", rows, [], {1: "x"})
    (tmp_path / "train" / "7.jpg").unlink()
    with pytest.raises(DataError, match=r"no usable picture of split 'train'.*7\.jpg: no such"):
        load(tmp_path, split="train")


def test_coco_splits_are_told_by_their_file_names(tmp_path: Path) -> None:
    for split, stem in (("train", "a"), ("val", "b")):
        picture(tmp_path / f"{stem}.jpg")
        coco(
            tmp_path / f"instances_{split}2017.json",
            [{"id": 1, "file_name": f"{stem}.jpg"}],
            [],
            {1: "x"},
        )
    assert load(tmp_path, split="train").samples[0].path.name == "a.jpg"
    assert load(tmp_path, split="valid").samples[0].path.name == "b.jpg"
    assert [s.path.name for s in load(tmp_path).samples] == ["a.jpg", "b.jpg"]
    with pytest.raises(DataError, match=r"'test', found instances_train2017\.json, instances_val"):
        load(tmp_path, split="test")


def test_coco_flags_ids_and_files_as_loose_as_they_come(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg")
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": "2", "file_name": "a.jpg"}]
    box = {"bbox": [1, 2, 10, 20], "category_id": "1"}
    rows = [
        {**box, "image_id": "1", "iscrowd": "0"},
        {**box, "image_id": 1.0, "iscrowd": "1", "bbox": [3, 3, 9, 9]},
        {**box, "image_id": 2},
    ]
    coco(tmp_path / "a.json", images, rows, {1: "car"})
    data = load(tmp_path)
    assert kinds(data) == {"duplicate": 1}  # told; the boxes of both are there, the equal one once
    assert data.samples[0].crowd.tolist() == [False, True]
