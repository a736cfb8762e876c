"""Data sets of all formats: what they share, and what is no data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled import coco, kinds, picture, voc, voc_object, yolo

from pipeline.errors import DataError
from stages.training.datasets import FORMATS, load


def test_names_of_classes_that_are_doubtful_are_told(tmp_path: Path) -> None:
    yolo(tmp_path, "train: images/train\nnames: {0: car, 1: car, 7: Car}\n")
    data = load(tmp_path)
    assert data.classes == ("car", "Car")
    assert data.samples[0].labels.tolist() == [0, 0]
    assert [str(p).split(": ")[1][:28] for p in data.problems] == [
        "more than one class is calle",
        "classes 'car' and 'Car' diff",
    ]


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
