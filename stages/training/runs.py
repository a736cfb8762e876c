"""A training run from plan to best weights: build, loop, checkpoints, what a person sees of it.

A run folder says everything that is needed to repeat the run: `plan.json` (configuration, data set
hashes, seeds, versions), `metrics.jsonl` (a line per epoch), `augmented.jpg` (what the model sees),
`tensorboard/`, `last.pt` (everything, to go on) and `best.pt` (the best weights, to export).

On one machine with the same number of threads a run that was killed and resumed ends with the same
weights, bit for bit, as one that was not: nothing random depends on history (see `batches`), and the
rest is in `last.pt`.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchvision
from rich.console import Console
from torch.utils.data import DataLoader

from pipeline.errors import ConfigError, DataError, ModelError, ResourceError
from stages.detector.bundle import Facts
from stages.training import checkpoint, journal, parallel
from stages.training.batches import Pictures, Steps, balance, in_one_sentence, loader
from stages.training.datasets import DataSet, Sample, read_image
from stages.training.models import build, label_offset
from stages.training.plan import PLAN, Plan
from stages.training.resuming import CHANGES
from stages.training.train import Losses, State, TrainConfig, dtype_of, new_state, train_one_epoch
from stages.training.transforms import Augment
from stages.training.validation import facts_of, validate

Image = npt.NDArray[np.uint8]
LAST, BEST = "last.pt", "best.pt"
_TIMED = 10  # steps after which the rest is foreseen


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run ended with."""

    folder: Path
    epochs: int  # done
    best: dict[str, Any]  # epoch, map, map_50, weights ("ema" or "raw"), score_threshold
    seconds: float  # of this process


def train(
    plan: Plan,
    training: DataSet,
    validation: DataSet,
    folder: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    console: Console | None = None,
    read: Callable[[Sample], Image] = read_image,
    on_step: Callable[[int, Losses], None] = lambda step, losses: None,
) -> Outcome:
    """Train until the last epoch, or until nothing gets better; returns when `best.pt` is written.

    Args:
        plan: what to do.
        training, validation: with the classes of the plan's model, in its order.
        folder: a new one; with `resume` that of an earlier run, which then goes on exactly, or for more
            epochs than it began with.
        device: auto, cpu, cuda or cuda:N; auto: a GPU if there is one, with torchrun one a process.
        console: where progress is shown; None: nowhere.
        read: decodes the picture of a sample, BGR.
        on_step: called after each step with its number, from 1, and its losses.

    Raises:
        ConfigError: the folder exists (without `resume`), the plan cannot work, a loss is not finite,
            memory runs out. DataError: an empty split, other classes. ResourceError: a full disk.
    """
    _check(plan, training, validation)
    plan = plan.settled(len(training.samples), len(validation.samples))
    with parallel.group(device) as place:
        facts = facts_of(plan.model, plan.resize, folder.name)
        job = _Job(plan, training, validation, folder, place, facts, read)
        if parallel.rank() == 0:
            _check_folder(job, resume)
        parallel.barrier()
        state = _state(job, resume)  # before _begin: weights that do not fit leave no folder behind
        parallel.barrier()  # every process has read the plan
        if parallel.rank() == 0:
            _note_change(job) if resume else _begin(job)
        return _loop(job, state, console if parallel.rank() == 0 else None, on_step)


@dataclass(frozen=True, slots=True)
class _Job:
    """What does not change while a run goes on."""

    plan: Plan
    training: DataSet
    validation: DataSet
    folder: Path
    device: torch.device
    facts: Facts
    read: Callable[[Sample], Image]


