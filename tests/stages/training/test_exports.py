"""The exports of the tools that people label with: each row of docs/data-sets.md is one look-alike here.

All of them mean the same: a car in every picture, a person in the first of each part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from pipeline.errors import DataError
from stages.training.datasets import FORMATS, DataSet, load

DOCS = Path(__file__).parents[3] / "docs" / "data-sets.md"
WIDTH, HEIGHT = 160, 120
CAR, PERSON = (20, 30, 60, 80), (90, 20, 140, 100)
Boxes = list[tuple[str, tuple[int, int, int, int]]]


def picture(path: Path) -> Path:
    """A picture of its own, by its name and its folder's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = [*path.stem.encode(), *path.parent.as_posix().encode()]
    pixels = np.random.default_rng(seed).integers(0, 255, (HEIGHT // 20, WIDTH // 20, 3), np.uint8)
    Pil.fromarray(pixels).resize((WIDTH, HEIGHT)).save(path)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def boxes(index: int) -> Boxes:
    return [("car", CAR), ("person", PERSON)] if index == 0 else [("car", CAR)]


def yolo_rows(index: int, names: str = "car person") -> str:
    rows = ""
    for name, (x1, y1, x2, y2) in boxes(index):
        sides = (x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT
        rows += f"{names.split().index(name)} " + " ".join(f"{side:.6f}" for side in sides) + "\n"
    return rows


def coco(file: Path, names: list[str], *, first_category: int = 1, extra: bool = False) -> None:
    labels = ["car", "person"]
    images = [
        {"id": i, "file_name": n, "width": WIDTH, "height": HEIGHT} for i, n in enumerate(names)
    ]
    rows = [
        {"image_id": i, "category_id": first_category + labels.index(name), "iscrowd": 0,
         "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
        for i in range(len(names)) for name, (x1, y1, x2, y2) in boxes(i)
    ]  # fmt: skip
    categories = [{"id": first_category + i, "name": n} for i, n in enumerate(labels)]
    if extra:
        categories = [{**row, "supercategory": "street"} for row in categories]
        categories.insert(0, {"id": 0, "name": "street", "supercategory": "none"})
    annotations = [{"id": i, **row} for i, row in enumerate(rows)]
    text = {"images": images, "annotations": annotations, "categories": categories}
    write(file, json.dumps(text))


def voc_xml(file: Path, name: str, index: int, *, folder: str = "") -> None:
    objects = "".join(
        f"<object><name>{label}</name><difficult>0</difficult><bndbox><xmin>{x1}</xmin>"
        f"<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for label, (x1, y1, x2, y2) in boxes(index)
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    head = f"<annotation><folder>{folder}</folder><filename>{name}</filename>{size}"
    write(file, f"{head}{objects}</annotation>")


# -- one function an export ------------------------------------------------------------------------


def coco_2017(root: Path) -> None:
    for part in ("train2017", "val2017"):
        names = [picture(root / part / f"00000{i}.jpg").name for i in range(2)]
        coco(root / "annotations" / f"instances_{part}.json", names)
        captions = {"images": [{"id": 0, "file_name": names[0]}], "annotations": [{"caption": "a"}]}
        write(root / "annotations" / f"captions_{part}.json", json.dumps(captions))
        coco(root / "annotations" / f"person_keypoints_{part}.json", names[:1])


def coco_one_file(root: Path) -> None:
    names = [picture(root / "images" / f"{i}.png").name for i in range(2)]
    coco(root / "annotations.json", names)


def coco_text_ids(root: Path) -> None:
    coco_one_file(root)
    tree = json.loads((root / "annotations.json").read_text())
    for row in tree["annotations"]:
        row.update(image_id=f"img_{row['image_id']}", category_id=str(row["category_id"]))
        row.update(iscrowd="0", bbox=[str(v) for v in row["bbox"]])
    for row in tree["images"]:
        row["id"] = f"img_{row['id']}"
    for row in tree["categories"]:
        row["id"] = str(row["id"])
    write(root / "annotations.json", json.dumps(tree))


def coco_masks(root: Path) -> None:
    coco_one_file(root)
    tree = json.loads((root / "annotations.json").read_text())
    for row, kind in zip(tree["annotations"], ("polygon", "runs", "polygon"), strict=True):
        x, y, w, h = row.pop("bbox")
        runs = [x * HEIGHT + y, h, *([HEIGHT - h, h] * (w - 1))]
        runs.append(WIDTH * HEIGHT - sum(runs))
        polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        mask = {"size": [HEIGHT, WIDTH], "counts": runs}
        row["segmentation"] = polygon if kind == "polygon" else mask
    write(root / "annotations.json", json.dumps(tree))


def cvat_coco(root: Path) -> None:
    names = [picture(root / "images" / "default" / f"{i}.png").name for i in range(2)]
    coco(root / "annotations" / "instances_default.json", names)


def cvat_images(root: Path) -> None:
    rows = ""
    for i in range(2):
        picture(root / "images" / f"frame_{i}.png")
        (_, (x1, y1, x2, y2)), *rest = boxes(i)
        rows += f'<image id="{i}" name="frame_{i}.png" width="{WIDTH}" height="{HEIGHT}">'
        rows += (
            f'<box label="car" xtl="{x1}.00" ytl="{y1}" xbr="{x2}" ybr="{y2}" z_order="0"></box>'
        )
        for _, (a, b, c, d) in rest:
            rows += f'<polygon label="person" points="{a},{b};{c},{b};{c},{d};{a},{d}"></polygon>'
        rows += "</image>\n"
    labels = "<label><name>car</name></label><label><name>person</name></label>"
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    write(
        root / "annotations.xml", f"<annotations><version>1.1</version>{meta}{rows}</annotations>"
    )


def cvat_yolo(root: Path) -> None:
    for part in ("train", "valid"):
        names = [f"obj_{part}_data/frame_{i}.PNG" for i in range(2)]
        for i, name in enumerate(names):
            picture(root / name)
            write((root / name).with_suffix(".txt"), yolo_rows(i))
        write(root / f"{part}.txt", "".join(f"data/{name}\n" for name in names))
    write(root / "obj.names", "car\nperson\n")
    data = "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n"
    write(root / "obj.data", f"{data}backup = backup/\n")


def darknet(root: Path) -> None:
    for i in range(2):  # under a folder that is called images
        file = picture(root / "images" / "farm" / f"p{i}.jpg")
        write(file.with_suffix(".txt"), yolo_rows(i))
    write(root / "images" / "farm" / "obj.names", "car\nperson\n")


def fiftyone_openimages(root: Path) -> None:
    _open_images(root / "labels" / "detections.csv", root / "data", "")
    write(root / "metadata" / "classes.csv", "/m/0k4j,car\n/m/01g317,person\n")


def open_images(root: Path) -> None:
    for part in ("train", "validation"):
        _open_images(root / f"{part}-annotations-bbox.csv", root / part, part)
    write(root / "class-descriptions-boxable.csv", "/m/0k4j,car\n/m/01g317,person\n")


def _open_images(file: Path, folder: Path, part: str) -> None:
    rows = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf\n"
    for i in range(2):
        picture(folder / f"{part}{i}.jpg")
        for name, (x1, y1, x2, y2) in boxes(i):
            label = {"car": "/m/0k4j", "person": "/m/01g317"}[name]
            sides = f"{x1 / WIDTH},{x2 / WIDTH},{y1 / HEIGHT},{y2 / HEIGHT}"
            rows += f"{part}{i},xclick,{label},1,{sides},0,0\n"
    write(file, rows)


def label_studio_yolo(root: Path) -> None:
    for i in range(2):
        picture(root / "images" / f"3f2a-{i}.jpg")
        write(root / "labels" / f"3f2a-{i}.txt", yolo_rows(i))
    write(root / "classes.txt", "car\nperson\n")
    categories = [{"id": 0, "name": "car"}, {"id": 1, "name": "person"}]
    write(root / "notes.json", json.dumps({"categories": categories, "info": {"year": 2026}}))


def label_studio_coco(root: Path) -> None:
    for i in range(2):
        picture(root / "images" / f"3f2a-{i}.jpg")
    coco(root / "result.json", ["images\\3f2a-0.jpg", "images\\1/3f2a-1.jpg"], first_category=0)


def label_studio_voc(root: Path) -> None:
    for i in range(2):
        picture(root / "images" / f"{i}.jpg")
        voc_xml(root / "Annotations" / f"{i}.xml", str(i), i)


def labelimg_voc(root: Path) -> None:
    for i in range(2):
        picture(root / f"{i}.jpg")
        voc_xml(root / f"{i}.xml", f"C:\\Users\\me\\{i}.jpg", i, folder="me")


def voc_2012(root: Path) -> None:
    for i in range(2):
        picture(root / "JPEGImages" / f"{i}.jpg")
        voc_xml(root / "Annotations" / f"{i}.xml", f"{i}.jpg", i)
    write(root / "ImageSets" / "Main" / "train.txt", "0\n1\n")


def voc_usual(root: Path) -> None:
    for i in range(2):
        picture(root / "images" / f"{i}.png")
        voc_xml(root / "annotations" / f"{i}.xml", f"{i}.png", i)


def labelme(root: Path) -> None:
    for i in range(2):
        picture(root / f"{i}.jpg")
        shapes = [
            {"label": name, "points": [[x2, y2], [x1, y1]], "shape_type": "rectangle"}
            for name, (x1, y1, x2, y2) in boxes(i)
        ]
        facts = {"imagePath": f"..\\pics\\{i}.jpg", "imageHeight": HEIGHT, "imageWidth": WIDTH}
        write(root / f"{i}.json", json.dumps({"version": "5.4.1", "shapes": shapes, **facts}))


def roboflow_coco(root: Path) -> None:
    for part in ("train", "valid", "test"):
        names = [picture(root / part / f"{i}_jpg.rf.a1.jpg").name for i in range(2)]
        coco(root / part / "_annotations.coco.json", names, extra=True)


def roboflow_voc(root: Path) -> None:
    for part in ("train", "valid", "test"):
        for i in range(2):
            picture(root / part / f"{i}.jpg")
            voc_xml(root / part / f"{i}.xml", f"{i}.jpg", i)


def roboflow_csv(root: Path) -> None:
    for part in ("train", "valid", "test"):
        rows = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
        for i in range(2):
            picture(root / part / f"{i}.jpg")
            for name, corners in boxes(i):
                rows += f"{i}.jpg,{WIDTH},{HEIGHT},{name}," + ",".join(map(str, corners)) + "\n"
        write(root / part / "_annotations.csv", rows)


def roboflow_yolo(root: Path) -> None:
    for part in ("train", "valid"):  # its YAML names a test folder that is not there
        for i in range(2):
            picture(root / part / "images" / f"{i}.jpg")
            write(root / part / "labels" / f"{i}.txt", yolo_rows(i))
    paths = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
    write(root / "data.yaml", f"{paths}nc: 2\nnames: ['car', 'person']\nroboflow: {{project: y}}\n")


def ultralytics(root: Path) -> None:
    for part in ("train", "val"):
        for i in range(2):
            picture(root / "images" / part / f"{i}.jpg")
            write(root / "labels" / part / f"{i}.txt", yolo_rows(i))
    paths = "path: D:\\work\\street\ntrain: images/train\nval: images/val\n"
    write(root / "data.yaml", f"{paths}names: {{0: car, 1: person}}\n")


def ultralytics_lists(root: Path) -> None:
    ultralytics(root)
    rows = "/content/street/images/train/0.jpg\nD:\\work\\street\\images\\train\\1.jpg\n"
    write(root / "train.txt", rows)
    write(root / "val.txt", ".\\images\\val\\0.jpg\n./images/val/1.jpg\n")
    lists = "path: D:\\work\\street\ntrain: train.txt\nval: val.txt\n"
    write(root / "data.yaml", f"{lists}names: {{0: car, 1: person}}\n")


def ultralytics_pose(root: Path) -> None:
    ultralytics(root)
    for file in (root / "labels").rglob("*.txt"):
        rows = file.read_text().splitlines()
        write(file, "".join(f"{row} 0.2 0.4 2 0.3 0.5 1 0 0 0 0.25 0.45 2\n" for row in rows))
    text = (root / "data.yaml").read_text()
    write(root / "data.yaml", f"{text}kpt_shape: [4, 3]\n")


def ultralytics_obb(root: Path) -> None:
    ultralytics(root)
    for file in (root / "labels").rglob("*.txt"):
        rows = ""
        for label, (_, (x1, y1, x2, y2)) in enumerate(boxes(int(file.stem))):
            corners = ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
            rows += f"{label} " + " ".join(f"{x / WIDTH} {y / HEIGHT}" for x, y in corners) + "\n"
        write(file, rows)


def ultralytics_saved(root: Path) -> None:
    ultralytics(root)
    for file in (root / "labels").rglob("*.txt"):
        write(file, "".join(f"{row} 0.91\n" for row in file.read_text().splitlines()))


EXPORTS: dict[tuple[str, str], Callable[[Path], None]] = {
    ("COCO", "as downloaded (2017)"): coco_2017,
    ("COCO", "one file and its pictures"): coco_one_file,
    ("COCO", "ids and numbers as text"): coco_text_ids,
    ("COCO", "masks without boxes"): coco_masks,
    ("CVAT", "COCO 1.0"): cvat_coco,
    ("CVAT", "CVAT for images 1.1"): cvat_images,
    ("CVAT", "YOLO 1.1"): cvat_yolo,
    ("Darknet", "labels beside the pictures"): darknet,
    ("FiftyOne", "Open Images V6"): fiftyone_openimages,
    ("Label Studio", "COCO"): label_studio_coco,
    ("Label Studio", "Pascal VOC"): label_studio_voc,
    ("Label Studio", "YOLO"): label_studio_yolo,
    ("labelImg", "Pascal VOC beside the pictures"): labelimg_voc,
    ("labelme", "JSON"): labelme,
    ("Open Images", "as downloaded"): open_images,
    ("Pascal VOC", "as downloaded (2012)"): voc_2012,
    ("Pascal VOC", "images/ and annotations/"): voc_usual,
    ("Roboflow", "COCO"): roboflow_coco,
    ("Roboflow", "Pascal VOC"): roboflow_voc,
    ("Roboflow", "TensorFlow CSV"): roboflow_csv,
    ("Roboflow", "YOLO"): roboflow_yolo,
    ("Ultralytics", "detection"): ultralytics,
    ("Ultralytics", "lists of another machine"): ultralytics_lists,
    ("Ultralytics", "oriented boxes, segments"): ultralytics_obb,
    ("Ultralytics", "pose"): ultralytics_pose,
    ("Ultralytics", "saved predictions"): ultralytics_saved,
}


def documented() -> dict[tuple[str, str], str]:
    """Exporter and export to the format, as the documentation has them."""
    section = DOCS.read_text().split("## What is read\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    return {(exporter, export): format for exporter, export, format in cells}


TOLD = {  # by the kind of problem; of all others nothing
    ("Roboflow", "YOLO"): ["split"],
    ("Ultralytics", "saved predictions"): ["repaired"] * 4,
}


def check(data: DataSet, pictures: int) -> None:
    assert data.classes in (("car", "person"), ("person", "car"))
    assert len(data.samples) == pictures
    people = 0
    for sample in data.samples:
        names = [data.classes[label] for label in sample.labels]
        rows = dict(zip(names, sample.xyxy, strict=True))
        assert names in (["car"], ["car", "person"]), sample.path
        np.testing.assert_allclose(rows["car"], CAR, atol=0.01)
        if "person" in rows:
            people += 1
            np.testing.assert_allclose(rows["person"], PERSON, atol=0.01)
    assert people == pictures // 2


@pytest.mark.parametrize("export", EXPORTS, ids=" ".join)
def test_an_export_is_read_as_it_is_meant(export: tuple[str, str], tmp_path: Path) -> None:
    EXPORTS[export](tmp_path)
    parts = [part for part in ("train", "val", "test") if _has(tmp_path, part)]
    data = load(tmp_path)
    check(data, 2 * max(1, len(parts)))
    assert [problem.kind for problem in data.problems] == TOLD.get(export, [])
    assert load(tmp_path, format=documented()[export]).sha256 == data.sha256
    for part in parts:
        check(load(tmp_path, split=part), 2)


def _has(root: Path, part: str) -> bool:
    """Whether a look-alike has this part, told by its files' and folders' names."""
    names = (path.name for path in root.rglob("*"))
    return any(re.match(rf"(instances_|obj_)?{part}", name) for name in names)


def test_the_documentation_lists_what_is_tried_here() -> None:
    rows = documented()
    assert list(rows) == sorted(EXPORTS, key=lambda pair: (pair[0].lower(), pair[1]))
    assert set(rows.values()) == set(FORMATS)


UNREAD = {
    "Label Studio's own JSON": ("a.json", '[{"image": "/a.jpg", "label": [{"rectanglelabels": []}]}]'),
    "the VGG Image Annotator's JSON": ("via.json", '{"_via_settings": {}, "_via_img_metadata": {}}'),
    "CreateML's JSON": ("a.json", '[{"image": "a.jpg", "annotations": [{"coordinates": {}}]}]'),
    "FiftyOne's own JSON": ("labels.json", '{"classes": ["car"], "labels": {"a": [{"label": 0}]}}'),
    "CVAT's XML for video": ("annotations.xml", "<annotations><track id='0'><box/></track></annotations>"),
    "TFRecord": ("cars.tfrecord", "x"),
    "a CSV without the columns": ("boxes.csv", "picture,kind\na.jpg,car\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREAD)
def test_what_is_not_read_is_named_for_what_it_is(name: str, tmp_path: Path) -> None:
    file, text = UNREAD[name]
    picture(tmp_path / "images" / "a.jpg")
    write(tmp_path / file, text)
    with pytest.raises(
        DataError, match=rf"{re.escape(file)}.* (is|:) .*{name.split(maxsplit=1)[0]}.* export"
    ):
        load(tmp_path)
