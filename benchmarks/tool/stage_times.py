"""What each stage of a run spends, in windows of a Rig: from the ledger's exact sums, not its histograms.

Processes that do the same for other cameras, or as workers beside each other, are one stage:
capture.gate and capture.yard are `capture`, inference.0 and inference.1 are `inference`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from benchmarks.rig.measure import busy_s
from benchmarks.rig.runs import SUPERVISOR, Rig, Window
from pipeline.accounts.ledger import Ledger
from pipeline.plan.graph import Plan

_MANY = ("capture", "preprocess", "inference")


def stage_of(process: str) -> str:
    """The stage that a process belongs to."""
    first = process.split(".", maxsplit=1)[0]
    return first if first in _MANY else process


def stages_of(plan: Plan) -> list[str]:
    """All stages in the order of a frame's way; the supervisor last."""
    return [*dict.fromkeys(map(stage_of, plan.order())), SUPERVISOR]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a stage did in a window; sums over its processes."""

    processes: int
    calls: int  # of process() or process_batch(); 0: a source or the batcher, which do not say
    frames: int  # that it passed on
    service_s: float  # in these calls
    waits: int  # frames that waited for a call
    wait_s: float  # of all of them, from ready at their producer to the call
    cpu_s: float
    busiest: float  # 0..1: share of the window that its busiest process was busy
    pss_bytes: int


class Look(NamedTuple):
    """What was seen in a window."""

    window: Window
    spent: dict[str, Spent]  # by stage
    others: float  # cores that other programs took


def windows(rig: Rig, seconds: float, count: int) -> list[Look]:
    """`count` windows, one after the other, `seconds` altogether."""
    looks = []
    before = _sums(rig.ledger)
    for _ in range(count):
        busy_before_s, own_s = busy_s(), time.process_time()
        window = rig.window(seconds / count)
        after = _sums(rig.ledger)
        ours_s = sum(window.cpu_s.values()) + time.process_time() - own_s
        others = max(0.0, busy_s() - busy_before_s - ours_s) / window.seconds
        looks.append(Look(window, _spent(rig.plan, window, before, after), others))
        before = after
    return looks


Sums = dict[str, np.ndarray[Any, Any]]
_CELLS = ("stage_seconds", "wait_seconds", "stage_seconds_sum", "wait_seconds_sum", "processed")


def _sums(ledger: Ledger) -> Sums:
    return {name: np.array(ledger[name], np.float64) for name in _CELLS}


def _spent(plan: Plan, window: Window, before: Sums, after: Sums) -> dict[str, Spent]:
    change = {name: after[name] - before[name] for name in _CELLS}
    index = {process.name: i for i, process in enumerate(plan.processes)}

    def of(names: Iterable[str]) -> Spent:
        names = list(names)
        rows = [index[name] for name in names if name in index]
        service_s = change["stage_seconds_sum"][rows]
        cpu_s = np.array([window.cpu_s[name] for name in names])
        calls = change["stage_seconds"][rows].sum()
        busy = service_s if calls else cpu_s
        return Spent(
            processes=len(names),
            calls=int(calls),
            frames=int(change["processed"][rows].sum()),
            service_s=float(service_s.sum()),
            waits=int(change["wait_seconds"][rows].sum()),
            wait_s=float(change["wait_seconds_sum"][rows].sum()),
            cpu_s=float(cpu_s.sum()),
            busiest=float(busy.max(initial=0)) / window.seconds,
            pss_bytes=sum(window.pss_bytes.get(name, 0) for name in names),
        )

    by_stage: dict[str, list[str]] = {stage: [] for stage in stages_of(plan)}
    for name in (*index, SUPERVISOR):
        by_stage[stage_of(name)].append(name)
    return {stage: of(names) for stage, names in by_stage.items()}
