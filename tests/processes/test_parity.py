"""What evaluation says of a model is what the pipeline does with it: box for box, and so in AP."""

import json
import os

import cv2
import numpy as np
import pytest
import torch

from pipeline.config import demo_model, load
from pipeline.plan import make
from pipeline.supervisor import Options, Supervisor
from stages.detector.bundle import read_facts
from stages.imaging.scenes import still
from stages.imaging.shapes import CLASSES
from stages.training import datasets, export, models, predict
from stages.training.evaluate import evaluate
from stages.training.models import ModelConfig

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


@pytest.fixture(scope="module")
def onnx_bundle(tmp_path_factory, scenes):
    """The demo model, built again from the weights in its script, as ONNX."""
    facts = read_facts(str(demo_model()))
    config = ModelConfig.from_json(facts.provenance["model"])
    model = models.build(config)
    _unfold(model, torch.jit.load(str(demo_model())).state_dict())
    output = tmp_path_factory.mktemp("onnx") / "demo.onnx"
    pictures = [datasets.read_image(sample) for sample in scenes.samples[:2]]
    export.export(
        model, config, output=output, pictures=pictures, resize=facts.resize,
        defaults=facts.defaults, format="onnx", k=500,
    )  # fmt: skip
    return output


def _unfold(model, folded):
    """Weights of a script back into the model: each norm adds the bias of its convolution, no more."""
    state = model.state_dict()
    for key in state:
        stem, _, kind = key.rpartition(".")
        if f"net.{key}" in folded:
            state[key] = folded[f"net.{key}"]
        elif f"{stem}.running_var" in state:
            before = stem[: stem.rfind(".") + 1] + str(int(stem.rpartition(".")[2]) - 1)
            fill = {"weight": 1.0, "running_mean": 0.0, "running_var": 1 - 1e-5}
            if kind == "bias":
                state[key] = folded[f"net.{before}.bias"]
            elif kind in fill:
                state[key] = torch.full_like(state[key], fill[kind])
    model.load_state_dict(state)


def run_over(folder, bundle, where):
    """The events of a run over a folder of pictures, policy every."""
    (where / "run.toml").write_text(
        f'[run]\npolicy = "every"\n[metrics]\nenabled = false\n'
        f'[model]\npath = "{bundle}"\nscore_threshold = {SCORE}\n'
        f'[[camera]]\nname = "stills"\nsource = "{folder}"\n'
        '[[sink]]\ntype = "events"\npath = "events.jsonl"\n'
    )
    supervisor = Supervisor(make(load(where / "run.toml")), Options(to_bgr=None))
    supervisor.run()
    assert [totals.error for totals in supervisor.totals.values()] == [0]
    return where / "events.jsonl"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("form", ["torchscript", "onnx"])
def test_the_pipeline_finds_what_evaluate_finds(form, scenes, tmp_path, request):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        bundle = request.getfixturevalue("onnx_bundle")
    else:
        bundle = demo_model()
    events = run_over(scenes.samples[0].path.parent, bundle, tmp_path)
    piped = predict.found_by(events, scenes).detections
    judged = predict.found_by(bundle, scenes)

    assert sum(map(len, judged.detections)) > 100
    for sample, ours, theirs in zip(scenes.samples, piped, judged.detections, strict=True):
        same_boxes(ours, theirs, os.path.basename(sample.path))

    at = judged.score_threshold
    wanted = evaluate(judged.detections, scenes, score_threshold=at)
    got = evaluate(piped, scenes, score_threshold=at)
    assert got.coco == pytest.approx(wanted.coco, abs=1e-3)
    assert wanted.coco["AP50"] > 0.8  # or equal figures would say little


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
