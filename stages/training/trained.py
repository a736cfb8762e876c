"""What `train` left in a run folder, as a model again; and from there to a bundle."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.errors import DataError, ModelError
from stages.detector.bundle import Defaults, Facts, ResizeFacts
from stages.training import checkpoint, export, models
from stages.training.datasets import DataSet, read_image
from stages.training.models import ModelConfig
from stages.training.parity import Parity
from stages.training.plan import PLAN
from stages.training.runs import BEST

PARITY_PICTURES = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """A checkpoint, built again."""

    file: Path
    model: nn.Module
    config: ModelConfig
    resize: ResizeFacts
    metrics: dict[str, Any]  # of the validation that it was kept for; empty in one from mid-run
    about: dict[str, Any]  # seed and commit of the run, its data sets and how they were read

    @property
    def defaults(self) -> Defaults:
        """The score threshold with the best F1 on the validation set, where there was one.

        Rounded down: a score has to be above the threshold, and the one that was best is to count.
        """
        best = self.metrics.get("score_threshold")
        if best is None or not 0 < best < 1:
            return Defaults()
        return Defaults(score_threshold=math.floor(best * 1000) / 1000)


def checkpoint_in(path: Path) -> Path:
    """The best weights of a run folder; any other path as it is."""
    return path / BEST if path.is_dir() else path


def load(path: Path) -> Trained:
    """A checkpoint, or the best one of a run folder. Runs no code of the file.

    Raises ModelError: no such file, no checkpoint, weights that are of another architecture.
    """
    file = checkpoint_in(path)
    state = checkpoint.load(file)
    try:
        config = ModelConfig.from_json(state["config"])
        resize = ResizeFacts(**state["resize"])
        model = models.build(config)
        model.load_state_dict(state["model"])
    except (RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{file}: its weights do not fit the model that it names: "
            f"{' '.join(str(error).split())[:200]}; pass last.pt or best.pt of a run folder"
        ) from error
    return Trained(
        file=file,
        model=model,
        config=config,
        resize=resize,
        metrics=state.get("metrics") or state.get("best") or {},
        about={key: state[key] for key in ("seed", "commit") if key in state} | _plan(file.parent),
    )


def bundle(
    trained: Trained,
    pictures: DataSet,
    output: Path,
    *,
    name: str | None = None,
    format: str = "torchscript",
    precision: str = "fp32",
) -> Facts:
    """Export with everything that a bundle should know of its run; refuses as `export` does.

    pictures: some of them, evenly spread, go through the parity gate.
    """
    count = len(pictures.samples)
    if not count:
        raise DataError(f"{pictures.name}: no picture for the parity gate, wanted at least one")
    chosen = sorted({i * count // PARITY_PICTURES for i in range(PARITY_PICTURES)})
    return export.export(
        trained.model,
        trained.config,
        output=output,
        pictures=[read_image(pictures.samples[i]) for i in chosen],
        name=name,
        resize=trained.resize,
        defaults=trained.defaults,
        provenance={**trained.about, "metrics": trained.metrics},
        format=format,
        precision=precision,
    )


def parity_of(facts: Facts) -> str:
    """What the parity gate compared when this bundle was written, for a person."""
    return f"parity: {Parity(**facts.provenance['parity'])}"


def _plan(folder: Path) -> dict[str, Any]:
    """The data sets of the run whose folder this is; nothing where the checkpoint was moved away."""
    try:
        data = json.loads((folder / PLAN).read_text(encoding="utf-8"))["data"]
        return {"data": {part: f"sha256:{facts['sha256']}" for part, facts in data.items()}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
