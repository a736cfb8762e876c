"""Detectors with random weights that carry float noise as a trained one does: hardly at all.

Folding, freezing and channels_last change the order of float32 sums, a relative 1e-7 a layer. A trained
network passes that on about unchanged; an untrained deep one multiplies it by hundreds, ties its
scores (its features hardly depend on the picture) and decodes boxes to far outside, so an equal
computation looks wrong. What is made like a trained network here, layer by layer, in one pass over
rendered scenes:

- every convolution and linear layer answers with a deviation of one (LSUV: Mishkin and Matas 2015),
  and its filters have no mean (weight standardisation: Qiao et al. 2019): behind a ReLU everything is
  positive, and a constant grows from layer to layer that batch norm has to subtract again, digits
  lost, from what little depends on the picture;
- batch norms get the statistics of those scenes, and weights that are not 1, so that folding them does
  something; no channel is scaled up without bounds. Their biases are around 1, so that most of a ReLU's
  inputs pass: at bias 0 a stack of random ReLUs behind batch norms is chaotic, noise grows by a fifth
  in each (Yang et al. 2019, "A mean field theory of batch normalization"), thousandfold in SSDLite;
- the last norm of a residual branch is small, as training with zero-init-gamma leaves it: the noise
  of a branch adds little to the trunk;
- heads answer with scores that spread over 0.05..0.95 and with boxes that stay near their anchors.
"""

import dataclasses

import numpy as np
import torch
from torch import nn
from torchvision.models.mobilenetv3 import InvertedResidual
from torchvision.models.resnet import Bottleneck

from stages.detector.bundle import InputFacts, ResizeFacts
from stages.imaging.letterbox import prepare
from stages.imaging.scenes import still
from stages.training import backbones, models

BRANCH = 0.3  # weight of the last norm of a residual branch
OFFSETS = 0.15  # deviation of box offsets, in shares of an anchor and logarithms of a ratio
PROPOSALS = 60  # of the second stage; torchvision's 1000 cost a second a picture
SEEN = 8  # scenes that the layers are set by; the first of them are what the tests look at


def scenes(count, seed=1):
    """Rendered pictures, uint8 (180, 240, 3) BGR."""
    return [still(seed, i, (240, 180), objects=6)[0] for i in range(count)]


@torch.no_grad()
def conditioned(config, proposals=PROPOSALS):
    """A model of `models.build`, in eval mode; the same for the same config on one machine.

    proposals: of the second stage after NMS, four times as many before; None: torchvision's 1000.
    """
    torch.manual_seed(0)
    model = models.build(dataclasses.replace(config, frozen_norms=False)).eval()
    if hasattr(model, "rpn") and proposals is not None:
        model.rpn._post_nms_top_n["testing"] = proposals
        model.rpn._pre_nms_top_n["testing"] = 4 * proposals
    heads = {id(layer): wanted for layer, wanted in _last_layers(model)}
    hooks = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            hook = _answer(*heads.get(id(layer), (1.0, 0.0)))
        elif isinstance(layer, nn.BatchNorm2d):
            hook = _measure
        else:
            continue
        hooks.append(layer.register_forward_hook(hook))
    for layer in model.modules():
        if isinstance(layer, Bottleneck):
            layer.bn3.branch = True
        if isinstance(layer, InvertedResidual) and layer.use_res_connect:
            layer.block[-1][1].branch = True
    size, resize = InputFacts(width=config.width, height=config.height), ResizeFacts()
    seen = np.stack([prepare(p, size, resize)[0] for p in scenes(SEEN)])
    model(list(torch.from_numpy(seen).permute(0, 3, 1, 2).float() / 255))
    for hook in hooks:
        hook.remove()
    if config.frozen_norms:
        backbones.freeze_norms(model.backbone)
    return model


def _answer(deviation, mean):
    """A hook: set a layer by its first output, which is corrected, too."""
    set_already = []

    def hook(layer, inputs, output):
        if set_already:
            return None
        set_already.append(True)
        fan_in = tuple(range(1, layer.weight.ndim))
        if layer.weight[0].numel() > 16:  # not the depthwise ones, whose sum is their sense
            layer.weight -= layer.weight.mean(dim=fan_in, keepdim=True)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        output = layer.forward(*inputs)
        factor = deviation / output.std()
        layer.weight *= factor
        output = output * factor
        if layer.bias is not None:
            shift = mean - output.mean()
            layer.bias += shift
            output = output + shift
        return output

    return hook


def _measure(norm, inputs, output):
    """A hook: statistics of a batch norm from what it sees first, weight and bias at random."""
    if hasattr(norm, "seen"):
        return None
    norm.seen = True
    channels = inputs[0].transpose(0, 1).flatten(1)
    variance = channels.var(dim=1)
    norm.running_mean.copy_(channels.mean(dim=1))
    norm.running_var.copy_(variance.clamp(min=0.1 * float(variance.mean())))
    norm.weight.uniform_(0.8, 1.2).mul_(BRANCH if hasattr(norm, "branch") else 1.0)
    norm.bias.uniform_(0.5, 1.5)
    return norm.forward(inputs[0])


def _last_layers(model):
    """Each last layer of a head, and the deviation and mean that its outputs shall have."""
    scores, offsets = (1.5, -1.5), (OFFSETS, 0.0)
    if hasattr(model, "rpn"):
        yield model.rpn.head.cls_logits, (1.5, 0.0)
        yield model.rpn.head.bbox_pred, offsets
        yield model.roi_heads.box_predictor.cls_score, (1.5, 0.0)
        yield model.roi_heads.box_predictor.bbox_pred, (10 * OFFSETS, 0.0)
        return
    classify, regress = model.head.classification_head, model.head.regression_head
    if hasattr(classify, "module_list"):  # SSD: one for each level, softmax, offsets in tenths
        for part, wanted in ((classify, (1.5, 0.0)), (regress, (10 * OFFSETS, 0.0))):
            for layer in part.module_list:
                yield (layer[-1] if isinstance(layer, nn.Sequential) else layer), wanted
        return
    yield classify.cls_logits, scores
    yield regress.bbox_reg, offsets
    if hasattr(regress, "bbox_ctrness"):  # FCOS: distances from the centre, which are positive
        yield regress.bbox_ctrness, (1.0, 0.5)
