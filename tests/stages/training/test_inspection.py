"""The report of a data set counts what is there; its pictures are made of it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from stages.training.datasets import DataSet, Sample
from stages.training.formats import Problem
from stages.training.inspection import contact_sheet, inspect, size_plot


@pytest.fixture
def dataset(tmp_path: Path) -> DataSet:
    """Six grey pictures, the first with a car and a bus, the rest with a car; the last with nothing."""
    samples = []
    for i in range(6):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), np.full((60, 80, 3), 128, np.uint8))
        shown = [] if i == 5 else [0, 1] if i == 0 else [0]
        boxes = [[10, 10, 10 + side, 10 + side] for side in (16, 40)][: len(shown)]
        samples.append(
            Sample(
                path=path,
                width=80,
                height=60,
                xyxy=np.array(boxes, np.float32).reshape(-1, 4),
                labels=np.array(shown, np.int32),
                crowd=np.zeros(len(shown), bool),
                difficult=np.array(shown, bool),
                image_id=i,
                group="",
            )
        )
    problem = Problem(
        kind="clipped", file=tmp_path / "a[b].xml", line=7, text="box [1, 2] is clipped"
    )
    return DataSet(
        name="made",
        classes=("car", "bus", "dog"),
        samples=tuple(samples),
        problems=(problem,) * 12,
        sha256="ab" * 32,
    )


def test_the_report_counts(dataset: DataSet) -> None:
    report = inspect(dataset)
    assert (report.pictures, report.empty, report.boxes) == (6, 1, 6)
    car, bus, dog = report.classes
    assert (car.boxes, car.pictures, car.side_p50_px) == (5, 5, 16)
    assert (bus.boxes, bus.difficult, bus.side_p50_px) == (1, 1, 40)
    assert dog.boxes == 0
    tree = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert tree["classes"][2]["side_p50_px"] is None
    assert tree["problems"][0]["line"] == 7
    screen = io.StringIO()
    Console(file=screen, width=120).print(report.table(shown=3))
    assert "clipped: 12" in screen.getvalue()
    assert "a[b].xml:7: box [1, 2] is clipped" in screen.getvalue()  # brackets are no markup
    assert "… and 9 more" in screen.getvalue()


def test_pictures_are_drawn(dataset: DataSet, tmp_path: Path) -> None:
    contact_sheet(dataset, tmp_path / "sheet.png", pictures=3)
    size_plot(dataset, tmp_path / "sizes.png")
    for name in ("sheet.png", "sizes.png"):
        image = cv2.imread(str(tmp_path / name))
        assert min(image.shape[:2]) > 200
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20


def test_a_data_set_without_boxes_is_drawn_and_reported(dataset: DataSet, tmp_path: Path) -> None:
    empty = replace(dataset, samples=dataset.samples[5:], problems=())
    assert inspect(empty).boxes == 0
    contact_sheet(empty, tmp_path / "sheet.png")
    size_plot(empty, tmp_path / "sizes.png")
    assert (tmp_path / "sizes.png").stat().st_size > 1000
    screen = io.StringIO()
    Console(file=screen, width=120).print(inspect(empty).table())
    assert "no problems" in screen.getvalue()
