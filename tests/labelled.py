"""Small data sets in the formats that people have, for tests."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from PIL import Image as Pil

from stages.training.datasets import DataSet


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
