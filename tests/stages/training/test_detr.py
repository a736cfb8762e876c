"""Detectors with queries, of transformers: they train, are exported through the gate, and take weights."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_runs
import torch
from torch import nn

from pipeline.errors import ConfigError
from stages.detector import twin
from stages.detector.decode import Options
from stages.imaging.scenes import still
from stages.training import detr, models, runs, trained
from stages.training import weights as weight_files
from stages.training.candidates import candidates
from stages.training.export import export
from stages.training.models import ModelConfig
from stages.training.plan import Plan, load_plan
from stages.training.predict import Predictor
from stages.training.train import TrainConfig

CLASSES = ("person", "car")
CONFIG = ModelConfig(architecture="rtdetr_v2_r18", classes=CLASSES, width=160, height=128)
CANVAS = {"rtdetr_v2_r18": (160, 128), "dfine_n": (256, 256), "rfdetr_nano": (288, 288)}

_connections: list[Any] = []


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.getaddrinfo"):
        _connections.append(arguments)


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    """Nothing in this file may look for a network; an audit hook can't be taken away, but forgets."""
    sys.addaudithook(_listen)
    _connections.clear()
    yield
    assert not _connections


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """RT-DETRv2 whose queries answer differently, as those of a trained one do."""
    torch.manual_seed(0)
    model: Any = models.build(CONFIG)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "enc_score_head.weight" in name or (".class_embed." in name and "weight" in name):
                nn.init.normal_(parameter, std=0.3)
            elif "bbox_embed" in name and name.endswith("layers.2.weight"):
                nn.init.normal_(parameter, std=0.05)
    return model


@pytest.mark.parametrize("architecture", CANVAS)
def test_a_picture_without_boxes_trains_and_each_gives_its_boxes(architecture: str) -> None:
    width, height = CANVAS[architecture]
    config = ModelConfig(architecture=architecture, classes=CLASSES, width=width, height=height)
    model = models.build(config)
    pictures = list(torch.rand(2, 3, height, width))
    boxes = [torch.tensor([[20.0, 30.0, 80.0, 90.0]]), torch.zeros(0, 4)]
    targets = [{"boxes": b, "labels": torch.zeros(len(b), dtype=torch.int64)} for b in boxes]
    empty = targets[1:] * 2
    for those in (targets, empty) if architecture == CONFIG.architecture else (targets,):
        sum(model(pictures, those).values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    first = next(model.backbone.parameters()).grad
    assert first is not None
    assert first.abs().max() > 0  # norms with weights near 0 would let nothing through
    with torch.no_grad():
        found = model.eval()(pictures)
    assert [len(f["boxes"]) for f in found] == [detr.QUERIES] * 2
    assert found[0]["scores"].diff().max() <= 0


def test_a_bundle_and_its_twin_find_what_the_model_finds(model: nn.Module, tmp_path: Path) -> None:
    pictures = [still(1, i, (160, 128), objects=6)[0] for i in range(3)]
    facts = export(model, CONFIG, output=tmp_path / "d.bundle", pictures=pictures)
    assert (facts.layout, facts.activation, facts.twin is not None) == ("detr", "sigmoid", True)
    assert facts.provenance["parity"]["candidates"] > 100
    predictor = Predictor(tmp_path / "d.bundle", options=Options(score_threshold=0.1), device="cpu")
    found = predictor(pictures)
    stock = copy.deepcopy(model).eval()
    for ours, picture in zip(found, pictures, strict=True):
        rgb = torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1).float() / 255
        with torch.no_grad():
            [theirs] = stock([rgb])
        best = np.argsort(-ours.scores)[:20]
        assert len(best) == 20
        np.testing.assert_allclose(ours.scores[best], theirs["scores"][:20].numpy(), atol=1e-3)
        assert (ours.labels[best] == theirs["labels"][:20].numpy()).all()
        inside = theirs["boxes"][:20].numpy().clip(0, [160, 128, 160, 128])
        np.testing.assert_allclose(ours.xyxy[best], inside, atol=0.05)


