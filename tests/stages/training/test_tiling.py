"""Training on tiles: the parts of a picture as pictures, and a run whose bundle knows of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_runs

from stages.training import datasets, trained
from stages.training.datasets import DataSet, read_image
from stages.training.plan import load_plan
from stages.training.settings import canvas, plan
from stages.training.tiling import SHOWN, tiled
from stages.training.validation import facts_of


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return tiny_runs.draw(tmp_path_factory.mktemp("tiles"), "train", 6)


def test_boxes_lie_on_the_same_pixels_in_a_part_as_in_the_whole(data: DataSet) -> None:
    cut = tiled(data, (2, 2))
    parts = [sample for sample in cut.samples if sample.part is not None]
    assert [sample.part for sample in cut.samples[: len(data.samples)]] == [None] * 6
    assert len({sample.image_id for sample in cut.samples}) == len(cut.samples)
    whole = {sample.path: sample for sample in data.samples}
    for sample in parts:
        image, source = read_image(sample), read_image(whole[sample.path])
        x1, y1, x2, y2 = sample.part
        np.testing.assert_array_equal(image, source[y1:y2, x1:x2])
        assert (sample.xyxy >= 0).all()
        assert (sample.xyxy <= [sample.width, sample.height] * 2).all()
        for box, label in zip(sample.xyxy, sample.labels, strict=True):
            assert label in whole[sample.path].labels
            moved = box + np.float32([x1, y1, x1, y1])
            clipped = np.clip(whole[sample.path].xyxy, [x1, y1] * 2, [x2, y2] * 2)
            assert np.abs(clipped - moved).max(axis=1).min() < 1e-4
    area = sum(((s.xyxy[:, 2:] - s.xyxy[:, :2]).prod(axis=1)).sum() for s in parts)
    full = sum(((s.xyxy[:, 2:] - s.xyxy[:, :2]).prod(axis=1)).sum() for s in data.samples)
    assert SHOWN * full < area < 4 * full


def test_parts_that_show_nothing_do_not_drown_the_rest(data: DataSet) -> None:
    parts = tiled(data, (3, 3), whole=False).samples
    empty = [part for part in parts if not len(part.labels)]
    assert 0 < len(empty) <= len(parts) - len(empty)
    assert tiled(data, (1, 1)) is data


def test_the_canvas_is_chosen_for_the_parts() -> None:
    box = np.float32([[0, 0, 12, 12]])
    sample = datasets.Sample(
        path=Path("a"), width=3840, height=2160, xyxy=box, labels=np.zeros(1, np.int32),
        crowd=np.zeros(1, bool), difficult=np.zeros(1, bool), image_id=1, group="",
    )  # fmt: skip
    data = DataSet(name="4k", classes=("a",), samples=(sample,), problems=(), sha256="")
    assert canvas(data) == (1920, 1088)  # the most, and not enough
    made = plan(data, architecture="fcos_tiny", tiles=(4, 4))
    assert (made.model.width, made.model.height) == (1120, 640)
    assert made.resize.tiles == (4, 4)


def test_a_run_on_tiles_is_judged_and_exported_with_them(tmp_path: Path) -> None:
    training = tiny_runs.draw(tmp_path / "data", "train", 4)
    asked = plan(
        training, architecture="fcos_tiny", tiles=(2, 1), size_wh_px=(64, 64),
        train={"epochs": 1, "batch": 2, "workers": 0},
        data={"training": {}, "validation": {}},
    )  # fmt: skip
    tiny_runs.train(asked, tiled(training, (2, 1)), training, tmp_path / "run")
    assert load_plan(tmp_path / "run").resize.tiles == (2, 1)
    known = trained.load(tmp_path / "run")
    assert facts_of(known.config, known.resize).resize.pictures == 3
