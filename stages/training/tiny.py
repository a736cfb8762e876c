"""A detector that a laptop trains from nothing in minutes: FCOS on a small residual network.

Anchor-free and without hard-negative mining, it learns from scratch where an SSD of this size needs
pre-trained features; the heads use group norm, so small batches do no harm.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.ops import FeaturePyramidNetwork

CHANNELS = (16, 24, 48, 64, 96)  # at strides 2, 4, 8, 16, 32
PYRAMID = 64  # channels of each level of the pyramid and of the heads
STRIDES = (8, 16, 32)


class Residual(nn.Module):
    """x + two 3x3 convolutions of x (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(channels, channels), nn.ReLU(inplace=True), *_conv(channels, channels)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        out: Tensor = self.relu(x + self.body(x))
        return out


class Pyramid(nn.Module):
    """Normalised pictures (B, 3, H, W) -> levels "0", "1", "2" at `STRIDES`, finest first."""

    def __init__(self) -> None:
        super().__init__()
        stem, *widths = CHANNELS
        self.body = nn.ModuleList([nn.Sequential(*_conv(3, stem, 2), nn.ReLU(inplace=True))])
        for before, after in zip(CHANNELS, widths, strict=False):
            halve = (*_conv(before, after, 2), nn.ReLU(inplace=True))
            self.body.append(nn.Sequential(*halve, Residual(after)))
        self.first = len(CHANNELS) - len(STRIDES)  # the finest stage that is a level
        self.fpn = FeaturePyramidNetwork(list(CHANNELS[-len(STRIDES) :]), PYRAMID)
        self.out_channels = PYRAMID

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The levels, each (B, PYRAMID, H / stride, W / stride)."""
        maps: dict[str, Tensor] = OrderedDict()
        for i, stage in enumerate(self.body):
            x = stage(x)
            if i >= self.first:
                maps[str(i - self.first)] = x
        levels: dict[str, Tensor] = self.fpn(maps)
        return levels


def fcos_tiny(*, num_classes: int) -> FCOS:
    """FCOS (Tian et al. 2019) with 0.67 M parameters, for canvases whose sides divide by 32."""
    anchors = AnchorGenerator(tuple((s,) for s in STRIDES), ((1.0,),) * len(STRIDES))
    head = FCOSHead(PYRAMID, 1, num_classes, num_convs=2)
    model = FCOS(Pyramid(), num_classes, anchor_generator=anchors, head=head, score_thresh=0.01)
    awaken(model)
    return model


def awaken(model: FCOS) -> None:
    """Let an untrained FCOS begin with boxes that are four strides wide and high.

    The distances to the four sides end in a ReLU. With the zero biases of torchvision some seeds begin
    with no distance above 0 anywhere, so with no gradient, and never find a box.
    """
    nn.init.constant_(model.head.regression_head.bbox_reg.bias, 2.0)  # strides


def _conv(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return conv, nn.BatchNorm2d(outputs)
