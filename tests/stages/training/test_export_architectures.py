"""Every architecture by name, exported, loaded back and decoded, equals torchvision's own detector.

The parity gate of `export` compares all candidates before NMS; here it has to pass, and what comes out
at the very end, through the file, the engine and the decoding of the pipeline, is compared as well.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from conditioned import conditioned, scenes
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from pipeline.errors import ModelError
from stages.detector import engines
from stages.detector.bundle import read_facts
from stages.detector.decode import Options, detections_from
from stages.imaging.letterbox import prepare
from stages.training import candidates_static, models
from stages.training.export import export
from stages.training.models import ModelConfig

BOX_PX, SCORE = 0.05, 1e-3  # what may differ
ABOVE = (
    300  # candidates of a picture above the threshold, about; fewer than torchvision's own limits
)

WHOLE = {"ssd300_vgg16": (300, 300)}  # px; the last of its convolutions need all of it
FROZEN = ("fasterrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_fpn")  # others: BatchNorm2d
ARCHITECTURES = [name for name in models.NAMED if name != "fcos_tiny"]

pytestmark = pytest.mark.timeout(
    600
)  # some hundred megabytes are built, written and read on the way


def config_of(architecture):
    width, height = WHOLE.get(architecture, (128, 96))
    return ModelConfig(
        architecture=architecture,
        classes=("person", "car", "bicycle"),
        width=width,
        height=height,
        frozen_norms=architecture in FROZEN,
    )


@dataclass
class Exported:
    config: ModelConfig
    model: nn.Module
    path: Path


@pytest.fixture(scope="session", params=ARCHITECTURES)  # wider than the formats: built once
def trained(request):
    config = config_of(request.param)
    return config, conditioned(config)


@pytest.fixture(scope="module", params=["torchscript", "onnx"])
def exported(request, trained, tmp_path_factory):
    config, model = trained
    path = tmp_path_factory.mktemp(config.architecture) / f"{request.param}.bundle"
    export(model, config, output=path, pictures=scenes(4), format=request.param)
    yield Exported(config, model, path)
    path.unlink()  # 10 to 180 MB


@pytest.fixture(scope="module")
def opened(exported):
    facts = read_facts(str(exported.path))
    engine = engines.load(str(exported.path), facts, device="cpu", precision="fp32")
    return facts, engine


def test_all_of_torchvisions_detectors_are_here():
    assert sorted(ARCHITECTURES) == [
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        "fasterrcnn_mobilenet_v3_large_fpn",
        "fasterrcnn_resnet50_fpn",
        "fasterrcnn_resnet50_fpn_v2",
        "fcos_resnet50_fpn",
        "retinanet_resnet50_fpn",
        "retinanet_resnet50_fpn_v2",
        "ssd300_vgg16",
        "ssdlite320_mobilenet_v3_large",
    ]


def test_the_gate_holds_for_all_candidates(opened):
    facts, _ = opened
    found = facts.provenance["parity"]
    assert found["batches"] == [1, 4]
    assert found["candidates"] >= 8 * 100  # 4 pictures, twice
    assert found["box_px"] <= BOX_PX
    assert found["score"] <= SCORE


@pytest.mark.parametrize("batch", [1, 4])
def test_detections_equal_torchvisions(exported, opened, batch):
    """Threshold, NMS within a class and the limit, by torchvision and by the pipeline."""
    facts, engine = opened
    prepared = [prepare(picture, facts.input, facts.resize) for picture in scenes(4)]
    pixels = np.stack([p for p, _ in prepared])
    arrays = [
        tuple(a.copy() for a in found)
        for start in range(0, 4, batch)
        for found in engine.infer(pixels[start : start + batch])
    ]
    rank = min(ABOVE, len(arrays[0][1]) // 2)
    threshold = max(float(scores[rank]) for _, scores, _ in arrays)
    stock, options = torchvisions(exported, pixels, threshold)
    canvas = (facts.input.width, facts.input.height)
    everywhere = prepare(pixels[0], facts.input, facts.resize)[1]  # of a picture as large as it
    suppressed = 0
    for theirs, candidates in zip(stock, arrays, strict=True):
        ours = detections_from(candidates, facts, everywhere, canvas, options)
        assert len(ours.scores) >= 5
        assert_paired(theirs, (ours.xyxy, ours.scores, ours.labels), threshold, options)
        suppressed += int((candidates[1] > threshold).sum()) - len(ours.scores)
    assert suppressed > 0  # or NMS was not tried


@torch.no_grad()
def torchvisions(exported, pixels, threshold):
    """Its detections as (xyxy, scores, labels) of each picture, and its other limits."""
    model = copy.deepcopy(exported.model)
    part = getattr(model, "roi_heads", model)
    part.score_thresh = threshold
    offset = models.label_offset(exported.config)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    found = [
        (f["boxes"].numpy(), f["scores"].numpy(), f["labels"].numpy() - offset)
        for f in model(list(images))
    ]
    return found, Options(
        score_threshold=threshold,
        iou_threshold=part.nms_thresh,
        max_detections=part.detections_per_img,
    )


def assert_paired(theirs, ours, threshold, options):
    """Each has a partner in the other, but for those at the very edge of what is kept."""
    full = len(theirs[1]) == options.max_detections
    edge = max(threshold, float(theirs[1].min()) if full else 0.0) + SCORE
    for some, others in ((theirs, ours), (ours, theirs)):
        for box, score, label in zip(*some, strict=True):
            near = np.abs(others[0] - box).max(axis=1) <= BOX_PX
            near &= (np.abs(others[1] - score) <= SCORE) & (others[2] == label)
            assert near.any() or score <= edge, (box, score, label)


def test_too_few_sweeps_of_nms_are_one_sentence(tmp_path, monkeypatch):
    """What the ONNX form of two stages may lack: a longer chain of suppressions than it unrolls."""
    config = config_of("fasterrcnn_mobilenet_v3_large_320_fpn")
    model = conditioned(config)
    monkeypatch.setattr(candidates_static, "SWEEPS", 0)
    with pytest.raises(
        ModelError, match=r"unrolls only 0 sweeps .*; export it as torchscript$"
    ) as caught:
        export(model, config, output=tmp_path / "x", pictures=scenes(1), format="onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_batch_norms_are_what_the_name_says(trained):
    """Both kinds are folded: FrozenBatchNorm2d is another class, with other parameters."""
    config, model = trained
    norms = [m for m in model.backbone.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert bool(norms) == config.frozen_norms
