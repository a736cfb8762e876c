"""Detectors for training: every torchvision one by name, or a head of ours on a torchvision backbone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """All that is needed to build an architecture again: JSON-able, kept in checkpoints and bundles."""

    architecture: str  # a torchvision detector, or "ssd", "ssdlite", "fasterrcnn" on `backbone`
    classes: tuple[str, ...]  # without a background
    width: int  # px of the canvas, as the letterbox makes it
    height: int
    backbone: str | None = None  # a torchvision classifier, cut if asked: "mobilenet_v2[:14]"
    width_mult: float = 1.0  # of the backbone's channels, where torchvision offers it (mobilenets)
    first_stride: int = 16  # px; finest feature map of "ssd" and "ssdlite"; 8 for small objects
    levels: int = 6  # feature maps of "ssd" and "ssdlite"
    frozen_norms: bool = False  # batch-norm statistics fixed (FrozenBatchNorm2d) in the backbone

    def to_json(self) -> dict[str, Any]:
        """Plain types only."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_json`; raises ConfigError for an unknown or missing field."""
        raise NotImplementedError


def demo() -> ModelConfig:
    """The small detector of `manyeyes demo`: three classes, 16:9 pictures."""
    raise NotImplementedError


def label_offset(config: ModelConfig) -> int:
    """What a target's class index grows by for `build`'s model: 1 where label 0 is background."""
    raise NotImplementedError


def build(
    config: ModelConfig,
    *,
    weights: str | Path = "none",
    backbone_weights: Path | None = None,
    trainable_layers: int | None = None,
) -> nn.Module:
    """A torchvision detection model for a fixed canvas, in training mode.

    In training: `model(images, targets)` -> dict of losses. In eval mode: `model(images)` -> list of
    dicts. images: list of float32 (3, config.height, config.width) RGB 0..1; targets: list of dicts
    with `boxes` float32 (N, 4) xyxy px and `labels` int64 (N,), class index + `label_offset(config)`.
    The model normalises; it never resizes.

    Args:
        config: what to build.
        weights: "none", the name of torchvision weights ("COCO_V1", "DEFAULT"; downloaded), or a file
            (state dict, or a checkpoint with the state dict under "model"). Rows of the heads of
            classes that have the same name are kept; other shapes that differ raise ConfigError.
        backbone_weights: a state dict of the classification network that the backbone is.
        trainable_layers: stages of the backbone that train, counted from its end; None: all without
            weights, torchvision's default with weights.

    Raises:
        ConfigError: unknown architecture, backbone or weights, a file that does not fit, no network.
    """
    raise NotImplementedError
