"""The wrapper that is exported equals torchvision's own detector to the last bit."""

import warnings

import pytest
import torch
from torch import nn
from torchvision.ops import batched_nms

from stages.training import models
from stages.training.candidates import candidates
from stages.training.models import ModelConfig

CLASSES = ("person", "car", "bicycle", "dog")


def smooth(count, config, seed=0):
    """Random smooth pictures, uint8 (count, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 9, 9, generator=generator)
    size = (config.height, config.width)
    fine = nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=False)
    return (fine.clamp(0, 1) * 255).to(torch.uint8)


def lively(config, seed=0):
    """A model with random weights whose output depends on the picture and whose scores are spread.

    Untrained weights let activations die out, and then all scores tie. So: statistics of the batch
    norms from pictures, and last layers scaled until their outputs spread with a deviation of one.
    """
    torch.manual_seed(seed)
    model = models.build(config).eval()
    model.score_thresh = 0.9
    if hasattr(model, "rpn"):  # torchvision's 1000 proposals cost a second each
        model.rpn._post_nms_top_n["testing"] = 60
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all pictures
        norm.reset_running_stats()
        norm.train()
    hooks = [layer.register_forward_hook(spread) for layer in last_layers(model)]
    with torch.no_grad():
        model(list(smooth(2, config, seed=99).float() / 255))
    for hook in hooks:
        hook.remove()
    return model.eval()


def last_layers(model):
    ends = ("cls_logits", "bbox_reg", "bbox_ctrness", "bbox_pred", "cls_score")
    for name, module in model.named_modules():
        if name.endswith(ends):
            yield module
        if name.endswith("module_list"):  # SSD: one for each level
            yield from (m[-1] if isinstance(m, nn.Sequential) else m for m in module)


def spread(layer, inputs, output):
    """A hook: scale a layer once, by the first output that is seen, and centre it."""
    if not hasattr(layer, "spread"):
        layer.spread = True
        output = output - (
            0 if layer.bias is None else layer.bias.view(1, -1, *[1] * (output.ndim - 2))
        )
        layer.weight /= output.std()
        nn.init.zeros_(layer.bias)


@torch.no_grad()
def assert_equals_stock(model, config, found, pictures):
    """found: what a wrapper gave for the pictures; the model runs on them here."""
    boxes, scores, labels = found
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    part = getattr(model, "roi_heads", model)
    part.score_thresh = float(scores[:, min(400, scores.size(1) - 1)].max())
    part.detections_per_img = 200
    stock = model([p.float() / 255 for p in pictures])
    # The vectorised sigmoid of torch rounds differently in the last elements of a tensor, and FCOS
    # takes it level by level: the last bit of a score may differ.
    ulp = 1.2e-7 if "fcos" in config.architecture else 0.0
    compared = 0
    for i, wanted in enumerate(stock):
        above = scores[i] > part.score_thresh
        b, s, c = boxes[i][above], scores[i][above], labels[i][above]
        keep = batched_nms(b, s, c, part.nms_thresh)[:200]
        # torchvision's order among equal scores is not defined: look at what lies before them
        ties = torch.where(s[:-1] == s[1:], s[:-1], 0)
        n = int((s[keep] > ties.max() + ulp).sum())
        compared += n
        assert torch.equal(b[keep][:n], wanted["boxes"][:n])
        assert torch.allclose(s[keep][:n], wanted["scores"][:n], rtol=0, atol=ulp)
        assert torch.equal(c[keep][:n] + models.label_offset(config), wanted["labels"][:n])
    assert compared > 5 * len(pictures)


def scripted(module, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(module).save(tmp_path / "m.pt")
        return torch.jit.load(tmp_path / "m.pt")


CONFIGS = {
    "ssd300_vgg16": ModelConfig(
        architecture="ssd300_vgg16", classes=CLASSES, width=300, height=300
    ),
    "ssdlite320_mobilenet_v3_large": ModelConfig(
        architecture="ssdlite320_mobilenet_v3_large", classes=CLASSES, width=160, height=96
    ),
    "demo": models.demo(),
    "fasterrcnn": ModelConfig(
        architecture="fasterrcnn",
        classes=CLASSES,
        width=160,
        height=128,
        backbone="mobilenet_v2[:14]",
    ),
    "fasterrcnn_mobilenet_v3_large_fpn": ModelConfig(
        architecture="fasterrcnn_mobilenet_v3_large_fpn", classes=CLASSES, width=320, height=256
    ),
    "fasterrcnn_mobilenet_v3_large_320_fpn": ModelConfig(
        architecture="fasterrcnn_mobilenet_v3_large_320_fpn", classes=CLASSES, width=320, height=256
    ),
    "fasterrcnn_resnet50_fpn": ModelConfig(
        architecture="fasterrcnn_resnet50_fpn", classes=CLASSES, width=128, height=96
    ),
    "fasterrcnn_resnet50_fpn_v2": ModelConfig(
        architecture="fasterrcnn_resnet50_fpn_v2", classes=CLASSES, width=128, height=96
    ),
    "ssd": ModelConfig(
        architecture="ssd", classes=CLASSES, width=128, height=96, backbone="resnet18"
    ),
    "ssdlite": ModelConfig(
        architecture="ssdlite", classes=CLASSES, width=160, height=160, backbone="mobilenet_v2"
    ),
    "retinanet_resnet50_fpn": ModelConfig(
        architecture="retinanet_resnet50_fpn", classes=CLASSES, width=128, height=96
    ),
    "retinanet_resnet50_fpn_v2": ModelConfig(
        architecture="retinanet_resnet50_fpn_v2", classes=CLASSES, width=128, height=96
    ),
    "fcos_resnet50_fpn": ModelConfig(
        architecture="fcos_resnet50_fpn", classes=CLASSES, width=128, height=96
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_torchvision_bit_for_bit(name, tmp_path):
    config = CONFIGS[name]
    model = lively(config)
    model.topk_candidates = 1000  # of a class or level; as many as the wrapper gives in all
    eager = candidates(model, config)
    module = scripted(eager, tmp_path)
    pictures = smooth(4, config)
    with torch.no_grad():
        found = module(pictures)
        for ours, same in zip(found, eager(pictures), strict=True):
            assert torch.equal(ours, same)
        assert_equals_stock(model, config, found, pictures)
        assert_equals_stock(model, config, module(pictures[1:2]), pictures[1:2])
