"""Detectors for training: torchvision's and those with queries by name, or a head on any backbone."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.ssd import SSD, SSDHead
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import MultiScaleRoIAlign

from pipeline.errors import ConfigError
from stages.training import backbones, detr, tiny
from stages.training import weights as weight_files
from stages.training.canvas import Canvas

NAMED = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
    "fcos_tiny",  # ours
)  # complete detectors: torchvision's, and a tiny one
HEADS = ("ssd", "ssdlite", "fasterrcnn")  # on `ModelConfig.backbone`
ARCHITECTURES = (*NAMED, *detr.NAMED, *HEADS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """All that is needed to build an architecture again: JSON-able, kept in checkpoints and bundles.

    Raises ConfigError on construction for a name that is none, an empty or repeated class, a size.
    """

    architecture: str  # one of ARCHITECTURES; those of HEADS stand on `backbone`
    classes: tuple[str, ...]  # without a background
    width: int  # px of the canvas, as the letterbox makes it
    height: int
    backbone: str | None = None  # a torchvision classifier, cut if asked: "mobilenet_v2[:14]"
    width_mult: float = 1.0  # of the backbone's channels, where torchvision offers it (mobilenets)
    first_stride: int = 16  # px; finest feature map of "ssd" and "ssdlite"; 8 for small objects
    levels: int = 6  # feature maps of "ssd" and "ssdlite"
    min_scale: float = 0.15  # of "ssd" and "ssdlite": smallest default box, share of the canvas
    max_scale: float = 0.9  # the largest one
    frozen_norms: bool = False  # batch-norm statistics fixed (FrozenBatchNorm2d) in the backbone

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ConfigError(
                f"architecture '{self.architecture}': wanted one of {', '.join(ARCHITECTURES)}"
                f"{backbones.did_you_mean(self.architecture, ARCHITECTURES)}"
            )
        if (self.backbone is None) == (self.architecture in HEADS):
            wanted = (
                "needs a backbone, such as mobilenet_v2" if self.backbone is None else "has its own"
            )
            raise ConfigError(f"architecture '{self.architecture}' {wanted}; got {self.backbone}")
        if not self.classes or len(set(self.classes)) != len(self.classes) or "" in self.classes:
            raise ConfigError(f"classes: wanted one or more different names, got {self.classes}")
        if not (32 <= self.width <= 4096 and 32 <= self.height <= 4096):
            raise ConfigError(
                f"size: wanted a canvas of 32..4096 px each way, got {self.width}x{self.height}"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain types only."""
        return {**asdict(self), "classes": list(self.classes)}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_json`; raises ConfigError for an unknown or missing field."""
        try:
            return cls(**{**facts, "classes": tuple(facts["classes"])})
        except (TypeError, KeyError) as error:
            known = ", ".join(f.name for f in fields(cls))
            raise ConfigError(f"model configuration: {error}; it has the fields {known}") from error


def demo(classes: tuple[str, ...] = ("person", "car", "bicycle")) -> ModelConfig:
    """The small detector of `manyeyes demo`, for 16:9 pictures."""
    return ModelConfig(architecture="fcos_tiny", classes=classes, width=320, height=192)


def label_offset(config: ModelConfig) -> int:
    """What a target's class index grows by for `build`'s model: 1 where label 0 is background."""
    background = not config.architecture.startswith(("retinanet", "fcos", *detr.NAMED))
    return int(background)


def layout(config: ModelConfig) -> dict[str, Any]:
    """The facts of what `candidates` of this model returns."""
    if config.architecture in detr.NAMED:
        return {"layout": "detr", "activation": "sigmoid"}
    return {"layout": "candidates"}


def build(
    config: ModelConfig,
    *,
    weights: str | Path = "none",
    backbone_weights: Path | None = None,
    trainable_layers: int | None = None,
) -> nn.Module:
    """A detection model for a fixed canvas, as torchvision's are, in training mode.

    In training: `model(images, targets)` -> dict of losses. In eval mode: `model(images)` -> list of
    dicts. images: list of float32 (3, config.height, config.width) RGB 0..1; targets: list of dicts
    with `boxes` float32 (N, 4) xyxy px and `labels` int64 (N,), class index + `label_offset(config)`.
    The model normalises; it never resizes.

    Args:
        config: what to build.
        weights: "none", the name of torchvision weights ("COCO_V1", "DEFAULT"; downloaded), a file
            (a state dict, alone or under "model" beside its "config"), or for one of `detr.NAMED` a
            folder of transformers. Where the classes differ, the rows of the head whose class has the
            same name are kept.
        backbone_weights: a state dict of the classification network that the backbone is.
        trainable_layers: stages of the backbone that train, counted from its end (a stage is what lies
            between two halvings of the picture); None: all.

    Raises:
        ConfigError: unknown backbone or weights, a file that does not fit, no network, a canvas too
            small for the architecture.
    """
    try:
        if config.architecture in detr.NAMED:
            model: Any = detr.Detr(config)
        else:
            make = _named if config.architecture in NAMED else _on_backbone
            model = make(config, backbone_weights)
            norms = model.transform.image_mean, model.transform.image_std
            model.transform = Canvas((config.width, config.height), *norms)
        if config.frozen_norms:
            backbones.freeze_norms(model.backbone)
        with torch.no_grad():
            model.eval()([torch.zeros(3, config.height, config.width)])
    except RuntimeError as error:
        raise ConfigError(
            f"architecture '{config.architecture}' does not fit a canvas of {config.width}x"
            f"{config.height} px ({str(error).splitlines()[0]}); take a larger one"
        ) from error
    if str(weights) != "none":
        weight_files.load(model, config.architecture, names(config), weights)
    if trainable_layers is not None:
        _freeze(model.backbone, config, trainable_layers)
    trained: nn.Module = model.train()
    return trained


def names(config: ModelConfig) -> tuple[str, ...]:
    """What each row of the head stands for: the classes, behind a background where there is one."""
    return ("__background__",) * label_offset(config) + config.classes


def _named(config: ModelConfig, backbone_weights: Path | None) -> Any:
    count = len(names(config))
    if config.architecture == "fcos_tiny":
        return tiny.fcos_tiny(num_classes=count)
    model: Any = getattr(detection, config.architecture)(
        weights=None, weights_backbone=None, num_classes=count
    )
    if isinstance(model, FCOS):
        tiny.awaken(model)
    if config.architecture == "ssd300_vgg16" and (config.width, config.height) != (300, 300):
        model.anchor_generator.steps = None  # they are right for 300 px only
    if backbone_weights is not None:
        weight_files.load_backbone(model.backbone, config.architecture, backbone_weights)
    return model


def _on_backbone(config: ModelConfig, backbone_weights: Path | None) -> Any:
    blocks = backbones.trunk(
        config.backbone or "", width_mult=config.width_mult, weights=backbone_weights
    )
    if config.architecture == "fasterrcnn":
        return _faster_rcnn(config, blocks)
    backbone, channels = backbones.levels(
        blocks,
        width=config.width,
        height=config.height,
        first_stride=config.first_stride,
        count=config.levels,
    )
    boxes = DefaultBoxGenerator(
        [[2, 3]] * len(channels), min_ratio=config.min_scale, max_ratio=config.max_scale
    )
    # Its boxes are shares of width and height: keep the square ones square on a canvas that is not.
    skew = math.sqrt(config.height / config.width)
    boxes._wh_pairs = [pairs * torch.tensor([skew, 1 / skew]) for pairs in boxes._wh_pairs]
    per_cell = boxes.num_anchors_per_location()
    count = len(names(config))
    if config.architecture == "ssdlite":
        norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
        head: nn.Module = SSDLiteHead(channels, per_cell, count, norm)
    else:
        head = SSDHead(channels, per_cell, count)
    return SSD(
        backbone,
        boxes,
        (config.width, config.height),
        count,
        head=head,
        score_thresh=0.01,
        nms_thresh=0.5,
        topk_candidates=1000,
    )


def _faster_rcnn(config: ModelConfig, blocks: list[nn.Module]) -> Any:
    channels, _ = backbones.strides([nn.Sequential(*blocks)], config.width, config.height)[0]
    longest = max(config.width, config.height)
    sizes = tuple(max(4, round(longest / share)) for share in (24, 12, 6, 3, 1.5))
    return detection.FasterRCNN(
        backbones.single(blocks, channels),
        len(names(config)),
        rpn_anchor_generator=AnchorGenerator((sizes,), ((0.5, 1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=7, sampling_ratio=2),
        rpn_pre_nms_top_n_test=600,
        rpn_post_nms_top_n_test=300,  # the box head runs on each: torchvision's 1000 cost a lot
    )


def _freeze(backbone: nn.Module, config: ModelConfig, trainable: int) -> None:
    blocks = backbones.blocks_of(backbone)
    groups = backbones.stages_of(blocks, config.width, config.height)
    if not 0 <= trainable <= len(groups):
        raise ConfigError(
            f"trainable_layers: wanted 0..{len(groups)} stages of this backbone, got {trainable}"
        )
    for block in (b for group in groups[: len(groups) - trainable] for b in group):
        block.requires_grad_(False)
