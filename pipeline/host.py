"""What fits this host: processes and threads for the model, and one thread for everything else."""

from __future__ import annotations

import os
from typing import Any

from pipeline.config import Config

# One thread a process: pools of threads of several processes on the same cores slow each other down.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "0",
}


def workers_for(config: Config) -> tuple[int, int, str]:
    """How many inference processes, with how many threads each."""
    model = config.model
    cores, cameras = len(os.sched_getaffinity(0)), len(config.camera)
    if model.device.startswith("cuda"):
        workers = model.workers or 1
        return workers, model.threads or 1, f"{model.device}: inference in {workers} process(es)"
    if cameras == 1:
        workers, threads = model.workers or 1, model.threads or cores
    else:
        workers = model.workers or max(1, min(cores - 1, cameras))
        threads = model.threads or 1
    return (
        workers,
        threads,
        f"{cores} cores, {cameras} cameras: inference in {workers} × {threads} threads",
    )


def largest_batch(config: Config, facts: Any) -> int:
    """What a batch has room for, where the configuration says nothing."""
    largest: int = max(facts.batch_sizes)
    return min(largest, len(config.camera)) if config.run.policy == "newest" else min(largest, 4)
