"""YOLO as it is found in the wild: read in full, repaired where that is safe, never silent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from labelled import kinds, picture, yolo

from pipeline.errors import DataError
from stages.training.datasets import load


@pytest.mark.parametrize(
    "yaml",
    [
        "path: .\ntrain: images/train\nval: images/val\nnames: [car, bus]\n",
        "path: /no/such/folder\ntrain: images/train\nval: images/val\nnames: {0: car, 1: bus}\n",
        "train: ../images/train\nval: [images/val]\nnc: 2\nnames: ['car', 'bus']\n",
    ],
    ids=["list", "another machine", "one up"],
)
def test_yolo_with_its_yaml(tmp_path: Path, yaml: str) -> None:
    yolo(tmp_path, yaml)
    train, val = load(tmp_path, split="train"), load(tmp_path / "data.yaml", split="val")
    assert train.classes == val.classes == ("car", "bus")
    first, background = train.samples
    np.testing.assert_allclose(first.xyxy, [[40, 15, 60, 35], [10, 5, 30, 20]], atol=1e-4)
    assert first.labels.tolist() == [0, 1]
    assert len(background.labels) == 0
    assert background.group == "images/train/cam1"
    assert train.problems == ()
    assert kinds(val) == {"class": 1, "box": 2, "clipped": 1}
    assert [p.line for p in val.problems] == [1, 2, 4, 3]
    assert len(load(tmp_path).samples) == 3
    with pytest.raises(DataError, match="no split 'test' in the YAML; there is: train, val"):
        load(tmp_path, split="test")


def test_yolo_without_a_yaml(tmp_path: Path) -> None:
    yolo(tmp_path, "")
    (tmp_path / "data.yaml").unlink()
    assert load(tmp_path, split="train").classes == ("0", "1")
    (tmp_path / "classes.txt").write_text("car\nbus\n")
    assert load(tmp_path, split="train").classes == ("car", "bus")


def test_yolo_labels_and_pictures_that_do_not_meet_are_told(tmp_path: Path) -> None:
    yolo(tmp_path, "train: images/train\nval: images/val\nnames: [car, bus]\n")
    labels = tmp_path / "labels" / "train"
    (labels / "zz.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (labels / "README.txt").write_text("labelled by hand\n")
    (labels / "a.txt").rename(labels / "A.txt")  # as a Windows machine does not see
    picture(tmp_path / "images" / "train" / "h.jpg").rename(
        tmp_path / "images" / "train" / "h.heic"
    )
    data = load(tmp_path, split="train")
    assert kinds(data) == {"orphan": 1, "suffix": 1}
    assert {problem.file.name for problem in data.problems} == {"zz.txt", "h.heic"}
    assert data.samples[0].labels.tolist() == [0, 1]
    (labels / "A.txt").unlink()
    assert kinds(load(tmp_path, split="train")) == {"unlabelled": 1, "orphan": 1, "suffix": 1}


def test_yolo_poses_are_no_polygons(tmp_path: Path) -> None:
    """Rows of a box and two points in it, without a word in the YAML that says so."""
    rows = {
        "a": "0 0.5 0.5 0.4 0.8 0.4 0.3 0.6 0.7\n",
        "c": "1 0.5 0.5 0.2 0.2 0.45 0.5 0.52 0.58\n",
    }
    yolo(tmp_path, "train: images/train\nval: images/val\nnames: [car, bus]\n")
    for stem, folder in (("a", "train"), ("c", "val")):
        (tmp_path / "labels" / folder / f"{stem}.txt").write_text(rows[stem])
    data = load(tmp_path)
    assert kinds(data) == {"repaired": 1}
    np.testing.assert_allclose(data.samples[0].xyxy, [[30, 5, 70, 45]], atol=1e-3)
    # the same numbers beside a shape that can be no pose are polygons, all of them
    file = tmp_path / "labels" / "train" / "a.txt"
    file.write_text(rows["a"] + "0 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9\n")
    np.testing.assert_allclose(load(tmp_path).samples[0].xyxy[0], [40, 15, 60, 40], atol=1e-3)


def test_a_row_that_stands_twice_is_read_once_and_told(tmp_path: Path) -> None:
    """A copy of a row is no second object; another class in the same place may be one."""
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png", 100, 50)
        rows = "0 0.5 0.5 0.2 0.4\n0 0.50 0.5 0.2 0.4\n1 0.5 0.5 0.2 0.4\n"
        (tmp_path / f"{name}.txt").write_text(rows)
    (tmp_path / "classes.txt").write_text("car\nbus\n")
    data = load(tmp_path)
    assert [sample.labels.tolist() for sample in data.samples] == [[0, 1], [0, 1]]
    told = [problem for problem in data.problems if problem.kind == "repeated"]
    assert [(problem.file.name, problem.line) for problem in told] == [("a.txt", 2), ("b.txt", 2)]
    assert "stands there twice; it is read once" in str(told[0])
