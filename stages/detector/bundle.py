"""The facts of a model: what travels inside its file, and all that a process needs that never runs it.

A bundle is a TorchScript archive with `manyeyes.json` among its extra files, or an ONNX file with the
same text in `metadata_props`. Reading facts runs nothing and imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Layout = Literal["candidates", "yolox", "ultralytics", "torchvision"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFacts:
    """What the model takes: (B, 3, height, width). float32 input is (pixel * scale - mean) / std."""

    width: int  # px
    height: int
    color: Literal["rgb", "bgr"] = "rgb"
    dtype: Literal["uint8", "float32"] = "uint8"
    scale: float = 1.0  # with dtype float32 only
    mean: tuple[float, float, float] | None = None  # in the order of `color`, after scale
    std: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeFacts:
    """How a picture of any size becomes the model's input."""

    mode: Literal["letterbox", "stretch"] = "letterbox"
    align: Literal["center", "top-left"] = "center"
    pad: int = 114  # grey level of the bars, 0..255
    interpolation: Literal["linear", "area", "nearest", "cubic"] = "linear"


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What postprocess uses where the configuration says nothing."""

    score_threshold: float = 0.35  # 0..1
    iou_threshold: float = 0.5  # 0..1, of NMS within a class
    max_detections: int = 100  # of one frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything about a model but its weights."""

    name: str
    architecture: str
    classes: tuple[str, ...]
    input: InputFacts
    layout: Layout
    resize: ResizeFacts = field(default_factory=ResizeFacts)
    label_offset: int = 0  # what to subtract from the model's labels (1 where 0 is background)
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8)
    defaults: Defaults = field(default_factory=Defaults)
    output_bytes_per_image: int = 0  # of all output arrays of one picture together
    provenance: dict[str, Any] = field(default_factory=dict)
    golden: dict[str, Any] | None = None
    format: int = 1
