"""The carried model is right about scenes that it never saw, and its recipe runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.detections import Detections
from stages.detector.bundle import read_facts
from stages.imaging.scenes import still
from stages.imaging.shapes import CLASSES
from stages.training import demo
from stages.training.datasets import Sample
from stages.training.matching import match
from stages.training.predict import Predictor

BUNDLE = Path(demo.__file__).parents[1] / "detector" / "demo.bundle"


def sample_of(truth: Detections, size_wh_px: tuple[int, int]) -> Sample:
    nothing = np.zeros(len(truth), bool)
    return Sample(
        path=Path("rendered"), width=size_wh_px[0], height=size_wh_px[1], xyxy=truth.xyxy,
        labels=truth.labels, crowd=nothing, difficult=nothing, image_id=0, group="",
    )  # fmt: skip


def test_the_carried_model_is_right_about_new_scenes() -> None:
    facts = read_facts(str(BUNDLE))
    assert facts.classes == CLASSES
    assert facts.provenance["metrics"]["map_50"] >= 0.9
    assert BUNDLE.stat().st_size <= 6_000_000
    predictor = Predictor(BUNDLE, threads=1)
    right = said = there = 0
    for index in range(60):
        size = [(640, 360), (1280, 720), (640, 480)][index % 3]
        image, truth = still(4711, index, size, objects=index % 7)
        [found] = predictor([image])
        matches = match(found, sample_of(truth, size), iou=0.5)
        right += int((matches.truth >= 0).sum())
        said += len(found)
        there += len(truth)
    assert there > 100
    assert right / said >= 0.9
    assert right / there >= 0.88


def test_the_recipe_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = demo.plan()
    quick = replace(whole.train, epochs=1, evaluate_every=1, batch=4, workers=0)
    monkeypatch.setattr(demo, "plan", lambda seed: replace(whole, train=quick))
    monkeypatch.setattr(demo, "COUNTS", {"train": 8, "val": 4, "test": 4})
    output = tmp_path / "demo.bundle"
    metrics = demo.build(tmp_path / "work", output)
    facts = read_facts(str(output))
    assert facts.provenance["metrics"] == metrics
    assert metrics["pictures"] == 4
