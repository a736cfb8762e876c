"""What export ships in place of a torchvision detector: the same computation, stopped before NMS.

    uint8 (B, 3, H, W) RGB -> normalise -> net (backbone, head) -> float32: scores, top K, decode, clip
        -> boxes (B, K, 4) xyxy px of the canvas, scores (B, K) falling, labels (B, K) int64 from 0

Bit-exact to torchvision (with `batched_nms` behind it) as long as all candidates above the threshold
fit into K; greedy NMS on a prefix sorted by score is a prefix of greedy NMS on the whole. Rules that
make it portable: `net` is a sub-module that may be cast to half precision, everything behind it is
float32; anchors are buffers made by torchvision's own generator on the canvas; no device, no batch size
and no Python number that depends on data is baked in, so it scripts, and exports, for any batch.
"""

# No `from __future__ import annotations` here: TorchScript reads the types of attributes.

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD

from pipeline.errors import ConfigError
from stages.training.detr import Detr
from stages.training.models import ModelConfig

ROW_BYTES = 28  # of one candidate: four float32, one float32, one int64


def candidates(model: nn.Module, config: ModelConfig, k: int = 1000) -> nn.Module:
    """A copy of a detector built by `models.build`, in eval mode, on the CPU, ready for torch.jit.script.

    k: rows of candidates; fewer where the canvas has fewer. >= 500 keeps NMS exact in practice. One with
    queries has as many rows, and is for torch.jit.trace.
    """
    model = copy.deepcopy(model).cpu().eval()
    if isinstance(model, SSD):
        return SsdCandidates(model, config, k)
    if isinstance(model, RetinaNet):
        return RetinaCandidates(model, config, k)
    if isinstance(model, FCOS):
        return FcosCandidates(model, config, k)
    if isinstance(model, detection.FasterRCNN):
        from stages.training.candidates_rcnn import RcnnCandidates

        return RcnnCandidates(model, config, k)
    if isinstance(model, Detr):
        from stages.training.candidates_detr import DetrCandidates

        return DetrCandidates(model, len(config.classes))
    raise ConfigError(f"candidates: a {type(model).__name__} is no detector of models.build")


class Normalise(nn.Module):
    """0..255 of any dtype -> (x / 255 - mean) / std in float32, in torchvision's order of operations."""

    mean: Tensor
    std: Tensor

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        for name in ("mean", "std"):
            values = torch.tensor(getattr(transform, f"image_{name}")).view(1, 3, 1, 1)
            self.register_buffer(name, values)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> the same shape."""
        return (images.to(torch.float32) / 255 - self.mean) / self.std


class Net(nn.Module):
    """Backbone and head: the part that may be cast."""

    like: Tensor

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_buffer("like", torch.zeros(()))  # knows what `net` was cast to

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised pictures -> the head's outputs, in the precision of the parameters."""
        features = list(self.backbone(images.to(self.like.dtype)).values())
        outputs: dict[str, Tensor] = self.head(features)
        return outputs


class _Dense(nn.Module):
    """One stage: a score for each anchor and class, one box for each anchor."""

    anchors: Tensor

    def __init__(self, model: Any, config: ModelConfig, k: int) -> None:
        super().__init__()
        self.normalise = Normalise(model.transform)
        self.net = Net(model.backbone, model.head)
        self.width = float(config.width)
        self.height = float(config.height)
        self.classes = len(config.classes)
        anchors = anchors_of(model, model.anchor_generator, config)
        self.register_buffer("anchors", anchors)
        self.k = min(k, len(anchors) * self.classes)

    def scores(self, outputs: dict[str, Tensor]) -> Tensor:
        """The head's outputs -> (B, anchors, classes)."""
        raise NotImplementedError

    def decode(self, rows: Tensor, anchors: Tensor) -> Tensor:
        """The head's offsets (B, K, 4) from anchors (B, K, 4) -> xyxy."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 (B, 3, H, W) -> boxes (B, K, 4), scores (B, K), labels (B, K)."""
        outputs = self.net(self.normalise(images))
        scores, index = self.scores(outputs).flatten(1).topk(self.k, dim=1)
        anchor = torch.div(index, self.classes, rounding_mode="floor")
        rows = outputs["bbox_regression"].float()
        rows = rows.gather(1, anchor.unsqueeze(2).expand(-1, -1, 4))  # (B, K, 4)
        boxes = clip(self.decode(rows, self.anchors[anchor]), self.width, self.height)
        return boxes, scores, index % self.classes


class SsdCandidates(_Dense):
    """SSD and SSDLite: softmax with a background, boxes as offsets in tenths and fifths."""

    def scores(self, outputs: dict[str, Tensor]) -> Tensor:
        """See _Dense."""
        return torch.softmax(outputs["cls_logits"].float(), -1)[:, :, 1:]

    def decode(self, rows: Tensor, anchors: Tensor) -> Tensor:
        """See _Dense."""
        return decode(rows, anchors, 10.0, 5.0)


