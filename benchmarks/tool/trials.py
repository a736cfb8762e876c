"""Runs one trial of the search for capacity: n cameras under a Rig, in real time."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.rig.pulse import Pulse
from benchmarks.rig.runs import Rig
from benchmarks.tool.copies import Clip, copied, paced
from benchmarks.tool.search import Trial
from benchmarks.tool.stage_times import Look, windows
from pipeline.accounts.ledger import quantile_s
from pipeline.errors import ResourceError
from pipeline.plan.config import Config

WARM_UP_S = 2.0  # after all cameras deliver: queues fill, caches and clocks settle
TRIES = 2
NOT_LOST = ("none", "unwanted")  # above a camera's max_fps: it was asked for


def run(config: Config, clips: Sequence[Clip], n: int, seconds: float) -> Trial:
    """Start n cameras, warm up, look for `seconds`, stop.

    Too little memory for them is an answer, too, and so are processes that die of so many; but if one
    dies once, it may have been something else, and the trial is made again.
    """
    for _ in range(TRIES):
        try:
            return _run(config, clips, n, seconds)
        except ResourceError as error:
            return failed(n, seconds, str(error))
        except RuntimeError as error:
            why = str(error)
    return failed(n, seconds, why)


def _run(config: Config, clips: Sequence[Clip], n: int, seconds: float) -> Trial:
    with (
        tempfile.TemporaryDirectory(prefix="manyeyes-trial-") as folder,
        Rig(copied(config, clips, n, Path(folder)), edit=lambda plan: paced(plan, clips)) as rig,
    ):
        rig.window(WARM_UP_S)
        with Pulse() as pulse:
            (look,) = windows(rig, seconds, 1)
    rates_hz = [clips[i % len(clips)].rate_hz for i in range(n)]
    return replace(trial_of(look, rates_hz), core_ms=pulse.slowest_ms)


def failed(n: int, seconds: float, why: str) -> Trial:
    """A trial that did not run."""
    return Trial(
        cameras=n, seconds=seconds, p50_ms=math.nan, p99_ms=math.nan, served=0.0, fps=0.0, cores=0.0,
        failure=why,
    )  # fmt: skip


def trial_of(look: Look, rates_hz: Sequence[float]) -> Trial:
    """What a window says. rates_hz: of its cameras, in their order.

    Lost is what was dropped by a reason, and what a camera should have sent and did not get to: then
    its own process was late. One frame a camera may lie across the border of the window.
    """
    window = look.window
    served = sum(window.served.values())
    lost = sum(
        n
        for reasons in window.dropped.values()
        for reason, n in reasons.items()
        if reason not in NOT_LOST
    )
    for (_, offered), rate_hz in zip(window.offered.items(), rates_hz, strict=True):
        lost += max(0, math.floor(rate_hz * window.seconds) - 1 - offered)
    p50, p99 = (quantile_s(window.latency, q) for q in (0.5, 0.99))
    return Trial(
        cameras=len(window.served),
        seconds=window.seconds,
        p50_ms=math.nan if p50 is None else 1e3 * p50,
        p99_ms=math.nan if p99 is None else 1e3 * p99,
        served=served / (served + lost) if served else 0.0,
        fps=window.fps,
        cores=sum(window.cpu_s.values()) / window.seconds,
        cpu_ms={name: 1e3 * part.cpu_s / max(1, served) for name, part in look.spent.items()},
        busy={name: part.busiest for name, part in look.spent.items()},
        others=look.others,
        memory_bytes=sum(window.pss_bytes.values()),
    )
