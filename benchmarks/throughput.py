"""How much of the machine reaches the work? Figure b1.

    python -m benchmarks.throughput [--seconds 120] [--video FILE] [--cameras 4] [--model BUNDLE]
                                    [--json FILE]

A: frames a second of a whole run with the policy `every`: cameras that read an H.264 file as fast as they
are asked, the demo model, results into a sink that forgets them. B: cores ÷ Σ over the stages (decode,
preprocess, inference, postprocess) of the CPU seconds that a frame takes in each of them alone
(benchmarks/alone.py): what the machine could do if messages, processes and waiting cost nothing. Both have
the engine that is the fastest on this host.

Alone means: without a pipeline, in a process that does the same frames of the same cameras with the batch
size and the one thread of the run, a batch at a time from stage to stage, so that each finds the caches as
the one before left them; and as many such processes at the same time as there are cores. A core is slower
while its neighbour works, by its clock, its caches and its hyper-thread, and a pipeline at full load keeps
all of them at work; one process on an idle machine would set a limit that no program reaches. They are
measured before and after every window of the run, and the limit is what lies between: the speed of a host
that others share changes within seconds.

What other programs take of the cores while a window lasts (/proc/stat) is taken off them: on a machine of
one's own that is next to nothing, and the figure is the one above.

The detections of the run are compared with those of the stages alone before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alone import PARTS, Alone, as_dict
from benchmarks.fastest_engine import fastest_engine
from benchmarks.rig.measure import (
    MIN_PAIRS,
    Figure,
    Machine,
    Target,
    busy_s,
    interleaved,
    ratio,
    report,
)
from benchmarks.rig.replay import Pace
from benchmarks.rig.runs import Rig, Window
from pipeline.accounts.layout import MAX_BATCH
from pipeline.messages import Result
from pipeline.plan import config as configuration
from pipeline.plan.config import Config, SinkConfig
from pipeline.plan.graph import Plan
from pipeline.plan.standard import make
from pipeline.stage import Picture, Sink
from stages.capture.av import AvConfig, AvSource
from stages.probe import write_clip

FRAMES = 250  # of the clip
CHECKED = 48  # frames of each camera whose detections are compared
MAX_DIFFERENT = 0.02  # share of them in which a rounding may have decided
NOISE = 0.03  # share of the cores by which clock ticks may err; less than that is nobody
WINDOW_S, ALONE_S, SETTLE_S = 2.5, 1.5, 1.0  # short, since the machine drifts


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120, help="about how long to measure")
    parser.add_argument("--video", type=Path, help="H.264 of yours, and not rendered scenes")
    parser.add_argument("--cameras", type=int, default=4, help="that read it")
    parser.add_argument("--model", default="demo", help="a bundle, or a name of the list")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args()
    machine = Machine()
    rows = figures(options.seconds, options.video, options.cameras, options.model)
    report("throughput", rows, machine, options.json)


def figures(
    seconds: float, video: Path | None = None, cameras: int = 4, model: str = "demo"
) -> list[Figure]:
    """Check, then measure in turns."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="manyeyes-bench-") as name:
        folder = Path(name)
        clip = video or write_clip(folder / "scenes.mp4", FRAMES)
        gate = Pace(folder / "gate", 1)
        config = _config(clip, cameras, folder, model)
        engine = fastest_engine(Path(str(config.model.path)))
        config = config.model_copy(
            update={"model": config.model.model_copy(update={"engine": engine})}
        )
        run = Rig(config, edit=lambda plan: gated(plan, folder))
        alone = Alone(make(config), cores)
        try:
            with run as rig:
                _check(rig, gate, alone, folder / "results")
                samples: dict[str, list[Any]] = interleaved(
                    max(MIN_PAIRS, round(seconds / (WINDOW_S + 2 * ALONE_S + 2 * SETTLE_S)) - 1),
                    {
                        "alone": lambda: alone.run(ALONE_S),
                        "run": lambda: _window(rig, gate),
                        "again": lambda: alone.run(ALONE_S),
                    },
                    progress="throughput",
                )
                batches = rig.ledger["batch_size"].sum(axis=0)
        finally:
            alone.close()
    windows, others = zip(*samples["run"], strict=True)
    free = [cores - other for other in others]
    return _figures(windows, samples["alone"], samples["again"], free, batches, engine)


def _figures(
    windows: Sequence[Window],
    alone: Sequence[dict[str, float]],
    again: Sequence[dict[str, float]],
    cores: Sequence[float],
    batches: np.ndarray[Any, Any],
    engine: str,
) -> list[Figure]:
    """alone, again: on both sides of each window; cores: those that the run had to itself in it."""
    fps = [window.fps for window in windows]
    # a host that becomes slower meanwhile is half as slow in between
    work_s = [(sum(a.values()) + sum(b.values())) / 2 for a, b in zip(alone, again, strict=True)]
    cpu_s = [sum(w.cpu_s.values()) / max(1, sum(w.served.values())) for w in windows]
    busy = [sum(w.cpu_s.values()) / w.seconds for w in windows]
    both = (*alone, *again)
    by_part = ", ".join(f"{p} {np.median([a[p] for a in both]) * 1e3:.2f}" for p in PARTS)
    mean_batch = (batches * np.arange(MAX_BATCH + 1)).sum() / max(1, batches.sum())
    limits = [n / s for n, s in zip(cores, work_s, strict=True)]
    return [
        ratio(
            "b1", "fps / (cores ÷ Σ CPU s alone)", fps, limits, Target(sign="≥", limit=0.9),
            detail=f"{np.median(fps):.0f} : {np.median(limits):.0f} fps, both in {engine}",
        ),
        ratio(
            "b1", "CPU a frame, whole run / Σ alone", cpu_s, work_s,
            detail=f"{np.median(cpu_s) * 1e3:.2f} : {np.median(work_s) * 1e3:.2f} ms ({by_part})",
        ),
        ratio(
            "b1", "cores at work / cores", busy, cores,
            detail=f"{np.median(busy):.2f} : {np.median(cores):.2f}; batches of {mean_batch:.1f}; "
            f"ms: {processes(windows)}",
        ),
    ]  # fmt: skip


