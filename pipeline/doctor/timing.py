"""Measures what a model and a camera cost on this host: each stage by itself, in a fresh process.

python -m pipeline.doctor.timing FILE          the child: FILE holds the specs of four stages, as JSON
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, EndOfStream, SourceError
from pipeline.host.machine import child_environment, cores, has_bfloat16
from pipeline.host.speed import Speed, Timing, fit, timing_of
from pipeline.messages import Frame, Tensor
from pipeline.plan.graph import Plan, ProcessSpec
from pipeline.plan.loading import build, load

FACTS_OF = "stages.detector.bundle:Facts"
CANDIDATES = "stages.detector.fastest:candidates"
PARTS = ("capture", "preprocess", "inference", "postprocess")
FRAMES = 24  # through every part
BATCHES = (1, 2, 4, 8, 16, 32, 64)
_BATCH_S = 0.6  # spent on each batch size
_CALLS = (3, 50)  # of each batch size: at least, at most


def measure(
    plans: Sequence[Plan],
    source: str,
    tell: Callable[[str], None] = lambda text: None,
    *,
    threads: Sequence[int] = (),
) -> Speed:
    """One child after the other: every plan's stages, with each engine and number of threads, and in bf16.

    threads: none: one, and, for the fastest engine of a file, as many as cores.
    plans: as `plan.make` made them, one for each model file, with the same source. Takes about ten
    seconds for each child. Raises ConfigError with a child's own words if it fails.
    """
    timings: list[Timing] = []
    for plan in plans:
        config = _spec(plan, "inference").config
        name = Path(config["model"]).name
        facts = load(FACTS_OF).from_json(config["facts"])
        engines = load(CANDIDATES)(config["model"], facts, config["precision"])
        first, *more = threads or sorted({1, max(1, int(cores()))})
        mine: list[Timing] = []
        for engine in engines:
            tell(f"measuring {name} in {engine} with {first} thread{'s'[: first > 1]} …")
            try:
                mine.append(_measured(plan, engine, first))
            except ConfigError as error:
                if not mine:
                    raise
                tell(str(error))  # its own engine runs it, this one is not installed or not right
        best = min(mine, key=lambda timing: timing.picture_s)
        for n in more if best.on_cpu else ():  # elsewhere they have nothing to do
            tell(f"measuring {name} in {best.engine} with {n} threads …")
            mine.append(_measured(plan, best.engine, n))
        in_bf16 = load(CANDIDATES)(config["model"], facts, "bf16")
        for engine in in_bf16 if best.on_cpu and has_bfloat16() else ():
            if engine == "onnx":
                continue  # which has its precision inside
            tell(f"measuring {name} in {engine} in bf16 …")
            mine.append(_measured(plan, engine, 1, precision="bf16"))
        timings += mine
    return Speed(source=source, timings=tuple(timings))


def _spec(plan: Plan, part: str) -> ProcessSpec:
    return next(spec for spec in plan.processes if spec.name.split(".")[0] == part)


def _measured(plan: Plan, engine: str, threads: int, precision: str = "auto") -> Timing:
    specs = [asdict(_spec(plan, part)) for part in PARTS]
    specs[2]["config"] |= {
        "engine": engine, "threads": threads, "max_batch": 0, "precision": precision,
    }  # fmt: skip
    number = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory(prefix="manyeyes-timing-") as folder:
        file = Path(folder) / "specs.json"
        file.write_text(json.dumps(specs))
        child = subprocess.run(
            [sys.executable, "-P", "-m", "pipeline.doctor.timing", str(file)],
            env=child_environment({**specs[2]["environment"], **number}),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if child.returncode:
        last = (child.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ConfigError(f"{specs[2]['config']['model']}: could not be measured: {last}")
    fields: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return timing_of(fields)


# -- the child -------------------------------------------------------------------------------------


def main() -> None:
    """Measure, and print one line of JSON."""
    specs = [ProcessSpec.from_json(fields) for fields in json.loads(Path(sys.argv[1]).read_text())]
    source, preprocess, inference, postprocess = (build(spec.run, spec.config) for spec in specs)
    for stage in (source, preprocess, inference, postprocess):
        stage.setup()
    slots = np.zeros((FRAMES, specs[0].slot_bytes), np.uint8)
    source.open()
    for _ in range(2):  # the first time around pages are mapped and tables loaded
        frames, capture_s = _timed(partial(_read, source), slots)
        tensors, preprocess_s = _timed(preprocess.process, frames)
    source.close()
    seconds, cpu_s = _inferences(inference, tensors, specs[2].config["facts"])
    outputs = inference.process_batch(tensors)
    _, postprocess_s = _timed(postprocess.process, outputs)
    alpha_s, beta_s = fit(seconds)
    config = specs[2].config
    columns, rows = json.loads(config["facts"])["resize"]["tiles"]
    timing = Timing(
        model=os.path.realpath(config["model"]),
        engine=inference.engine,
        device=inference.device,
        threads=config["threads"], alpha_s=alpha_s, beta_s=beta_s, seconds=seconds, cpu_s=cpu_s,
        capture_s=capture_s / FRAMES, preprocess_s=preprocess_s / FRAMES,
        postprocess_s=postprocess_s / FRAMES,
        pictures=1 + columns * rows if columns * rows > 1 else 1,
    )  # fmt: skip
    print(json.dumps(asdict(timing)))


def _timed(work: Callable[[Any], Any], items: Iterable[Any]) -> tuple[list[Any], float]:
    """The result for each item, and CPU seconds of all."""
    start = time.process_time()
    return [work(item) for item in items], time.process_time() - start


def _read(source: Any, slot: Any) -> Frame:
    end = time.monotonic() + 15
    picture = None
    while picture is None:
        if time.monotonic() > end:
            raise SourceError("no picture in 15 s")
        try:
            picture = source.read(slot)
        except EndOfStream:  # a short one
            source.open()
    frame: Frame = picture.frame(slot)
    return frame


def _inferences(stage: Any, tensors: list[Tensor], facts: str) -> tuple[dict[int, float], float]:
    """Median seconds of each batch size, and CPU seconds of a picture in the largest."""
    largest = max(json.loads(facts)["batch_sizes"])
    seconds, cpu_s = {}, 0.0
    for size in (b for b in BATCHES if b <= largest):
        batch = [tensors[i % len(tensors)] for i in range(size)]
        durations: list[float] = []
        spent_s, end = time.process_time(), time.monotonic() + _BATCH_S
        while len(durations) < _CALLS[0] or (len(durations) < _CALLS[1] and time.monotonic() < end):
            start = time.perf_counter()
            stage.process_batch(batch)
            durations.append(time.perf_counter() - start)
        seconds[size] = float(np.median(durations))
        cpu_s = (time.process_time() - spent_s) / len(durations) / size
    return seconds, cpu_s


if __name__ == "__main__":
    main()
