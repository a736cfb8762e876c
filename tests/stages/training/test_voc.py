"""Pascal VOC as it is found in the wild: read in full, repaired where that is safe, never silent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from labelled import kinds, picture, voc, voc_object

from pipeline.errors import DataError
from stages.training.datasets import load


def test_voc_with_lists_floats_flags_and_a_picture_without_objects(tmp_path: Path) -> None:
    for stem in ("a", "b", "c"):
        picture(tmp_path / "JPEGImages" / f"{stem}.jpg")
    car = voc_object("car", 1.5, 2, 30.25, 40, extra="<difficult>1</difficult>")
    voc(tmp_path, "a", car, voc_object(" person ", 0, 0, 5, 5))
    voc(tmp_path, "b")
    voc(tmp_path, "c", voc_object("bus", 1, 1, 9, 9))
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n\n")
    (lists / "test.txt").write_text("c 1\n")

    whole = load(tmp_path)
    assert [s.path.name for s in whole.samples] == ["a.jpg", "b.jpg", "c.jpg"]
    train, test = load(tmp_path, split="train"), load(tmp_path, split="test")
    assert whole.classes == train.classes == test.classes == ("bus", "car", "person")
    first, second = train.samples
    np.testing.assert_array_equal(first.xyxy, np.float32([[1.5, 2, 30.25, 40], [0, 0, 5, 5]]))
    assert first.labels.tolist() == [1, 2]
    assert first.difficult.tolist() == [True, False]
    assert (first.width, first.height) == (64, 48)
    assert second.xyxy.shape == (0, 4)
    assert second.labels.dtype == np.int32
    assert [s.path.name for s in test.samples] == ["c.jpg"]
    assert whole.problems == ()
    with pytest.raises(DataError, match=r"no split 'val' .* there is: test, train"):
        load(tmp_path, split="val")


def test_boxes_that_cannot_be_are_dropped_by_name_file_and_line(tmp_path: Path) -> None:
    picture(tmp_path / "JPEGImages" / "a.jpg")
    file = voc(
        tmp_path,
        "a",
        voc_object("car", 5, 5, 20, 20),
        voc_object("car", 7, 7, 7, 20),
        voc_object("car", 20, 5, 10, 9),
        voc_object("car", 70, 5, 80, 9),
        voc_object("car", -4, 10, 99, 20),
        voc_object("car", "", 1, 2, 3),
        voc_object("car", "nan", 1, 2, 3),
        voc_object("", 1, 1, 2, 3),
    )
    data = load(tmp_path)
    assert kinds(data) == {"degenerate": 2, "repaired": 1, "clipped": 1, "box": 3}
    np.testing.assert_array_equal(
        data.samples[0].xyxy, np.float32([[5, 5, 20, 20], [10, 5, 20, 9], [0, 10, 64, 20]])
    )
    degenerate = next(p for p in data.problems if p.kind == "degenerate")
    assert degenerate.file == file
    lines = file.read_text().splitlines()
    assert lines[degenerate.line - 1] == "<object>"
    assert "<xmin>7</xmin>" in lines[degenerate.line]
    assert str(degenerate).startswith(f"{file}:{degenerate.line}: degenerate box car [7, 7, 7, 20]")
    with pytest.raises(DataError, match=r"strict; 7 problem\(s\)"):
        load(tmp_path, strict=True)


def test_xml_that_attacks_is_not_expanded(tmp_path: Path) -> None:
    picture(tmp_path / "JPEGImages" / "a.jpg")
    picture(tmp_path / "JPEGImages" / "b.jpg")
    voc(tmp_path, "a")
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>'
    (tmp_path / "Annotations" / "b.xml").write_text(bomb)
    data = load(tmp_path)
    assert [p.file.name for p in data.problems if p.kind == "annotation"] == ["b.xml"]


def test_voc_as_it_is_meant(tmp_path: Path) -> None:
    for stem in "abcde":
        picture(tmp_path / "JPEGImages" / f"{stem}.jpg", 100, 50)
    voc(tmp_path, "a", voc_object("car", 0.1, 0.2, 0.5, 0.4), size=(100, 50))
    voc(tmp_path, "b", voc_object("car", "10,0", "10,5", "50,25", 20), size=(100, 50))
    voc(tmp_path, "c", voc_object("car", 0, 0, 1, 1), size=(100, 50))  # one pixel
    file = voc(tmp_path, "d", voc_object("人", 10, 10, 50, 20), size=(100, 50))
    file.write_bytes(f'<?xml version="1.0" encoding="gb2312"?>{file.read_text()}'.encode("gb2312"))
    file = voc(tmp_path, "e", voc_object("car", 10, 10, 50, 20), size=(100, 50))
    file.write_bytes(f'<?xml version="1.0" encoding="utf-16"?>{file.read_text()}'.encode("utf-16"))
    data = load(tmp_path)
    assert data.classes == ("car", "人")
    assert kinds(data) == {"repaired": 2}
    found = np.concatenate([sample.xyxy for sample in data.samples])
    wanted = [[10, 10, 50, 20], [10, 10.5, 50.25, 20], [0, 0, 1, 1], *[[10, 10, 50, 20]] * 2]
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_voc_lists_with_suffixes_folders_and_spaces(tmp_path: Path) -> None:
    for stem in ("a 1", "b", "cam/c"):
        picture(tmp_path / "JPEGImages" / f"{stem}.jpg")
        voc(tmp_path, stem, voc_object("car", 5, 5, 20, 20))
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a 1.jpg\nJPEGImages/b.jpg  1\ncam/c\n")
    data = load(tmp_path, split="train")
    assert [s.path.name for s in data.samples] == ["a 1.jpg", "b.jpg", "c.jpg"]
    assert data.problems == ()


def test_voc_of_equal_names_in_folders_goes_by_the_folder_that_it_states(tmp_path: Path) -> None:
    for camera, width in (("camA", 64), ("camB", 65)):
        picture(tmp_path / "JPEGImages" / camera / "1.jpg", width)
        file = voc(tmp_path, f"{camera}_1", voc_object("car", 5, 5, 20, 20), size=(width, 48))
        text = file.read_text().replace("<folder/>", f"<folder>{camera}</folder>")
        file.write_text(text.replace(f"{camera}_1.jpg", "1.jpg"))
    data = load(tmp_path)
    assert [s.path.parent.name for s in data.samples] == ["camA", "camB"]
    assert data.problems == ()