def test_positions_of_a_vision_transformer_are_those_of_its_canvas() -> None:
    """It would scale them in each call, and in a trace by what ONNX can't say."""
    config = ModelConfig(architecture="rfdetr_nano", classes=CLASSES, width=320, height=288)
    torch.manual_seed(0)
    model = models.build(config).eval()
    pictures = torch.randint(0, 256, (2, 3, 288, 320), dtype=torch.uint8)
    shipped = candidates(model, config)
    trace: Any = torch.jit.trace
    with torch.no_grad(), twin.quiet():
        found = trace(shipped, pictures, check_trace=False)
        logits, boxes = found(pictures)
        theirs = model.network(pixel_values=shipped.normalise(pictures))  # type: ignore[operator]
    assert "bicubic" not in str(found.inlined_graph)
    torch.testing.assert_close(logits, theirs.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(boxes, theirs.pred_boxes, atol=1e-4, rtol=1e-4)


def test_boxes_that_are_sums_are_not_exported_in_half_precision(
    model: nn.Module, tmp_path: Path
) -> None:
    pictures = [still(1, 0, (160, 128))[0]]
    with pytest.raises(
        ConfigError, match=r"rtdetr_v2_r18 is exported in fp32, got precision 'fp16'"
    ):
        export(model, CONFIG, output=tmp_path / "d.bundle", pictures=pictures, precision="fp16")
    assert not list(tmp_path.iterdir())


def test_a_run_trains_it_and_its_folder_is_a_model_again(tmp_path: Path) -> None:
    data = tiny_runs.draw(tmp_path / "data", "train", 3)
    model = replace(CONFIG, classes=data.classes)
    plan = Plan(model=model, train=TrainConfig(epochs=1, batch=3, workers=0))
    outcome = runs.train(plan, data, data, tmp_path / "run", device="cpu")
    assert outcome.epochs == 1
    known = trained.load(tmp_path / "run")
    assert known.config == model
    settled = load_plan(tmp_path / "run").train
    assert (settled.optimizer, settled.lr, settled.precision) == ("adamw", 2e-4, "fp32")


def test_weights_come_from_a_folder_of_transformers_by_the_names_of_classes(
    model: Any, tmp_path: Path
) -> None:
    model.network.save_pretrained(tmp_path / "hub")
    wanted = replace(CONFIG, classes=("car", "bicycle", "person"))
    ours: Any = models.build(wanted, weights=tmp_path / "hub")
    for key, theirs in model.state_dict().items():
        got = ours.state_dict()[key]
        if "denoising" in key:  # of training alone
            continue
        if got.shape == theirs.shape:
            assert torch.equal(got, theirs), key
        else:
            assert torch.equal(got[[2, 0]], theirs), key  # person, car
    with pytest.raises(ConfigError, match=r"dfine_n|another architecture"):
        models.build(replace(CONFIG, architecture="rtdetr_v2_r34"), weights=tmp_path / "hub")
    (tmp_path / "hub" / "model.safetensors").write_bytes(b"none")
    with pytest.raises(ConfigError, match="transformers cannot open it"):
        models.build(wanted, weights=tmp_path / "hub")


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ("DEFAULT", r"torchvision has none for 'rtdetr_v2_r18'; pass a file, or the folder of"),
        ("empty", r"no config\.json in it; wanted the folder of a model of transformers"),
    ],
)
def test_weights_that_are_none_are_one_sentence(
    model: Any, tmp_path: Path, weights: str, sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    path = tmp_path / "empty" if weights == "empty" else weights
    with pytest.raises(ConfigError, match=sentence):
        weight_files.load(model, CONFIG.architecture, CLASSES, path)


def test_a_canvas_with_fewer_cells_than_queries_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"does not fit a canvas of 96x64 px .*take a larger one"):
        models.build(replace(CONFIG, width=96, height=64))
