"""A run that goes on: its plan, and what may change of it; an option without effect is an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from stages.training import settings
from stages.training.plan import Plan

CHANGES = ("epochs", "workers")  # of TrainConfig: how far, and how fast
_ELSEWHERE = (
    "device",
    "output",
    "resume",
    "as_json",
    "data",
    "val",
    "strict",
)  # do not touch the plan


def resumed(plan: Plan, asked: Mapping[str, Any]) -> Plan:
    """The plan of a run with the changes that are asked for.

    asked: options of `train` as they were given, without those that were not.
    Raises ConfigError naming the first option that would change what cannot be changed; one that says
    what the plan says already does no harm.
    """
    began = _options_of(plan)
    for name, value in asked.items():
        if name in CHANGES or name in _ELSEWHERE:
            continue
        if name == "change":
            for change in value:
                part, key, wanted = settings.parse(change)
                _same(f"--set {key}", wanted, getattr(_part(plan, part), key))
        else:
            _same(f"--{name.replace('_', '-')}", _as_planned(name, value), began[name])
    changes = {name: asked[name] for name in CHANGES if name in asked}
    return replace(plan, train=replace(plan.train, **changes))


def places(plan: Plan, asked: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """How the data sets of a run are loaded: as before, or from where they are now."""
    training, validation = dict(plan.data["training"]), dict(plan.data["validation"])
    both = training["path"] == validation["path"]
    if asked.get("data"):
        training["path"] = str(asked["data"].absolute())
        validation["path"] = training["path"] if both else validation["path"]
    if asked.get("val"):
        validation["path"] = str(asked["val"].absolute())
    return training, validation


def _as_planned(name: str, value: Any) -> Any:
    """The value of an option as a plan has it."""
    if name in ("size", "tiles"):
        return settings.size(value)
    if name == "classes":
        return tuple(value.split(","))
    return str(Path(value).absolute()) if name == "backbone_weights" else value


def _options_of(plan: Plan) -> dict[str, Any]:
    """What each option of `train` was when the run began."""
    return {
        "arch": plan.model.architecture,
        "backbone": plan.model.backbone,
        "tiles": plan.resize.tiles,
        "size": (plan.model.width, plan.model.height),
        "classes": plan.model.classes,
        "weights": plan.weights,
        "backbone_weights": plan.backbone_weights,
        "batch": plan.train.batch,
        "lr": plan.train.lr,
        "seed": plan.train.seed,
        "split": plan.data["training"]["split"],
        "val_split": plan.data["validation"]["split"],
        "format": plan.data["training"]["format"],
    }


def _part(plan: Plan, part: str) -> Any:
    parts = {
        "model": plan.model,
        "train": plan.train,
        "augment": plan.train.augment,
        "resize": plan.resize,
    }
    return parts[part]


def _same(option: str, wanted: Any, began: Any) -> None:
    if (list(wanted) if isinstance(wanted, list | tuple) else wanted) != (
        list(began) if isinstance(began, list | tuple) else began
    ):
        raise ConfigError(
            f"train: {option} {wanted} cannot change when a run goes on, it began with {began}; leave it "
            "out, or start a new run"
        )
