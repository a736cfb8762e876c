"""Data sets as they are found in the wild: read in full, repaired where that is safe, never silent."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image as Pil

from pipeline.errors import DataError
from stages.training import pictures
from stages.training.datasets import FORMATS, DataSet, load, read_image


def picture(path: Path, width: int = 64, height: int = 48, orientation: int = 1) -> Path:
    """A picture whose top left corner is red, as it is stored; its blue tells the first letter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Pil.new("RGB", (width, height), (0, 128, 37 * ord(path.name[0]) % 256))
    image.paste((255, 0, 0), (0, 0, width // 2, height // 2))
    exif = Pil.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


def voc_object(name: str, *corners: object, extra: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object>\n<name>{name}</name>{extra}<bndbox>{box}</bndbox>\n</object>\n"


def voc(root: Path, stem: str, *objects: str, size: tuple[int, int] = (64, 48)) -> Path:
    file = root / "Annotations" / f"{stem}.xml"
    file.parent.mkdir(parents=True, exist_ok=True)
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    head = f"<annotation>\n<folder/><filename>{Path(stem).name}.jpg</filename>\n{sides}\n"
    file.write_text(head + "".join(objects) + "</annotation>")
    return file


def coco(file: Path, images: list, annotations: list, categories: dict[int, str]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    cats = [{"id": number, "name": name} for number, name in categories.items()]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": cats}))
    return file


def kinds(dataset: DataSet) -> dict[str, int]:
    return dict(Counter(problem.kind for problem in dataset.problems))


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


def test_pictures_that_cannot_be_read_are_named_and_skipped(tmp_path: Path) -> None:
    pictures = tmp_path / "JPEGImages"
    whole = picture(pictures / "whole.jpg", 640, 480).read_bytes()
    (pictures / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (pictures / "text.jpg").write_text("no picture")
    (pictures / "empty.jpg").write_bytes(b"")
    picture(pictures / "alone.jpg")
    for stem in ("whole", "cut", "text", "empty", "gone"):
        voc(tmp_path, stem, voc_object("car", 1, 1, 9, 9), size=(640, 480))
    (tmp_path / "Annotations" / "half.xml").write_text("<annotation>\n<object>")
    data = load(tmp_path)
    assert [s.path.name for s in data.samples] == ["whole.jpg"]
    assert kinds(data) == {"broken": 3, "missing": 1, "annotation": 1, "unlisted": 1}
    assert {p.file.name for p in data.problems if p.kind == "broken"} == {
        "cut.jpg",
        "text.jpg",
        "empty.jpg",
    }
    assert next(p for p in data.problems if p.kind == "annotation").line == 2


def test_xml_that_attacks_is_not_expanded(tmp_path: Path) -> None:
    picture(tmp_path / "JPEGImages" / "a.jpg")
    picture(tmp_path / "JPEGImages" / "b.jpg")
    voc(tmp_path, "a")
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>'
    (tmp_path / "Annotations" / "b.xml").write_text(bomb)
    data = load(tmp_path)
    assert [p.file.name for p in data.problems if p.kind == "annotation"] == ["b.xml"]


def test_a_picture_too_large_to_decode_is_a_problem_of_that_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", str(64 * 48))
    for stem, side in (("a", 64), ("b", 65)):
        picture(tmp_path / "JPEGImages" / f"{stem}.jpg", side)
        voc(tmp_path, stem, size=(side, 48))
    data = load(tmp_path)
    assert [s.path.name for s in data.samples] == ["a.jpg"]
    assert "65x48 px, wanted at most 3072" in str(data.problems[0])


@settings(max_examples=60, deadline=None)
@given(
    format=st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF"]),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8),
    keep=st.floats(0, 1) | st.just(1.0),
)
@example(format="JPEG", changes=[(42, 1)], keep=1.0)  # where EXIF is damaged, readers of it differ
@example(format="JPEG", changes=[(30, 0)], keep=1.0)
def test_a_damaged_picture_is_a_problem_or_can_be_read(
    format: str,
    changes: list[tuple[int, int]],
    keep: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("damaged")
    buffer = io.BytesIO()
    exif = Pil.Exif()
    exif[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    Pil.fromarray(noise).save(
        buffer, format, **({} if format in ("BMP", "GIF") else {"exif": exif})
    )
    data = bytearray(buffer.getvalue())
    for place, value in changes:
        data[place % len(data)] = value
    (root / "JPEGImages").mkdir()
    (root / "JPEGImages" / "a.jpg").write_bytes(data[: round(keep * len(data))])
    voc(root, "a", size=(12, 16))
    picture(root / "JPEGImages" / "b.jpg")
    voc(root, "b")
    loaded = load(root)
    assert len(loaded.samples) == 2 - kinds(loaded).get("broken", 0)
    for sample in loaded.samples:
        assert read_image(sample).shape == (sample.height, sample.width, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_and_boxes_in_stored_pixels(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    """The red quarter is stored top left; a box around it lies around it however it is shown."""
    file = picture(tmp_path / "images" / f"a.{suffix}", orientation=orientation)
    image = {"id": 1, "file_name": file.name, "width": 64, "height": 48}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 32, 24]}
    coco(tmp_path / "a.json", [image], [box], {1: "red"})
    data = load(tmp_path)
    sample = data.samples[0]
    assert (sample.width, sample.height) == ((48, 64) if orientation >= 5 else (64, 48))
    shown = read_image(sample)
    assert shown.shape == (sample.height, sample.width, 3)
    if orientation >= 5:  # 2 to 4 keep width and height: then boxes are of the picture as shown
        assert kinds(data) == {"exif": 1}
        x1, y1, x2, y2 = sample.xyxy[0].astype(int)
        assert shown[y1 + 4 : y2 - 4, x1 + 4 : x2 - 4, 2].min() > 200
        outside = shown.copy()
        outside[y1:y2, x1:x2] = 0
        assert (outside[..., 2] > 200).sum() < 100


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_that_xmp_alone_states_turns_what_is_read_and_what_is_seen_alike(
    tmp_path: Path, orientation: int
) -> None:
    by_exif = picture(tmp_path / "a.png", orientation=orientation)
    xmp = f"<x:xmpmeta><rdf:RDF><rdf:Description tiff:Orientation='{orientation}'/></rdf:RDF></x:xmpmeta>"
    (tmp_path / "images").mkdir()
    stored = Pil.fromarray(np.asarray(Pil.open(by_exif)))
    stored.save(tmp_path / "images" / "a.webp", lossless=True, xmp=xmp.replace("'", '"').encode())
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.25 0.25 0.5 0.5\n")
    sample = load(tmp_path).samples[0]
    np.testing.assert_array_equal(read_image(sample), pictures.decode(by_exif))


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


def yolo(root: Path, yaml: str) -> None:
    for split, stem in (("train", "a"), ("train", "cam1/b"), ("val", "c")):
        picture(root / "images" / split / f"{stem}.png", 100, 50)
    for split, stem, rows in (
        ("train", "a", "0 0.5 0.5 0.2 0.4\n\n1 0.1 0.1 0.1 0.2 0.3 0.4 0.2 0.1\n"),
        ("val", "c", "7 0.5 0.5 0.1 0.1\n0 0.5 0.5\n1 0.5 0.5 1.2 1\n0.5 0.5 0.5 0.1 0.1\n"),
    ):
        file = root / "labels" / split / f"{stem}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(rows)
    (root / "data.yaml").write_text(yaml)


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


def test_names_of_classes_that_are_doubtful_are_told(tmp_path: Path) -> None:
    yolo(tmp_path, "train: images/train\nnames: {0: car, 1: car, 7: Car}\n")
    data = load(tmp_path)
    assert data.classes == ("car", "Car")
    assert data.samples[0].labels.tolist() == [0, 0]
    assert [str(p).split(": ")[1][:28] for p in data.problems] == [
        "more than one class is calle",
        "classes 'car' and 'Car' diff",
    ]


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


def test_a_box_twice_and_a_picture_twice_are_told(tmp_path: Path) -> None:
    first = picture(tmp_path / "JPEGImages" / "a.jpg")
    (tmp_path / "JPEGImages" / "b.jpg").write_bytes(first.read_bytes())
    car = voc_object("car", 5, 5, 20, 20)
    voc(tmp_path, "a", car, car, voc_object("bus", 5, 5, 20, 20))
    voc(tmp_path, "b", car)
    data = load(tmp_path)
    assert kinds(data) == {"repeated": 1, "identical": 1}
    assert [len(sample.labels) for sample in data.samples] == [3, 1]  # told, and kept as COCO does
    assert data.samples[0].digest == data.samples[1].digest != b""


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


def test_parts_whose_classes_are_numbered_otherwise_are_brought_together_by_name(
    tmp_path: Path,
) -> None:
    for split, names in (("train", {1: "car", 2: "bus"}), ("val", {1: "bus", 2: "dog"})):
        picture(tmp_path / "images" / f"{split}.jpg")
        box = {"image_id": 1, "category_id": 2, "bbox": [1, 2, 10, 20]}
        rows = [{"id": 1, "file_name": f"{split}.jpg"}]
        coco(tmp_path / "annotations" / f"{split}.json", rows, [box], names)
    data = load(tmp_path)
    assert data.classes == ("car", "bus", "dog")
    assert [data.classes[s.labels[0]] for s in data.samples] == ["bus", "dog"]
    assert len({s.image_id for s in data.samples}) == 2
    assert data.category_ids == ()


def test_open_images(tmp_path: Path) -> None:
    for stem in ("a1", "b2", "d4"):
        picture(tmp_path / "train" / f"{stem}.jpg", 100, 50)
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf\n"
    (tmp_path / "train-annotations-bbox.csv").write_text(
        header
        + "a1,x,/m/1,1,0.1,0.5,0.2,0.4,0,0\n"
        + "a1,x,/m/2,1,0,1,0,1,0,1\n"
        + "a1,x,/m/2,1,0,one,0,1,0,1\n"
        + "c3,x,/m/2,1,0,1,0,1,0,1\n"
    )
    (tmp_path / "class-descriptions-boxable.csv").write_text("/m/1,Car\n/m/2,Person\n/m/3,Dog\n")
    (tmp_path / "train-images-boxable.csv").write_text("ImageID,Subset\na1,train\nb2,train\n")
    data = load(tmp_path)
    assert data.classes == ("Car", "Person", "Dog")
    assert [s.path.stem for s in data.samples] == ["a1", "b2"]
    np.testing.assert_allclose(data.samples[0].xyxy, [[10, 10, 50, 20], [0, 0, 100, 50]], atol=1e-4)
    assert data.samples[0].crowd.tolist() == [False, True]
    assert kinds(data) == {"box": 1, "missing": 1, "unlisted": 1}
    assert next(p for p in data.problems if p.kind == "box").line == 4


def test_the_hash_is_of_the_content_and_not_of_its_place(tmp_path: Path) -> None:
    for root in ("one", "two"):
        for stem, width in (("a", 64), ("b", 65)):
            picture(tmp_path / root / "JPEGImages" / f"{stem}{root}.jpg", width)
            voc(tmp_path / root, f"{stem}{root}", voc_object("car", 1, 1, 9, 9), size=(width, 48))
    one, two = load(tmp_path / "one"), load(tmp_path / "two")
    assert one.sha256 == two.sha256
    voc(tmp_path / "two", "atwo", voc_object("car", 1, 1, 9, 10))
    assert load(tmp_path / "two").sha256 != one.sha256


def test_a_picture_that_changed_after_loading_is_named(tmp_path: Path) -> None:
    file = picture(tmp_path / "JPEGImages" / "a.jpg")
    voc(tmp_path, "a")
    sample = load(tmp_path).samples[0]
    cv2.imwrite(str(file), np.zeros((10, 20, 3), np.uint8))
    with pytest.raises(DataError, match=r"a\.jpg: wanted 64x48 px .* got 20x10"):
        read_image(sample)
    file.write_bytes(file.read_bytes()[:9])
    with pytest.raises(DataError, match=r"a\.jpg: no readable picture"):
        read_image(sample)
    file.unlink()
    with pytest.raises(DataError, match=r"a\.jpg: No such file"):
        read_image(sample)


def test_what_is_no_data_set_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no known data set; wanted Annotations"):
        load(tmp_path)
    with pytest.raises(DataError, match="format 'pascal': wanted one of coco, voc"):
        load(tmp_path, format="pascal")
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="unpack it"):
        load(tmp_path / "data.zip")
    voc(tmp_path, "a")
    with pytest.raises(
        DataError, match="no usable picture, wanted at least one; the first problem"
    ):
        load(tmp_path)
    (tmp_path / "x.json").write_text('{"images": [')
    with pytest.raises(DataError, match="no JSON"):
        load(tmp_path / "x.json")


def _small(root: Path, format: str) -> Path:
    """A data set of one picture; its annotation."""
    picture(root / "images" / "a.jpg")
    if format == "voc":
        return voc(root, "a", voc_object("car", 1, 2, 30, 40))
    if format == "coco":
        image = {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}
        box = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "area": 3.5}
        return coco(root / "a.json", [image], [box], {3: "car"})
    if format == "yolo":
        (root / "data.yaml").write_text("train: images\nnames: [car]\n")
        (root / "labels").mkdir()
        (root / "labels" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
        return root / "labels" / "a.txt"
    if format == "csv":
        file = root / "boxes.csv"
        file.write_text(
            "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,64,48,car,1,2,3,4\n"
        )
        return file
    if format == "labelme":
        shape = {"label": "car", "points": [[1, 2], [30, 40]], "shape_type": "rectangle"}
        facts = {"imagePath": "a.jpg", "imageHeight": 48, "imageWidth": 64, "shapes": [shape]}
        file = root / "images" / "a.json"
        file.write_text(json.dumps(facts))
        return file
    if format == "cvat":
        box = '<box label="car" xtl="1" ytl="2" xbr="30" ybr="40"></box>'
        image = f'<image id="0" name="a.jpg" width="64" height="48">{box}</image>'
        meta = "<meta><task><labels><label><name>car</name></label></labels></task></meta>"
        file = root / "annotations.xml"
        file.write_text(f"<annotations>{meta}{image}</annotations>")
        return file
    (root / "names-class-descriptions.csv").write_text("/m/1,car\n")
    file = root / "train-annotations-bbox.csv"
    file.write_text("ImageID,LabelName,XMin,XMax,YMin,YMax\na,/m/1,0.1,0.2,0.3,0.4\n")
    return file


RUBBISH = (b"", b"null", b"[]", b"-1", b"1e999", b"\xff\xfe", b"\x00", b"<a>", b"&lt;", b",", b"\n",
           b'"', b"99999999999999999999", b"nan", b"- ", b"../", b": ", b"/m/1,")  # fmt: skip
edits = st.tuples(st.integers(0, 10**6), st.integers(0, 8), st.sampled_from(RUBBISH))


@settings(max_examples=200, deadline=None)
@given(
    format=st.sampled_from(list(FORMATS)),
    changes=st.lists(edits, max_size=4),
    second=st.booleans(),
)
def test_damaged_annotations_are_problems_or_one_sentence(
    format: str,
    changes: list[tuple[int, int, bytes]],
    second: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("damaged")
    file = _small(root, format)
    other = {"yolo": "data.yaml", "openimages": "names-class-descriptions.csv"}.get(format)
    file = root / other if second and other else file
    data = bytearray(file.read_bytes())
    for place, length, rubbish in changes:
        start = place % (len(data) + 1)
        data[start : start + length] = rubbish
    file.write_bytes(data)
    refused = ""
    try:
        loaded = load(root)
    except DataError as error:
        refused = str(error)
    assert "\n" not in refused
    if not refused:
        assert len(loaded.samples) == 1
    if not changes:
        assert refused == ""
        assert loaded.problems == ()
        assert loaded.samples[0].labels.tolist() == [0]
