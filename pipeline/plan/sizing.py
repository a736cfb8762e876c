"""What fits: engine, processes and threads for the model, batches, and how many cameras a host bears."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.host.machine import cores
from pipeline.host.memory import available_bytes
from pipeline.host.speed import Timing, engine_choices
from pipeline.plan.config import Config
from pipeline.plan.loading import load

MODEL_ID = "stages.detector.bundle:model_id"
CANDIDATES = "stages.detector.fastest:candidates"
RECALL = "stages.detector.fastest:recall"
DESCRIBE = "stages.detector.fastest:describe"

_WORTH_IT = 1.25  # a batch must be this much faster for more threads to be taken
_USUAL_SHARE = 0.9  # of a frame's CPU time: 12 of 14 ms for the demo model behind a 720p camera
_SPARE_CAMERAS = 16
_WORKER_BYTES = 1 << 30  # torch takes half of that before it has a model
USABLE = 0.9  # of the cores: what a run at full load turns into work (benchmarks, b1)


def workers_for(
    config: Config, measured: Sequence[Timing] = (), *, of_cores: float = 1.0
) -> tuple[int, int, str]:
    """How many inference processes, with how many threads each, and why, for the user to read.

    At full load every frame wants its share of the cores, so as many cores go to the model as its share
    of a frame is. A worker has one picture of a camera in hand (`newest`), so few cameras keep few
    workers busy; what is left goes to threads, if they make a picture so much faster that it is worth it.

    measured: of the model on this host, with its tiles, one for each number of threads; without any, the
    share of a usual model. of_cores: share of them that this model may have, 0..1. What the configuration
    says stands.
    """
    model, cameras = config.model, len(config.camera)
    if model.device.startswith("cuda") or any(not timing.on_cpu for timing in measured):
        workers = model.workers or 1
        return workers, model.threads or 1, f"on the GPU: inference in {workers} process(es)"
    share, why = _USUAL_SHARE, "not measured here; `manyeyes doctor` does"
    if measured:
        one = measured[0]
        share = one.picture_s / (one.picture_s + one.frame_s)
        what = "a picture" if one.pictures == 1 else f"the {one.pictures} pictures of a frame"
        why = (
            f"measured: {one.picture_s * 1e3:.1f} ms of a core {what}, "
            f"{one.frame_s * 1e3:.1f} ms to decode, resize and the rest"
        )
    limit = cameras if config.run.policy == "newest" else max(1, int(cores()))
    limit = max(1, min(limit, available_bytes() // _WORKER_BYTES))
    workers = model.workers or max(1, min(round(cores() * of_cores * share), limit))
    threads = max(1, round(cores() * of_cores * share / workers))
    more = [timing.seconds[1] for timing in measured if timing.threads > 1]
    if measured and (not more or measured[0].seconds[1] < _WORTH_IT * min(more)):
        threads = 1
    threads = model.threads or threads
    return (
        workers,
        threads,
        f"{cores():g} cores, {cameras} cameras: inference in {workers} × {threads} threads ({why})",
    )


def engine_for(
    config: Config, facts: Any, measured: Sequence[Timing], threads: int
) -> tuple[dict[str, str], str]:
    """What inference has to know to choose its engine, and what is known of that before the start."""
    model = config.model
    if model.engine != "auto":
        return {"engine": model.engine}, f"engine: {model.engine}"
    names = load(CANDIDATES)(str(model.path), facts, model.precision)
    if len(names) == 1:
        return {"engine": names[0]}, f"engine: {names[0]}"
    if measured:
        name = measured[0].engine
        return {"engine": "auto", "fastest": name}, f"engine: {name}, the fastest that doctor found"
    keys = (load(MODEL_ID)(str(model.path)), model.device, model.precision, threads)
    memory = engine_choices() / ("-".join(map(str, keys)) + ".json")
    known = load(RECALL)(memory)
    note = (
        load(DESCRIBE)(known) if known else f"the fastest of {', '.join(names)}, tried at the start"
    )
    return {"engine": "auto", "memory": str(memory)}, f"engine: {note}"


def cameras_at(timing: Timing, rate_hz: float) -> tuple[int, str]:
    """How many cameras of this rate the host can serve in full, and what sets the limit.

    An estimate from what the parts cost alone; `manyeyes bench capacity` tries it.
    """
    by_cores = USABLE * cores() / (rate_hz * (timing.frame_s + timing.picture_s * timing.on_cpu))
    by_device = float("inf") if timing.on_cpu else 1 / (rate_hz * timing.picture_s)
    return int(min(by_cores, by_device)), "its cores" if by_cores <= by_device else "its GPU"


def largest_batch(config: Config, facts: Any) -> int:
    """Frames that a batch has room for, where the configuration says nothing."""
    largest: int = max(1, max(facts.batch_sizes) // facts.resize.pictures)
    return min(largest, len(config.camera)) if config.run.policy == "newest" else min(largest, 4)


def spare_cameras(config: Config) -> int:
    """How many cameras may join later."""
    n, most = len(config.camera), config.run.max_cameras
    return max(0, most - n) if most else max(_SPARE_CAMERAS, n // 4)
