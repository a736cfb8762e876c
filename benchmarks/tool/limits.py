"""What the hardware could do at best: decoding alone, and the bare model alone, on the whole machine.

    python -m benchmarks.tool.limits         a worker: its task on stdin, then a line when it may begin

Workers load and warm up, wait for each other, and then work side by side for some seconds. The model gets
rendered pictures in its input size that are ready in memory, and gives its raw outputs: no letterbox, no
NMS of ours, no processes that talk. The decoder gives its pictures to nobody.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.rig.runs import environment
from benchmarks.tool.copies import Clip
from pipeline.errors import EndOfStream, ManyeyesError
from pipeline.host.machine import CHILD_ENVIRONMENT
from pipeline.plan.graph import Plan
from pipeline.plan.loading import build
from stages.inference import Inference, InferenceConfig

SECONDS = 3.0  # of one measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Pictures a second."""

    decode_fps: float  # inf: scenes from memory, which nobody decodes
    model_fps: float  # the best of the ways that were tried
    how: str  # which way that was
    shared: bool  # both work on the same cores, so that they can't reach these rates together

    @property
    def fps(self) -> float:
        """min(decode, model)."""
        return min(self.decode_fps, self.model_fps)

    @property
    def shared_fps(self) -> float:
        """What is left where both need the same cores; else as `fps`."""
        if not self.shared:
            return self.fps
        return 1 / (1 / self.decode_fps + 1 / self.model_fps)

    def to_json(self) -> dict[str, Any]:
        """Infinity is null."""
        row = asdict(self) | {"fps": self.fps, "shared_fps": self.shared_fps}
        return {k: None if isinstance(v, float) and np.isinf(v) else v for k, v in row.items()}


def measure(
    plan: Plan, clips: Sequence[Clip], seconds: float = SECONDS, *, only: str | None = None
) -> Limits:
    """Of this machine, for the model and the clips of a plan. Takes some times `seconds`, and the starts.

    On the CPU the model runs with one thread in a process a core, and with all threads in one process;
    on a device, and for the stub that stands for one, in as many processes as the plan has.
    only: a `how` that was the best before; None: try them all.
    """
    cores = len(os.sched_getaffinity(0))
    engines = [spec for spec in plan.processes if spec.role == "batch"]
    config = engines[0].config
    on_cpu = config["engine"] != "stub" and not _has_device(config["device"])
    ways = [(cores, 1), (1, cores)] if on_cpu else [(len(engines), config["threads"])]
    batches = sorted({1, int(config["max_batch"])})
    rates = {}
    for (workers, threads), batch in itertools.product(dict.fromkeys(ways), batches):
        how = f"{workers} × {threads} thread(s), batches of {batch}"
        if only in (None, how):
            model = {**config, "threads": threads, "max_batch": batch}
            rates[how] = _together([{"model": model, "batch": batch}] * workers, threads, seconds)
    how = max(rates, key=rates.__getitem__)
    return Limits(decode_fps=decoding(clips, seconds), model_fps=rates[how], how=how, shared=on_cpu)


def decoding(clips: Sequence[Clip], seconds: float = SECONDS) -> float:
    """Pictures a second of as many decoders as there are cores; infinity for scenes from memory."""
    tasks = [{"run": clip.run, "config": clip.config} for clip in clips if not clip.is_scene]
    copies = -(-len(os.sched_getaffinity(0)) // max(1, len(tasks)))
    return _together(tasks * copies, 1, seconds) if tasks else float("inf")


def _has_device(name: str) -> bool:
    return name != "cpu" and os.path.exists("/dev/nvidiactl")


def _together(tasks: list[dict[str, Any]], threads: int, seconds: float) -> float:
    """Pictures a second of all tasks, each in a process of its own, at the same time."""
    count = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, "-m", "benchmarks.tool.limits"]
    workers = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**environment(), **CHILD_ENVIRONMENT, **count},
        )
        for _ in tasks
    ]  # fmt: skip
    try:
        for worker, task in zip(workers, tasks, strict=True):
            _tell(worker, json.dumps({**task, "seconds": seconds}))
        for worker in workers:
            if _hear(worker) != "ready":
                raise RuntimeError("a worker that measures a limit did not start; see above")
        for worker in workers:
            _tell(worker, "go")
        return sum(float(_hear(worker)) for worker in workers)
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def _tell(worker: subprocess.Popen[str], line: str) -> None:
    if worker.stdin is not None:
        worker.stdin.write(line + "\n")
        worker.stdin.flush()


def _hear(worker: subprocess.Popen[str]) -> str:
    return worker.stdout.readline().strip() if worker.stdout is not None else ""


# -- the worker ------------------------------------------------------------------------------------


def main() -> None:
    """Carry out the task of stdin."""
    task = json.loads(sys.stdin.readline())
    try:
        step = _model(task) if "model" in task else _decoder(task)
    except ManyeyesError as error:
        print(f"limits: {error}", file=sys.stderr)
        return
    print("ready", flush=True)
    sys.stdin.readline()
    done, begun_s = 0, time.monotonic()
    while (spent_s := time.monotonic() - begun_s) < task["seconds"]:
        done += step()
    print(done / spent_s, flush=True)


def _model(task: dict[str, Any]) -> Callable[[], int]:
    """One batch a step."""
    from stages.imaging.scenes import still

    stage = Inference(InferenceConfig(**task["model"]))
    stage.setup()
    engine, n = stage._engine, int(task["batch"])  # bare: without what the stage does around it
    batch = engine.buffer(n)
    for i, pixels in enumerate(batch):
        pixels[:] = still(3, i, (pixels.shape[1], pixels.shape[0]))[0]

    def step() -> int:
        engine.infer(batch)
        return n

    return step


def _decoder(task: dict[str, Any]) -> Callable[[], int]:
    """One picture a step."""
    source = build(task["run"], task["config"])
    buffer = np.empty(source.slot_bytes(source.config, 0), np.uint8)
    source.setup()
    source.open()

    def step() -> int:
        try:
            return int(source.read(buffer) is not None)
        except EndOfStream:
            source.open()
            return 0

    return step


if __name__ == "__main__":
    main()
