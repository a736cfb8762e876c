"""A model and the cameras that it looks at: what has to be known of each before it is wired.

    preprocess ─► batcher ─► inference ─► postprocess        once for every model of a run

The names of a run's classes are those of all its models together, so that sinks and render need to know
nothing of models: where one is not the first, postprocess translates its labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.host.speed import Speed, recall
from pipeline.plan.config import Config, ModelConfig
from pipeline.plan.loading import load
from pipeline.plan.sizing import engine_for, largest_batch, workers_for

READ_FACTS = "stages.detector.bundle:read_facts"
WITH_TILES = "stages.detector.bundle:with_tiles"


@dataclass(frozen=True, kw_only=True)
class Chain:
    """One model of a run."""

    suffix: str  # of its processes' names: "" for the first model
    model: ModelConfig
    cameras: tuple[str, ...]
    facts: Any  # of stages.detector.bundle
    engine: dict[str, str]
    workers: int
    threads: int  # of each worker
    max_batch: int
    lanes: tuple[tuple[str, ...], ...]  # cameras of each preprocess
    notes: tuple[str, ...]  # what was chosen by itself


def chains_of(config: Config, before: Sequence[Chain] = ()) -> tuple[Chain, ...]:
    """One for each model that a camera of the configuration has; `[model]` first, if any has it.

    before: those that run. One of the same model stays what it is, but for its cameras.
    Reads the facts of the models, loads none. Raises ConfigError.
    """
    cameras: dict[Path | None, list[Any]] = {}
    for camera in config.camera:
        cameras.setdefault(camera.model, []).append(camera)
    chains: list[Chain] = []
    for path in sorted(cameras, key=lambda path: path is not None):  # stable: in order of cameras
        model = config.model if path is None else _other(config.model, path)
        mine = config.model_copy(update={"model": model, "camera": tuple(cameras[path])})
        names = [camera.name for camera in cameras[path]]
        here = [chain.suffix for chain in chains]
        same = (old for old in before if old.model == model and old.suffix not in here)
        if (old := next(same, None)) is not None:
            chains.append(replace(old, cameras=tuple(names), lanes=_lanes(names, old.lanes)))
            continue
        of_cores = len(names) / len(config.camera)
        taken = [*here, *(chain.suffix for chain in before)]
        try:
            chains.append(
                _chain(mine, _suffix(path or model.path, taken) if taken else "", of_cores)
            )
        except ConfigError as error:
            where = f"camera {names[0]!r}: " if path is not None else ""
            raise type(error)(f"{where}{error}") from error
    return tuple(chains)


def shadow_of(config: Config, path: Path, cameras: Sequence[str]) -> Chain:
    """One that only looks on, at these cameras. Reads the facts of the model. Raises ConfigError."""
    names = [camera for camera in config.camera if camera.name in cameras]
    model = _other(config.model, path)
    mine = config.model_copy(update={"model": model, "camera": tuple(names)})
    return _chain(mine, ".shadow", len(names) / len(config.camera))


def with_cameras(chain: Chain, cameras: Sequence[str]) -> Chain:
    """The same for those of its cameras that are among these; the rest of it stays what it is."""
    names = [camera for camera in chain.cameras if camera in cameras]
    return replace(chain, cameras=tuple(names), lanes=_lanes(names, chain.lanes))


def classes_of(chains: Sequence[Chain], known: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of all classes of a run, those of the first model first.

    known: those that a run has already; they keep their places, and what else a model keeps follows.
    """
    names = dict.fromkeys(known)
    for chain in chains:
        kept = chain.model.classes if known else None
        names |= dict.fromkeys(n for n in chain.facts.classes if kept is None or n in kept)
    return tuple(names)


def postprocess_of(chain: Chain, classes: Sequence[str]) -> dict[str, Any]:
    """What is kept of what a model finds; classes: of the run, which may lack what is not kept."""
    model = chain.model
    return {
        "facts": chain.facts.to_json(),
        "score_threshold": model.score_threshold,
        "per_class": dict(model.per_class),
        "classes": None if model.classes is None else list(model.classes),
        "iou_threshold": model.iou_threshold,
        "max_detections": model.max_detections,
        "labels": [classes.index(n) if n in classes else -1 for n in chain.facts.classes],
    }


def _lanes(cameras: Sequence[str], before: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Each camera where it was; those that are new where there are fewest."""
    lanes = [[camera for camera in lane if camera in cameras] for lane in before]
    known = {camera for lane in lanes for camera in lane}
    for camera in cameras:
        if camera not in known:
            min(lanes, key=len).append(camera)
    return tuple(map(tuple, lanes))


def _chain(config: Config, suffix: str, of_cores: float) -> Chain:
    model = config.model
    facts = _facts(model)
    speed = None if model.engine == "stub" else speed_of(model)
    measured = speed.of(str(model.path), model.precision, model.engine) if speed else ()
    workers, threads, note = workers_for(config, measured, of_cores=of_cores)
    engine, engine_note = engine_for(config, facts, measured, threads)
    max_batch = model.max_batch or largest_batch(config, facts)
    pictures = facts.resize.pictures
    batches = f"batches of up to {max_batch}, whatever waits, without a timer"
    names = tuple(camera.name for camera in config.camera)
    count = min(config.preprocess.workers, len(names))
    about = f"{facts.name}: " if suffix else ""
    return Chain(
        suffix=suffix,
        model=model,
        cameras=names,
        facts=facts,
        engine=engine,
        workers=workers,
        threads=threads,
        max_batch=max_batch,
        lanes=_lanes(names, [()] * count),
        notes=tuple(
            f"{about}{text}"
            for text in (
                engine_note,
                note,
                batches,
                *([f"tiles: the model sees {pictures} pictures of each frame"] * (pictures > 1)),
            )
        ),
    )


def speed_of(model: ModelConfig) -> Speed | None:
    """What was measured for it on this host, as it is asked for: with its tiles."""
    speed = recall(str(model.path))
    return speed and speed.seeing(_facts(model).resize.pictures)


def _facts(model: ModelConfig) -> Any:
    facts = load(READ_FACTS)(model.path)
    return facts if model.tiles is None else load(WITH_TILES)(facts, model.tiles)


def _other(first: ModelConfig, path: Path) -> ModelConfig:
    """A camera's own model: how it is run is as for the first, what is found as its bundle says."""
    same = {
        key: getattr(first, key)
        for key in ("engine", "device", "precision", "cuda_graphs", "tiles")
    }
    return ModelConfig(path=path, **same)


def _suffix(path: Path | None, taken: Sequence[str]) -> str:
    stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in Path(path or "model").stem)
    names = (f".{stem}", *(f".{stem}-{n}" for n in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)
