"""What evaluation says of a model is what the pipeline does with it: box for box, and so in AP."""

import json
import os

import cv2
import numpy as np
import pytest

from pipeline.plan.config import load
from pipeline.plan.model_path import demo_model
from pipeline.plan.standard import make
from pipeline.supervision.supervisor import Options, Supervisor
from stages.detector.engines import ENGINES
from stages.imaging.scenes import still
from stages.imaging.shapes import CLASSES
from stages.training import datasets, predict
from stages.training.evaluate import evaluate

# The model takes 320x192: larger and smaller pictures, upright ones, odd sides; 1601x1199 is the
# largest, and stays below the pipeline's default max_size, from which on pictures are scaled down.
SIZES_WH_PX = (
    (640, 360), (320, 192), (1601, 1199), (352, 288), (270, 480), (161, 99), (640, 360), (1280, 720),
    (333, 187), (480, 360),
)  # fmt: skip
SCORE = 0.001  # AP needs the tail


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Rendered scenes with their truth as COCO JSON; the last picture is empty."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "images").mkdir()
    images, annotations = [], []
    for index, size in enumerate(SIZES_WH_PX):
        objects = 0 if index == len(SIZES_WH_PX) - 1 else 4
        image, truth = still(97, index, size, objects)
        name = f"images/{index:02d}.{'png' if index % 2 else 'jpg'}"
        cv2.imwrite(str(folder / name), image)
        images.append({"id": index, "file_name": name, "width": size[0], "height": size[1]})
        for (x1, y1, x2, y2), label in zip(truth.xyxy.tolist(), truth.labels.tolist(), strict=True):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": index, "category_id": label + 1,
                 "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            )  # fmt: skip
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
    tree = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(tree))
    return datasets.load(folder)


def run_over(folder, engine, where, tiles=(1, 1)):
    """The events of a run of the demo model over a folder of pictures, policy every."""
    (where / "run.toml").write_text(
        f'[run]\npolicy = "every"\n[metrics]\nenabled = false\n'
        f'[model]\nengine = "{engine}"\nscore_threshold = {SCORE}\n'
        f"tiles = {list(tiles)}\n"
        f'[[camera]]\nname = "stills"\nsource = "{folder}"\n'
        '[[sink]]\ntype = "events"\npath = "events.jsonl"\n'
    )
    supervisor = Supervisor(make(load(where / "run.toml")), Options(to_bgr=None))
    supervisor.run()
    assert [totals.error for totals in supervisor.totals.values()] == [0]
    return where / "events.jsonl"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", [name for name in ENGINES if name not in ("auto", "stub")])
def test_the_pipeline_finds_what_evaluate_finds(engine, scenes, tmp_path):
    """Evaluation runs the TorchScript form, whatever engine a run takes: all that `auto` may take."""
    if engine != "torchscript":
        pytest.importorskip({"onnx": "onnxruntime"}.get(engine, engine))
    events = run_over(scenes.samples[0].path.parent, engine, tmp_path)
    piped = predict.found_by(events, scenes).detections
    judged = predict.found_by(demo_model(), scenes)

    assert sum(map(len, judged.detections)) > 100
    for sample, ours, theirs in zip(scenes.samples, piped, judged.detections, strict=True):
        same_boxes(ours, theirs, os.path.basename(sample.path))

    at = judged.score_threshold
    wanted = evaluate(judged.detections, scenes, score_threshold=at)
    got = evaluate(piped, scenes, score_threshold=at)
    assert got.coco == pytest.approx(wanted.coco, abs=1e-3)
    assert wanted.coco["AP50"] > 0.8  # or equal figures would say little


@pytest.mark.timeout(300)
def test_the_pipeline_finds_in_tiles_what_evaluate_finds_in_them(scenes, tmp_path):
    events = run_over(scenes.samples[0].path.parent, "torchscript", tmp_path, tiles=(2, 1))
    judged = predict.found_by(demo_model(), scenes, tiles=(2, 1)).detections
    for sample, ours, theirs in zip(
        scenes.samples, predict.found_by(events, scenes).detections, judged, strict=True
    ):
        same_boxes(ours, theirs, os.path.basename(sample.path))
    plain = predict.found_by(demo_model(), scenes).detections
    assert sum(map(len, judged)) > sum(map(len, plain))


def same_boxes(ours, theirs, where):
    """As many detections, and each with its like: batches of another size change the last bits."""
    assert len(ours) == len(theirs), where
    free = np.ones(len(theirs), bool)
    for xyxy, score, label in zip(ours.xyxy, ours.scores, ours.labels, strict=True):
        away = np.abs(theirs.xyxy - xyxy).max(axis=1)
        like = free & (theirs.labels == label) & (np.abs(theirs.scores - score) < 1e-4)
        near = np.flatnonzero(like & (away < 0.02))
        assert len(near), f"{where}: {label} {score} {xyxy} is {away[like].min(initial=1e9)} px off"
        free[near[away[near].argmin()]] = False
