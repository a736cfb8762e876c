"""All that a run is made of, as JSON in its folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from stages.detector.bundle import ResizeFacts
from stages.training.models import ModelConfig
from stages.training.train import TrainConfig
from stages.training.transforms import AugmentConfig

PLAN = "plan.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a run is made of, but the pictures: kept as JSON in the run folder."""

    model: ModelConfig
    train: TrainConfig = field(default_factory=TrainConfig)
    resize: ResizeFacts = field(default_factory=lambda: ResizeFacts(interpolation="area"))
    weights: str = "none"  # as `models.build` takes them
    backbone_weights: str | None = None
    data: dict[str, Any] = field(
        default_factory=dict
    )  # how the data sets were loaded; for a person

    def settled(self, pictures: int, validated: int) -> Plan:
        """The same with nothing left to choose, for so many pictures of training and of validation."""
        model = self.model
        train = self.train.settled(
            pictures,
            model.architecture,
            canvas_wh_px=(model.width, model.height),
            validated=validated * self.resize.pictures,
        )
        return replace(self, train=train)

    def to_json(self) -> dict[str, Any]:
        """Plain types only."""
        return {**asdict(self), "model": self.model.to_json()}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Plan:
        """The inverse of `to_json`; raises ConfigError when a field is unknown or missing."""
        try:
            train = dict(facts["train"])
            augment = dict(train.pop("augment"))
            augment["scale_range"] = tuple(augment["scale_range"])
            for name in ("step_at", "freeze"):
                train[name] = tuple(train[name])
            return cls(
                model=ModelConfig.from_json(facts["model"]),
                train=TrainConfig(**train, augment=AugmentConfig(**augment)),
                resize=ResizeFacts(**{**facts["resize"], "tiles": tuple(facts["resize"]["tiles"])}),
                **{k: facts[k] for k in ("weights", "backbone_weights", "data")},
            )
        except (TypeError, KeyError) as error:
            raise ConfigError(
                f"{PLAN}: not a plan of this build ({error}); start a new run"
            ) from error


def load_plan(folder: Path) -> Plan:
    """The plan of a run folder, to resume it. Raises ConfigError if there is none."""
    try:
        return Plan.from_json(json.loads((folder / PLAN).read_text())["plan"])
    except FileNotFoundError as error:
        raise ConfigError(
            f"{folder}: nothing to resume, wanted the folder of an earlier run with {PLAN} in it"
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{folder / PLAN}: not a plan of this build ({error}); start a new run"
        ) from error
