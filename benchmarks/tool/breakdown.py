"""Where the time goes: what each stage of a run takes, waits and costs, with intervals.

The run is started several times, and each looked at in many short windows. In each the ledger's sums give
the mean of a stage, exact to the microsecond; the figure is the median of all windows, so that what else
the machine did for a moment does not count. Its interval is a bootstrap over starts and windows, because
the phases of cameras, which differ from start to start, decide how often stages meet on a core.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.rig.measure import Figure, Machine, resampled_medians
from benchmarks.rig.pulse import Pulse
from benchmarks.rig.runs import Rig, Window
from benchmarks.tool.copies import clips_of, harmless, is_live
from benchmarks.tool.stage_times import Look, Spent, stage_of, windows
from pipeline.accounts.layout import DETECT
from pipeline.accounts.ledger import Ledger, quantile_s
from pipeline.errors import ConfigError
from pipeline.plan.config import Config
from pipeline.plan.graph import Plan, ProcessSpec

WARM_UP_S = 2.0
WINDOW_S = 0.5
MIN_WINDOWS = 5  # of all starts together
Looks = Sequence[Look]


def measure(config: Config, seconds: float, starts: int) -> dict[str, Any]:
    """Run it `starts` times, `seconds` altogether and a bit each; the document.

    Files begin again at their end, and nothing of the user's is written to. Raises ConfigError for what
    can't run, and if not one frame came through.
    """
    machine = Machine()
    count = max(-(-MIN_WINDOWS // starts), round(seconds / starts / WINDOW_S))
    runs: list[Looks] = []
    cores_ms: list[float] = []
    frames, total_s = 0, 0.0
    for _ in range(starts):
        with tempfile.TemporaryDirectory(prefix="manyeyes-stages-") as folder:
            with Rig(_endless(config, Path(folder))) as rig:
                rig.window(WARM_UP_S)
                before = _latency(rig.ledger)
                with Pulse() as pulse:
                    runs.append(windows(rig, seconds / starts, count))
                cores_ms.append(pulse.core_ms)
                served, served_s = (
                    b - a for a, b in zip(before, _latency(rig.ledger), strict=True)
                )
            plan = rig.plan
        frames, total_s = frames + int(served), total_s + served_s
    if not frames:
        raise ConfigError(
            f"bench stages: not one frame came through in {seconds:g} s; try `manyeyes run` with the "
            "same sources, or more --seconds"
        )
    looks = [look for run in runs for look in run]
    stages = list(looks[0].spent)
    cells = np.sum([look.window.latency for look in looks], axis=0)
    p50_s, p99_s = (quantile_s(cells, q) or 0.0 for q in (0.5, 0.99))
    return {
        "benchmark": "stages",
        "machine": machine.fingerprint(),
        "conditions": {
            **_conditions(config, plan, looks),
            "starts": starts,
            "core_ms": float(np.median(cores_ms)),
        },
        "latency": {
            "mean_ms": 1e3 * total_s / frames,
            "p50_ms": 1e3 * p50_s,
            "p99_ms": 1e3 * p99_s,
        },
        "stages": [_row(config, plan, name, looks) for name in stages],
        "figures": [row for name in stages for row in _figures(plan, name, runs)],
    }


def table(document: dict[str, Any]) -> Table:
    """A row a stage, for a terminal."""
    latency, conditions = document["latency"], document["conditions"]
    shown = Table(
        title=f"where the time goes: {conditions['fps']:.1f} frames/s served; capture → result: "
        f"p50 {latency['p50_ms']:.1f} ms, p99 {latency['p99_ms']:.1f} ms",
        title_justify="left", box=None, pad_edge=False, header_style="bold",
    )  # fmt: skip
    columns = (
        "processes",
        "waits ms",
        "works ms",
        "95 % interval",
        "batch",
        "CPU ms/frame",
        "busy",
        "KiB",
    )
    for name in ("stage", *columns):
        shown.add_column(name, justify="left" if name == "stage" else "right")
    intervals = {
        row["stage"]: row for row in document["figures"] if row["id"].startswith("service")
    }
    for row in document["stages"]:
        figure = intervals.get(row["stage"])
        says = row["calls"] > 0
        shown.add_row(
            row["stage"], str(row["processes"]),
            f"{row['wait_ms']:.2f}" if says else "–",
            f"{row['service_ms']:.2f}" if says else "–",
            f"{figure['low']:.2f} – {figure['high']:.2f}" if figure and row["batch"] == 1 else "",
            f"{row['batch']:.1f}" if row["batch"] > 1 else "",
            f"{row['cpu_ms']:.2f}", f"{row['busiest']:.0%}",
            f"{row['slot_bytes'] / 1024:.0f}" if row["slot_bytes"] else "",
        )  # fmt: skip
    total_ms = sum(row["cpu_ms"] for row in document["stages"])
    shown.add_row("all", "", "", "", "", "", f"{total_ms:.2f}", "", "", style="bold")
    return shown


LEGEND = (
    "waits: from ready before it to its call; works: one call, of a batch where there is one; CPU: of all "
    "its processes per frame served; busy: its busiest process; KiB: shared memory that a result takes"
)


def _endless(config: Config, folder: Path) -> Config:
    cameras = tuple(
        camera
        if is_live(camera.source) or str(camera.source).startswith("synthetic://")
        else camera.with_options(loop=True)
        for camera in config.camera
    )
    run = config.run.model_copy(update={"seconds": None, "directory": None})
    sinks = harmless(config.sink, folder)
    return config.model_copy(update={"camera": cameras, "run": run, "sink": sinks})


def _latency(ledger: Ledger) -> tuple[int, float]:
    """Frames served so far, and the sum of their latencies in seconds."""
    return int(ledger["latency_seconds"].sum()), float(ledger["latency_seconds_sum"].sum())


def _conditions(config: Config, plan: Plan, looks: Looks) -> dict[str, Any]:
    seconds = sum(look.window.seconds for look in looks)
    return {
        "sources": [str(camera.run or camera.source) for camera in config.camera],
        "policy": plan.policy,
        "model": str(config.model.path),
        "engine": config.model.engine,
        "seconds": seconds,
        "windows": len(looks),
        "fps": sum(sum(look.window.served.values()) for look in looks) / seconds,
        "others_cores": float(np.median([look.others for look in looks])),
        "notes": list(plan.notes),
    }


def _specs(plan: Plan, stage: str) -> list[ProcessSpec]:
    return [spec for spec in plan.processes if stage_of(spec.name) == stage]


def _row(config: Config, plan: Plan, stage: str, looks: Looks) -> dict[str, Any]:
    """Means over everything that was seen."""
    parts = [look.spent[stage] for look in looks]
    calls, waits = sum(part.calls for part in parts), sum(part.waits for part in parts)
    served = max(1, sum(sum(look.window.served.values()) for look in looks))
    specs = _specs(plan, stage)
    return {
        "stage": stage,
        "processes": parts[0].processes,
        "on_the_way": any(s.role in ("stage", "batch") and DETECT in s.paths for s in specs),
        "calls": calls,
        "batch": waits / calls if calls and specs[0].role == "batch" else 1.0,
        "service_ms": 1e3 * sum(part.service_s for part in parts) / max(1, calls),
        "wait_ms": 1e3 * sum(part.wait_s for part in parts) / max(1, waits),
        "cpu_ms": 1e3 * sum(part.cpu_s for part in parts) / served,
        "busiest": max(part.busiest for part in parts),
        "slot_bytes": _bytes(config, specs),
        "pss_bytes": parts[-1].pss_bytes,
    }


def _bytes(config: Config, specs: Sequence[ProcessSpec]) -> int:
    """Of one result in shared memory; of a live camera, which may send less, the room for it."""
    if not specs or specs[0].role != "source":
        return max((spec.slot_bytes for spec in specs), default=0)
    if any(is_live(camera.source) for camera in config.camera):
        return max(spec.slot_bytes for spec in specs)
    return max(clip.frame_bytes for clip in clips_of(config))


def _figures(plan: Plan, stage: str, runs: Sequence[Looks]) -> list[dict[str, Any]]:
    """Service and wait of one stage, where it says them, and its CPU time, with their samples."""
    is_batch = any(spec.role == "batch" for spec in _specs(plan, stage))
    per = (
        ("process_batch(), ms a frame", "waits") if is_batch else ("process(), ms a call", "calls")
    )
    kinds: list[tuple[str, str, str, Callable[[Window, Spent], tuple[float, float]]]] = [
        ("service", f"{stage}: {per[0]}", "lower", lambda _, s: (s.service_s, getattr(s, per[1]))),
        ("wait", f"{stage}: ms a frame waits for it", "", lambda _, s: (s.wait_s, s.waits)),
        ("cpu", f"{stage}: CPU ms a frame served", "lower",
         lambda window, s: (s.cpu_s, sum(window.served.values()))),
    ]  # fmt: skip
    rows = []
    for kind, what, better, of in kinds:
        samples = [
            [
                1e3 * sums[0] / sums[1]
                for look in looks
                if (sums := of(look.window, look.spent[stage]))[1]
            ]
            for looks in runs
        ]
        samples = [values for values in samples if values]
        flat = [value for values in samples for value in values]
        if len(flat) < MIN_WINDOWS:  # a source says no service time
            continue
        low, high = np.quantile(resampled_medians(samples), (0.025, 0.975))
        figure = Figure(
            id=f"{kind} {stage}", what=what, value=float(np.median(flat)), low=float(low),
            high=float(high), n=len(flat),
        )  # fmt: skip
        more = {"verdict": "report", "unit": "ms", "better": better, "stage": stage}
        rows.append({**asdict(figure), **more, "samples": samples})
    return rows
