"""From what a user asks for to the plan of a run: named options, and any field by KEY=VALUE."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from pipeline.errors import ConfigError, DataError
from stages.detector.bundle import ResizeFacts
from stages.training import detr
from stages.training.backbones import did_you_mean
from stages.training.datasets import DataSet
from stages.training.models import ModelConfig
from stages.training.plan import Plan
from stages.training.tiling import tiled
from stages.training.train import BY_PARTS, TrainConfig
from stages.training.transforms import AugmentConfig

CANVAS_PX = 416  # longest side that is chosen by itself, where the objects are not small on it
MOST_PX = 1920  # longest side that is chosen for small ones: twenty times the work of 416
# Side of an object on the canvas: one and a half cells of the finest map of fcos_tiny. Discs, squares and
# triangles of 10 to 14 px in 1080p are told apart on it (AP50 0.75 after 28 epochs); on 1280 px, where they
# have 7 to 9, they are found and not told apart (0.36 after 18).
SMALL_PX = 12
_STEP_PX = 32  # what the sides of a canvas divide by
_PARTS = {
    "model": ModelConfig,
    "train": TrainConfig,
    "augment": AugmentConfig,
    "resize": ResizeFacts,
}
_T = TypeVar("_T")


def plan(
    training: DataSet,
    *,
    architecture: str,
    backbone: str | None = None,
    size_wh_px: tuple[int, int] | None = None,
    tiles: tuple[int, int] = (1, 1),
    weights: str = "none",
    backbone_weights: str | None = None,
    train: Mapping[str, Any] | None = None,
    changes: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
) -> Plan:
    """All that a run is made of.

    size_wh_px: of the model's input; None: `canvas` of the training pictures, or of their tiles.
    tiles: columns and rows of parts that the model is shown beside each whole picture.
    train: fields of TrainConfig; those that are None are left as they are.
    changes: "key=value" for any other field: `ema=0.99` (of TrainConfig), `augment.mosaic=0.5`,
        `model.first_stride=8`, `resize.mode=stretch`. The value is JSON or text.
    data: how the data sets are loaded again, kept in the plan.

    Raises ConfigError for an unknown key or a value that cannot be.
    """
    width, height = size_wh_px or canvas(tiled(training, tiles, whole=False))
    asked: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
    for change in changes:
        part, key, value = parse(change)
        asked[part][key] = value
    given = {key: value for key, value in (train or {}).items() if value is not None}
    model = {
        "architecture": architecture,
        "backbone": backbone,
        "classes": training.classes,
        "width": width,
        "height": height,
    }
    augment = _build(AugmentConfig, "augment.", asked["augment"])
    made = Plan(
        model=_build(ModelConfig, "model.", model | asked["model"]),
        train=_build(TrainConfig, "", given | asked["train"] | {"augment": augment}),
        resize=_build(
            ResizeFacts, "resize.", {"interpolation": "area", "tiles": tiles} | asked["resize"]
        ),
        weights=weights,
        backbone_weights=backbone_weights,
        data=dict(data or {}),
    )
    _check_effects(made, {f"{part}.{key}" for part, keys in asked.items() for key in keys})
    return made


def _check_effects(plan: Plan, asked: Set[str]) -> None:
    """Raise ConfigError for what was asked for and would have no effect."""
    architecture = plan.model.architecture
    ssd, queries = architecture in ("ssd", "ssdlite"), architecture in detr.NAMED
    if plan.backbone_weights and (queries or architecture == "fcos_tiny"):
        raise ConfigError(
            f"--backbone-weights: {architecture} has no backbone that weights are made for; take "
            "--arch ssdlite --backbone mobilenet_v2, or begin with --weights"
        )
    if plan.backbone_weights and plan.weights != "none":
        raise ConfigError(
            f"--backbone-weights: --weights {plan.weights} fills the backbone, too; give one of the two"
        )
    optimizer = plan.train.settled(1, architecture).optimizer
    idle = {
        **{f"model.{key}": ssd for key in ("first_stride", "levels", "min_scale", "max_scale")},
        "model.width_mult": plan.model.backbone is not None,
        "train.momentum": optimizer == "sgd",
        "train.part_px": not plan.train.part_px or architecture.startswith(BY_PARTS),
        "train.step_at": plan.train.schedule == "step",
        "augment.scale_range": plan.train.augment.scale_jitter > 0,
    }
    for key in sorted(asked & {key for key, works in idle.items() if not works}):
        raise ConfigError(
            f"--set {key.removeprefix('train.')}: has no effect with {architecture}, {optimizer}, "
            f"schedule {plan.train.schedule}; leave it out"
        )


def canvas(dataset: DataSet) -> tuple[int, int]:
    """Width and height of a model's input that wastes little on the typical picture of a data set.

    The longest side is CANVAS_PX, or less where the pictures are smaller, or as much more as it takes
    to show nine boxes of ten with sides of SMALL_PX, up to MOST_PX; sides divide by 32.
    """
    shapes = np.array([(s.width, s.height) for s in dataset.samples], np.float64)  # (N, 2)
    if not len(shapes):
        raise DataError(f"{dataset.name}: the training split holds no picture")
    ratio = float(np.median(shapes[:, 0] / shapes[:, 1]))  # width / height
    shares = [
        np.zeros(0)
    ]  # side of each box (root of its area), as a share of its picture's longest
    for sample in dataset.samples:
        wh = sample.xyxy[~(sample.crowd | sample.difficult)]
        area = (wh[:, 2:] - wh[:, :2]).prod(axis=1)
        shares.append(np.sqrt(area) / max(sample.width, sample.height))
    sides_of = np.concatenate(shares)
    needed = SMALL_PX / float(np.percentile(sides_of, 10)) if len(sides_of) else 0.0
    wanted = min(max(CANVAS_PX, needed), MOST_PX)
    longest = min(wanted, float(np.median(shapes.max(axis=1))))
    sides = (longest, longest / ratio) if ratio >= 1 else (longest * ratio, longest)
    width, height = (max(2 * _STEP_PX, round(side / _STEP_PX) * _STEP_PX) for side in sides)
    return width, height


def size(text: str) -> tuple[int, int]:
    """A canvas as it is written: "320" or "320x192", width first.

    >>> size("320"), size("320x192")
    ((320, 320), (320, 192))
    """
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise ConfigError(f"size: wanted px like 320 or 320x192 (width x height), got {text!r}")
    return int(parts[0]), int(parts[-1])


def pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """ "a=b" texts as a dictionary.

    >>> pairs("--rename", ["car=vehicle"])
    {'car': 'vehicle'}
    """
    split = [text.partition("=") for text in texts]
    for text, (name, _, value) in zip(texts, split, strict=True):
        if not name or not value:
            raise ConfigError(f"{option}: wanted NAME=VALUE, got {text!r}")
    return {name: value for name, _, value in split}


def shares(text: str) -> dict[str, float]:
    """ "train=0.8,val=0.2" as a dictionary."""
    try:
        return {name: float(value) for name, value in pairs("--parts", text.split(",")).items()}
    except ValueError as error:
        raise ConfigError(f"--parts: wanted shares like train=0.8,val=0.2, got {text!r}") from error


def parse(change: str) -> tuple[str, str, Any]:
    """Part of the plan, field and value of a "key=value". Raises ConfigError for an unknown key."""
    [(key, text)] = pairs("--set", [change]).items()
    part, dot, name = key.rpartition(".")
    part = part if dot else "train"
    known = [
        f.name if p == "train" else f"{p}.{f.name}"
        for p, kind in _PARTS.items()
        for f in fields(kind)
        if f.name not in ("augment", "classes", "tiles")
    ]
    if key not in known:
        hint = did_you_mean(key, known) or f"; known are {', '.join(known)}"
        raise ConfigError(f"--set {key}: no such setting{hint}")
    try:
        return part, name, json.loads(text)
    except ValueError:
        return part, name, text


def _build(kind: type[_T], prefix: str, values: Mapping[str, Any]) -> _T:
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = f"{prefix}{'.'.join(map(str, first['loc'][:1]))}"
        wanted = first["msg"].removeprefix("Input should be ")
        raise ConfigError(f"{key}: wanted {wanted}, got {first['input']!r}") from error
