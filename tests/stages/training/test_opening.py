"""The canvas that is chosen, and what `train` says of a plan before it begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from stages.training import journal, opening, settings
from stages.training.datasets import DataSet, Sample


def data_set(size: tuple[int, int], *sides_px: float, crowd: bool = False) -> DataSet:
    """One picture of `size` with a square of each side."""
    boxes = [[0, 0, side, side] for side in sides_px]
    sample = Sample(
        path=Path("a.png"),
        width=size[0],
        height=size[1],
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.zeros(len(boxes), np.int32),
        crowd=np.full(len(boxes), crowd),
        difficult=np.zeros(len(boxes), bool),
        image_id=1,
        group="",
    )
    return DataSet(name="d", classes=("car",), samples=(sample,), problems=(), sha256="")


@pytest.mark.parametrize(
    ("size", "sides", "canvas"),
    [
        ((1920, 1080), (200,) * 10, (416, 224)),
        ((1920, 1080), (12,) * 10, (1920, 1088)),
        ((3840, 2160), (12,) * 10, (1920, 1088)),
        ((1920, 1080), (20,) * 10, (1152, 640)),
        ((640, 480), (6,) * 10, (640, 480)),  # never larger than the picture
        ((352, 288), (30,) * 10, (352, 288)),
        ((1920, 1080), (), (416, 224)),
    ],
)
def test_small_objects_get_a_larger_canvas(
    size: tuple[int, int], sides: tuple[float, ...], canvas: tuple[int, int]
) -> None:
    assert settings.canvas(data_set(size, *sides)) == canvas


def test_what_is_not_learnt_from_is_said_before_it_begins() -> None:
    data = data_set((1920, 1080), 200, 200, 10)
    plan = settings.plan(data, architecture="fcos_tiny", size_wh_px=(416, 224))
    first, small = opening.sentences(plan, data, data)
    assert "fcos_tiny from random weights, 1 class(es), canvas 416x224 px; 1 pictures" in first
    assert "up to 150 epochs in batches of 8" in first
    assert small.startswith("1 of 3 boxes are less than 3 px wide or high")
    assert len(opening.sentences(plan, data_set((1920, 1080), 200), data)) == 1
    crowds = opening.sentences(plan, data_set((1920, 1080), 200, crowd=True), data)
    assert crowds[1] == "1 boxes of crowds and 0 difficult ones are not learnt from"


def test_parts_are_said_and_refused_where_they_cannot_be() -> None:
    data = data_set((1920, 1080), *(12,) * 10)
    plan = settings.plan(data, architecture="fcos_tiny")
    assert "canvas 1920x1088 px in parts of 320 px;" in opening.sentences(plan, data, data)[0]
    whole = settings.plan(data, architecture="fcos_tiny", changes=["part_px=0"])
    assert "canvas 1920x1088 px;" in opening.sentences(whole, data, data)[0]
    for architecture in ("ssd300_vgg16", "dfine_n"):
        with pytest.raises(ConfigError, match=f"part_px: has no effect with {architecture}"):
            settings.plan(data, architecture=architecture, changes=["part_px=64"])


def test_a_canvas_on_which_every_box_vanishes_is_refused() -> None:
    data = data_set((1920, 1080), 12, 12)
    plan = settings.plan(data, architecture="fcos_tiny", size_wh_px=(416, 224))
    with pytest.raises(ConfigError, match=r"all 2 boxes are less than 3 px .* larger --size"):
        opening.sentences(plan, data, data)


def test_a_validation_without_anything_to_find_is_said_and_has_no_figures() -> None:
    data = data_set((640, 480), 100)
    plan = settings.plan(data, architecture="fcos_tiny")
    lines = opening.sentences(plan, data, data_set((640, 480)))
    assert lines[1].startswith("validation has nothing to find")
    figures = {"map": -1.0, "map_50": -1.0, "f1": 0.0}
    line = {"epoch": 1, "losses": {}, "images_per_s": 1.0, "validation": {"raw": figures}}
    assert journal.sentence(line) == "epoch 1: raw: mAP – AP50 – F1 0.000; 1.0 pictures/s"