def processes(windows: Sequence[Window]) -> str:
    """CPU milliseconds a frame of every kind of process."""
    spent: dict[str, float] = {}
    for window in windows:
        for name, cpu_s in window.cpu_s.items():
            kind = name.split(".")[0]
            spent[kind] = spent.get(kind, 0.0) + cpu_s
    frames = sum(sum(window.served.values()) for window in windows)
    return ", ".join(f"{kind} {cpu_s / max(1, frames) * 1e3:.2f}" for kind, cpu_s in spent.items())


# -- the run ---------------------------------------------------------------------------------------


def _config(clip: Path, cameras: int, folder: Path, model: str) -> Config:
    config = configuration.from_sources([str(clip)] * cameras, policy="every", model=model)
    loops = tuple(camera.with_options(loop=True) for camera in config.camera)
    sink = SinkConfig(
        type="custom",
        name="first",
        run="benchmarks.throughput:First",
        options={"path": str(folder / "results")},
    )
    return config.model_copy(update={"camera": loops, "sink": (sink,)})


def gated(plan: Plan, folder: Path) -> Plan:
    """The plan with files that wait at a gate."""
    processes = tuple(
        replace(
            spec,
            run="benchmarks.throughput:GatedFile",
            config={**spec.config, "gate": str(folder / "gate")},
        )
        if spec.role == "source"
        else spec
        for spec in plan.processes
    )
    return replace(plan, processes=processes)


def _open(gate: Pace, is_open: bool) -> None:
    gate.set(0, float(is_open), 0.0, 0.0)


def _window(rig: Rig, gate: Pace) -> tuple[Window, float]:
    """What the run did, and how many cores others took of it."""
    _open(gate, True)
    rig.window(SETTLE_S)
    before, ours = busy_s(), time.process_time()
    window = rig.window(WINDOW_S)
    ours = time.process_time() - ours + sum(window.cpu_s.values())
    others = (busy_s() - before - ours) / window.seconds
    _open(gate, False)
    rig.window(SETTLE_S)  # what is under way ends here
    return window, others if others > NOISE * len(os.sched_getaffinity(0)) else 0.0


def _check(rig: Rig, gate: Pace, alone: Alone, path: Path) -> None:
    """Raises ValueError if the run finds other things than the stages alone, frame by frame."""
    _open(gate, True)
    end = time.monotonic() + 120
    rows = [*rig.ledger.camera_index.values()]  # there is room for more cameras
    while (rig.ledger["processed"][rig.ledger.process_index["sink.first"], rows] < CHECKED).any():
        if time.monotonic() > end:
            raise TimeoutError(f"wanted {CHECKED} results of each camera within 120 s")
        time.sleep(0.1)
    _open(gate, False)
    cameras = rig.plan.cameras
    found = alone.found(CHECKED * len(cameras))
    wanted = {(one["camera"], one["frame_id"]): one for one in found}
    results = [json.loads(line) for line in path.read_text().splitlines()]
    pairs = [(one, wanted[one["camera"], one["frame_id"]]) for one in results]
    different = [pair for pair in pairs if not same(*pair)]
    if len(different) > MAX_DIFFERENT * len(results):
        raise ValueError(
            f"the run finds other things than its stages alone in {len(different)} of {len(results)} "
            f"frames, the first: {different[0][0]}, alone: {different[0][1]}"
        )


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two `as_dict` hold the same detections, up to the rounding of another batch."""
    if sorted(a["labels"]) != sorted(b["labels"]):
        return False

    def rows(found: dict[str, Any]) -> np.ndarray[Any, Any]:
        boxes = np.array(found["xyxy"], float).reshape(-1, 4)
        cells = np.column_stack([found["labels"], boxes, found["scores"]])
        return cells[np.lexsort(cells.T[::-1].round(1))]

    return bool(np.allclose(rows(a), rows(b), rtol=0, atol=0.1))


@dataclass(frozen=True, kw_only=True)
class GatedConfig(AvConfig):
    """And where the gate is."""

    gate: str


class GatedFile(AvSource):
    """A file that is not read while the gate is closed."""

    Config = GatedConfig  # type: ignore[assignment]  # with more in it
    config: GatedConfig

    def setup(self) -> None:
        """Find the gate."""
        self._gate = Pace(self.config.gate, 1)

    def read(self, buffer: np.ndarray[Any, Any]) -> Picture | None:
        """As a file does; None while the gate is closed."""
        if not self._gate.get(0)[1]:
            time.sleep(0.02)
            return None
        return super().read(buffer)


@dataclass(frozen=True, kw_only=True)
class FirstConfig:
    """Where to write."""

    path: str


class First(Sink):
    """Writes the first CHECKED results of each camera, one a line, and forgets all others."""

    Config = FirstConfig
    config: FirstConfig

    def setup(self) -> None:
        """Make the file."""
        self._file = Path(self.config.path).open("w", buffering=1)  # noqa: SIM115

    def process(self, result: Result) -> None:
        """One line, or nothing."""
        if result.info.frame_id < CHECKED:
            self._file.write(json.dumps(as_dict(result)) + "\n")


if __name__ == "__main__":
    main()
