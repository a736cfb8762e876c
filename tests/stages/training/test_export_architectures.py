"""Every architecture by name, exported, loaded back and decoded, equals torchvision's own detector.

The parity gate of `export` compares all candidates before NMS; here it has to pass, and what comes out
at the very end, through the file, the engine and the decoding of the pipeline, is compared as well.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d, box_iou

from benchmarks.conditioned import conditioned, scenes
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

# px; the smaller, the faster. The convolutions of SSD need 300; features at a stride of 32 have to
# differ within a picture, or regions that pool the same ones tie to the last digit and NMS is a lottery.
CANVAS = {
    "ssd300_vgg16": (300, 300),
    "fasterrcnn_mobilenet_v3_large_fpn": (256, 192),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (256, 192),
}
FROZEN = ("fasterrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_fpn")  # others: BatchNorm2d
ARCHITECTURES = [name for name in models.NAMED if name != "fcos_tiny"]

pytestmark = pytest.mark.timeout(
    600
)  # some hundred megabytes are built, written and read on the way


def config_of(architecture):
    width, height = CANVAS.get(architecture, (128, 96))
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
    export(model, config, output=path, pictures=scenes(4), format=request.param, twin=False)
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


def test_detections_equal_torchvisions(exported, opened):
    """Threshold, NMS within a class and the limit, by torchvision and by the pipeline."""
    facts, engine = opened
    pixels = np.stack([prepare(p, facts.input, facts.resize)[0] for p in scenes(4)])
    alone, together = ran(engine, pixels, batch=1), ran(engine, pixels, batch=4)
    rank = min(ABOVE, len(alone[0][1]) // 2)
    threshold = max(float(scores[rank]) for _, scores, _ in alone)
    canvas = (facts.input.width, facts.input.height)
    everywhere = prepare(pixels[0], facts.input, facts.resize)[1]  # of a picture as large as it
    suppressed = 0
    for i, picture in enumerate(pixels):
        iou_threshold = between_overlaps(alone[i], threshold)
        theirs, options = torchvisions(exported, picture, threshold, iou_threshold)
        for found in (alone[i], together[i]):
            ours = detections_from(found, facts, everywhere, canvas, options)
            assert len(ours.scores) >= 5
            assert_paired(theirs, (ours.xyxy, ours.scores, ours.labels), threshold, options)
            suppressed += int((found[1] > threshold).sum()) - len(ours.scores)
    assert suppressed > 0  # or NMS was not tried


def ran(engine, pixels, batch):
    """What the engine gives for each picture."""
    starts = range(0, len(pixels), batch)
    outputs = [found for s in starts for found in copies(engine.infer(pixels[s : s + batch]))]
    assert len(outputs) == len(pixels)
    return outputs


def copies(outputs):
    """The engine may use its arrays again."""
    return [tuple(array.copy() for array in arrays) for arrays in outputs]


def between_overlaps(found, threshold):
    """An IoU near 0.5 that none of a picture's candidates come close to, in the widest gap.

    Of thousands of overlaps a few lie so close to any round number that the last digits of a box
    decide, and with them whether a detection is there: of NMS, not of the export.
    """
    boxes, _, labels = (torch.from_numpy(a[found[1] > threshold]) for a in found)
    pairs = torch.triu(labels[:, None] == labels, diagonal=1)
    ious = box_iou(boxes, boxes)[pairs]
    near = torch.cat([torch.tensor([0.45, 0.55]), ious[(ious > 0.45) & (ious < 0.55)]]).sort()[0]
    widest = int(near.diff().argmax())
    assert near.diff()[widest] > 1e-4
    return float(near[widest : widest + 2].mean())


@torch.no_grad()
def torchvisions(exported, pixels, threshold, iou_threshold):
    """Its detections in a picture as (xyxy, scores, labels), and all its limits."""
    model = exported.model
    part = getattr(model, "roi_heads", model)
    part.score_thresh, part.nms_thresh = threshold, iou_threshold
    [found] = model([torch.from_numpy(pixels).permute(2, 0, 1).float() / 255])
    labels = found["labels"].numpy() - models.label_offset(exported.config)
    return (found["boxes"].numpy(), found["scores"].numpy(), labels), Options(
        score_threshold=threshold,
        iou_threshold=iou_threshold,
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