def _loop(
    job: _Job, state: State, console: Console | None, on_step: Callable[[int, Losses], None]
) -> Outcome:
    start, config, first = time.monotonic(), job.plan.train, state.step
    times: dict[str, float] = {}
    steps, batches = _batches(job)
    total = config.epochs * len(steps)
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(journal.progress(console))
        if parallel.rank() == 0:
            write = stack.enter_context(journal.writer(job.folder, state.step // len(steps) + 1))
        task = bar.add_task("training", total=total, completed=state.step)

        def after_step(state: State, losses: Losses) -> None:
            if state.step == first + 1:  # the first step waits for the first pictures
                times["second"] = time.monotonic()
            if console and state.step == first + _TIMED:
                step_s = (time.monotonic() - times["second"]) / (_TIMED - 1)
                console.print(_foreseen(job, step_s, total - state.step))
            bar.update(task, completed=state.step, description=journal.describe(state, len(steps)))
            # the end of an epoch is saved with its evaluation
            if state.step % config.save_every == 0 and state.step % len(steps):
                _save(job, state)
            on_step(state.step, losses)

        while state.step < total and not parallel.agree(_stale(state, config)):
            steps.epoch, steps.first = divmod(state.step, len(steps))
            began = time.monotonic()
            train_one_epoch(
                state, in_one_sentence(batches), config, total=total, device=job.device,
                label_offset=label_offset(job.plan.model),
                name_of=lambda i: job.training.samples[i].path.name, after_step=after_step,
            )  # fmt: skip
            line = _line(state, steps, config, time.monotonic() - began)
            state.losses = {}
            if line["epoch"] % config.evaluate_every == 0 or state.step == total:
                line["validation"] = _judge(job, state, line["epoch"])
            if parallel.rank() == 0:
                write(line)
                if console:
                    console.print(journal.sentence(line))
            _save(job, state)
            parallel.barrier()  # rank 0 has evaluated
    done = state.step // len(steps)
    seconds = time.monotonic() - start
    return Outcome(folder=job.folder, epochs=done, best=state.best, seconds=seconds)


def _foreseen(job: _Job, step_s: float, steps: int) -> str:
    """How long the rest takes, for a person."""
    config, model = job.plan.train, job.plan.model
    canvas, validated = (model.width, model.height), len(job.validation.samples)
    judging = config.judging(len(job.training.samples), canvas, validated)
    minutes = step_s * steps * (1 + judging / config.evaluate_every) / 60
    return f"about {minutes:.0f} min to the last epoch ({config.epochs}), validation and all"


def _line(state: State, steps: Steps, config: TrainConfig, seconds: float) -> dict[str, Any]:
    """What is known of an epoch before its evaluation."""
    return {
        "epoch": steps.epoch + 1,
        "step": state.step,
        "lr": state.optimizer.param_groups[0]["lr"],
        "losses": {name: value / len(steps) for name, value in state.losses.items()},
        "images_per_s": (len(steps) - steps.first) * config.batch / max(seconds, 1e-9),
        "seconds": seconds,
    }


def _state(job: _Job, resume: bool) -> State:
    """The model as it begins, or as it was when the run was stopped."""
    plan, last = job.plan, job.folder / LAST
    torch.manual_seed(plan.train.seed)
    backbone = Path(plan.backbone_weights) if plan.backbone_weights else None
    model = build(plan.model, weights=plan.weights, backbone_weights=backbone)
    # convolutions of a step are up to 1.7 times as fast on a CPU as with the channels first
    model = model.to(job.device).to(memory_format=torch.channels_last)
    state = new_state(model, plan.train, job.device)
    if resume and last.exists():  # killed before the first checkpoint: it begins again
        saved = checkpoint.load(last)
        if saved.get("config") != plan.model.to_json():
            raise ModelError(
                f"{last}: is a checkpoint of {saved.get('config', {}).get('architecture')} with another "
                f"configuration than this run's {plan.model.architecture}; start a new run"
            )
        state.load_state_dict(saved)
        done = state.step // math.ceil(len(job.training.samples) / plan.train.batch)
        if done > plan.train.epochs:
            raise ConfigError(
                f"{job.folder}: has {done} epochs behind it, wanted {plan.train.epochs}; take more"
            )
        if _kept(job.folder)["plan"]["train"]["epochs"] < plan.train.epochs:
            state.stale = 0  # who asks for more epochs wants them
    return state


def _batches(job: _Job) -> tuple[Steps, DataLoader[Any]]:
    data, config = job.training, job.plan.train
    steps = Steps(
        len(data.samples),
        config.batch,
        seed=config.seed,
        rank=parallel.rank(),
        world=parallel.world(),
        weights=balance(data.samples, len(data.classes)) if config.balanced else None,
    )
    pictures = Pictures(
        data,
        Augment(config.augment, job.facts.input, job.facts.resize, part_px=config.part_px or 0),
        seed=config.seed,
        cache_bytes=config.cache_mb * 2**20 // max(1, config.workers),
        read=job.read,
        plain_from=math.ceil(config.epochs * (1 - config.plain_epochs)),
    )
    picture = job.folder / "augmented.jpg"
    if parallel.rank() == 0 and not picture.exists():
        journal.write_sheet(picture, pictures, job.facts)
    return steps, loader(pictures, steps, config.workers)


def _save(job: _Job, state: State) -> None:
    if parallel.rank() == 0:
        checkpoint.save(job.folder / LAST, {**_identity(job.plan), **state.state_dict()})


def _check(plan: Plan, training: DataSet, validation: DataSet) -> None:
    for name, data in (("training", training), ("validation", validation)):
        if not data.samples:
            raise DataError(
                f"{data.name}: the {name} split holds no picture; look at it with `manyeyes data inspect`"
            )
        if data.classes != plan.model.classes:
            raise DataError(
                f"{data.name}: wanted the classes {', '.join(plan.model.classes)} in this order, got "
                f"{', '.join(data.classes)}"
            )
    if not any(len(sample.labels) for sample in training.samples):
        raise DataError(
            f"{training.name}: no picture of the training split has a box to learn from"
        )
    if plan.train.batch % parallel.expected_world():
        raise ConfigError(
            f"train: batch {plan.train.batch} does not divide among {parallel.expected_world()} "
            "processes; take a multiple of their number"
        )


def _check_folder(job: _Job, resume: bool) -> None:
    """Refuse a folder that is taken, or with `resume` one that holds another run."""
    folder, sets = job.folder, _sets(job)
    if not resume:
        if folder.exists():
            raise ConfigError(
                f"{folder}: exists already; name a new folder, or go on with that run by --resume"
            )
        return
    if not (folder / PLAN).exists():
        raise ConfigError(
            f"{folder}: nothing to resume, there is no {PLAN} in it; leave out --resume"
        )
    kept, plan = _kept(folder), json.loads(json.dumps(job.plan.to_json()))
    if {**kept["plan"], "train": {**kept["plan"]["train"], **_changes(plan)}} != plan:
        raise ConfigError(
            f"{folder}: began with another plan, so it cannot be resumed exactly; pass that of its "
            f"{PLAN}, or start a new run"
        )
    for name, data in sets.items():
        if kept["data"][name]["sha256"] != data.sha256:
            raise DataError(
                f"{folder}: the {name} data set has changed since this run began, so it cannot be "
                "resumed exactly; start a new run"
            )


def _begin(job: _Job) -> None:
    """Make the run folder, with all that is needed to repeat the run."""
    about = {
        "plan": job.plan.to_json(),
        "data": {
            name: {"name": d.name, "sha256": d.sha256, "pictures": len(d.samples)}
            for name, d in _sets(job).items()
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "commit": checkpoint.commit(),
        },
        "device": str(job.device),
        "precision": str(dtype_of(job.plan.train, job.device)).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "processes": parallel.expected_world(),
    }
    try:
        job.folder.mkdir(parents=True)
        (job.folder / PLAN).write_text(json.dumps(about, indent=1) + "\n")
    except OSError as error:
        raise ResourceError(
            f"{job.folder}: the run folder cannot be made: {error.strerror}"
        ) from error


def _note_change(job: _Job) -> None:
    """Put what may change of a plan, how far and with how many workers, into that of the folder."""
    about = _kept(job.folder)
    if about["plan"] != (plan := json.loads(json.dumps(job.plan.to_json()))):
        new = job.folder / f"{PLAN}.new"
        new.write_text(json.dumps({**about, "plan": plan}, indent=1) + "\n")
        new.replace(job.folder / PLAN)


def _kept(folder: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((folder / PLAN).read_text())
    return about


def _changes(plan: dict[str, Any]) -> dict[str, Any]:
    return {name: plan["train"][name] for name in CHANGES}


def _sets(job: _Job) -> dict[str, DataSet]:
    return {"training": job.training, "validation": job.validation}


def _identity(plan: Plan) -> dict[str, Any]:
    """What every checkpoint says about itself; `export` needs nothing else."""
    return {
        "config": plan.model.to_json(),
        "resize": asdict(plan.resize),
        "seed": plan.train.seed,
        "commit": checkpoint.commit(),
    }


def _judge(job: _Job, state: State, epoch: int) -> dict[str, dict[str, float]]:
    """Validate the weights and their average; keep the better ones when they are the best so far."""
    if parallel.rank() != 0:
        return {}
    models = {"ema": state.ema.model} if state.ema else {}
    models["raw"] = state.model
    figures: dict[str, dict[str, float]] = {}
    for name, model in models.items():
        result = validate(
            model, job.plan.model, job.facts, job.validation, device=job.device, read=job.read
        )
        best = result.overall.best
        figures[name] = {
            "map": result.coco["AP"], "map_50": result.coco["AP50"],
            "f1": best.f1 if math.isfinite(best.f1) else 0.0, "score_threshold": best.threshold,
        }  # fmt: skip
    name = max(figures, key=lambda key: figures[key]["map"])
    before = state.best.get("map", -math.inf)
    state.stale = 0 if figures[name]["map"] > before else state.stale + 1
    if (
        figures[name]["map"] >= before
    ):  # of equals the later: a split without objects knows no better
        state.best = {"epoch": epoch, "weights": name, **figures[name]}
        identity = {**_identity(job.plan), "metrics": dict(state.best)}
        checkpoint.save(job.folder / BEST, {**identity, "model": models[name].state_dict()})
    return figures


def _stale(state: State, config: TrainConfig) -> bool:
    return bool(config.patience) and state.stale >= config.patience