class RetinaCandidates(_Dense):
    """RetinaNet: independent sigmoids, boxes as plain offsets."""

    def scores(self, outputs: dict[str, Tensor]) -> Tensor:
        """See _Dense."""
        return torch.sigmoid(outputs["cls_logits"].float())

    def decode(self, rows: Tensor, anchors: Tensor) -> Tensor:
        """See _Dense."""
        return decode(rows, anchors, 1.0, 1.0)


class FcosCandidates(_Dense):
    """FCOS: the geometric mean of class and centre-ness, boxes as distances from a centre."""

    def scores(self, outputs: dict[str, Tensor]) -> Tensor:
        """See _Dense."""
        logits, centre = outputs["cls_logits"].float(), outputs["bbox_ctrness"].float()
        return torch.sqrt(torch.sigmoid(logits) * torch.sigmoid(centre))

    def decode(self, rows: Tensor, anchors: Tensor) -> Tensor:
        """Distances in anchor sizes, as BoxLinearCoder(normalize_by_size=True) takes them."""
        x = 0.5 * (anchors[..., 0] + anchors[..., 2])
        y = 0.5 * (anchors[..., 1] + anchors[..., 3])
        w = anchors[..., 2] - anchors[..., 0]
        h = anchors[..., 3] - anchors[..., 1]
        rows = rows * torch.stack((w, h, w, h), dim=-1)
        left, top = x - rows[..., 0], y - rows[..., 1]
        right, bottom = x + rows[..., 2], y + rows[..., 3]
        return torch.stack((left, top, right, bottom), dim=-1)


def decode(rows: Tensor, anchors: Tensor, centre_weight: float, size_weight: float) -> Tensor:
    """Offsets (…, 4) from anchors (…, 4) xyxy -> boxes, as torchvision's BoxCoder.decode_single."""
    w = anchors[..., 2] - anchors[..., 0]
    h = anchors[..., 3] - anchors[..., 1]
    x = rows[..., 0] / centre_weight * w + (anchors[..., 0] + 0.5 * w)
    y = rows[..., 1] / centre_weight * h + (anchors[..., 1] + 0.5 * h)
    # ln(1000 / 16), written out: a script cannot see this module's constants
    half_w = 0.5 * (torch.exp(torch.clamp(rows[..., 2] / size_weight, max=4.135166556742356)) * w)
    half_h = 0.5 * (torch.exp(torch.clamp(rows[..., 3] / size_weight, max=4.135166556742356)) * h)
    return torch.stack((x - half_w, y - half_h, x + half_w, y + half_h), dim=-1)


def clip(boxes: Tensor, width: float, height: float) -> Tensor:
    """xyxy (…, 4) limited to the canvas."""
    x = boxes[..., 0::2].clamp(min=0.0, max=width)
    y = boxes[..., 1::2].clamp(min=0.0, max=height)
    return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), dim=-1)


@torch.no_grad()
def anchors_of(model: Any, generator: nn.Module, config: ModelConfig) -> Tensor:
    """All anchors of a canvas, xyxy px (N, 4), as torchvision generates them."""
    images = torch.zeros(1, 3, config.height, config.width)
    features = list(model.backbone(images).values())
    [anchors] = generator(ImageList(images, [(config.height, config.width)]), features)
    return torch.clone(anchors)


def fold_batch_norms(module: nn.Module) -> int:
    """Put each batch norm into the convolution before it, in float64; returns how many were folded.

    A pair is a Conv2d and a (Frozen)BatchNorm2d that are neighbours among the children of a module, as
    torchvision writes them. w <- w·s, b <- b·s + β − s·μ with s = γ / √(σ² + ε). In eval mode only.
    """
    folded = 0
    previous: nn.Module | None = None
    for name, child in module.named_children():
        if _is_batch_norm(child) and isinstance(previous, nn.Conv2d):
            _fold(previous, child)
            setattr(module, name, nn.Identity())
            folded += 1
        else:
            folded += fold_batch_norms(child)
        previous = child
    return folded


def _is_batch_norm(module: nn.Module) -> bool:
    return hasattr(module, "running_var") and type(module).__name__.endswith("BatchNorm2d")


def _fold(conv: nn.Conv2d, norm: Any) -> None:
    weight, bias = norm.weight.double(), norm.bias.double()
    mean, var = norm.running_mean.double(), norm.running_var.double()
    scale = weight / torch.sqrt(var + norm.eps)
    old = torch.zeros_like(mean) if conv.bias is None else conv.bias.double()
    folded = conv.weight.double() * scale.view(-1, 1, 1, 1)
    conv.weight = nn.Parameter(folded.float(), requires_grad=False)
    conv.bias = nn.Parameter((old * scale + bias - scale * mean).float(), requires_grad=False)
