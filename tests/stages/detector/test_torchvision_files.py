"""torchvision's detectors, as its own pages export them: nothing has to be said."""

import warnings

import numpy as np
import pytest
import torch
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from pipeline.errors import ConfigError
from stages.detector.engines import load
from stages.detector.importing import COCO91, import_model


class Backbone(torch.nn.Sequential):
    out_channels = 8

    def __init__(self):
        super().__init__(torch.nn.Conv2d(3, 8, 3, stride=16, padding=1))


def scripted(path, classes):
    """A small RetinaNet that keeps the shape of its pictures, 36 px high or 64 px wide."""
    torch.manual_seed(0)
    anchors = AnchorGenerator(((16, 20, 25),), ((0.5, 1.0, 2.0),))
    model = RetinaNet(
        Backbone(), classes, anchor_generator=anchors, min_size=36, max_size=64, score_thresh=0.0
    )
    logits = model.head.classification_head.cls_logits  # whose scores are not all alike
    torch.nn.init.normal_(logits.weight, std=0.5)
    logits.bias.data = torch.linspace(-6, 0, len(logits.bias))
    logits.bias.data.view(-1, classes)[:, 0] = -20  # which stands for none
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model.eval()).save(str(path))
    return str(path)


@pytest.mark.filterwarnings("ignore:RetinaNet always returns")  # torchvision's own code
def test_a_script_says_its_size_and_that_its_classes_are_coco_s(tmp_path):
    told = []
    path, output = scripted(tmp_path / "m.pt", 91), str(tmp_path / "m.bundle")
    facts = import_model(path, output, tell=told.append)
    assert (facts.layout, facts.label_offset) == ("torchvision", 1)
    assert facts.classes[0] == COCO91[1] == "person"
    assert (facts.input.width, facts.input.height, facts.input.color) == (64, 36, "rgb")
    assert facts.input.scale == pytest.approx(1 / 255)
    assert facts.resize.mode == "letterbox"
    assert len(load(output, facts).infer(np.zeros((2, 36, 64, 3), np.uint8))) == 2
    assert any("its 91 classes are taken for COCO's" in line for line in told)


@pytest.mark.filterwarnings("ignore:RetinaNet always returns")
def test_other_classes_are_asked_for(tmp_path):
    path, output = scripted(tmp_path / "m.pt", 3), str(tmp_path / "m.bundle")
    with pytest.raises(ConfigError, match="does not say its classes; pass --classes"):
        import_model(path, output)
    facts = import_model(path, output, classes="__background__,ant,bee")
    assert (facts.classes, facts.label_offset) == (("ant", "bee"), 1)


@pytest.mark.parametrize("rows", [91 * 9, 3 * 9])
def test_an_onnx_file_has_the_names_of_its_weights(rows, tmp_path):
    onnx = pytest.importorskip("onnx")
    onnx_models = pytest.importorskip("onnx_models")
    path = onnx_models.save(
        tmp_path / "m.onnx",
        {"1": np.float32([[1, 2, 30, 20]]), "2": np.float32([0.5]), "3": np.int64([3])},
        shape=(3, 36, 64),
    )
    model = onnx.load(path)
    name = "head.classification_head.cls_logits.bias"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(rows, np.float32), name))
    onnx.save(model, path)
    if rows == 91 * 9:
        facts = import_model(path, str(tmp_path / "m.bundle"))
        assert facts.classes[3 - facts.label_offset] == "car"
    else:
        with pytest.raises(ConfigError, match="does not say its classes"):
            import_model(path, str(tmp_path / "m.bundle"))
