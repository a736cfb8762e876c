"""What stages count and measure themselves, as metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from pipeline.accounts.books import Accounts, Count
from pipeline.accounts.layout import EDGES_S
from pipeline.accounts.ledger import Ledger
from pipeline.plan.graph import Plan

_EDGES_SHOWN = slice(0, None, 3)  # a third of the ledger's cells: 4 a decade are enough for a graph

# Counters of stages that are metrics of their own: first part of the name → metric, help, other parts
_COUNTERS = {
    "detections": ("detections", "Detections by class", ("label",)),
    "crossed": ("crossings", "Crossings of lines", ("line", "direction", "label")),
    "entered": ("zone_entered", "Objects that entered a zone", ("zone",)),
    "left": ("zone_left", "Objects that left it; entered - left are inside", ("zone",)),
    "health": ("camera_health", "What happened to cameras: down, frozen, dark, …", ("kind",)),
    "alarm": ("alarms", "Happenings that an alert wants, by its verdict", ("alert", "verdict")),
}
_OF_NOW = ("entered", "left")  # of who is inside, which is begun anew with the camera
_FROM_0 = ("detections", "alarm")  # others of a name belong to one camera, and are shown there
# those of all cameras together, also of those that have left: an account has to add up
_TOTALS = {
    "delivery": (
        "alarm_deliveries",
        "Alarms for a target; queued - delivered - given up are waiting, failed are attempts",
        ("target", "outcome"),
    ),
}
_HISTOGRAMS = {
    "lateness": (
        "alarm_lateness_seconds",
        "From the picture to the answer of a target that has the alarm",
        ("target",),
    ),
}


def counted(plan: Plan, accounts: Accounts, risen: Callable[..., int]) -> Iterator[Metric]:
    """What stages count; risen: n and its key → the most that n has been.

    A metric of its own is the sum of all processes that count it: of several models, of one that took over,
    of one that it took over from.
    """
    families = {
        kind: CounterMetricFamily(f"manyeyes_{name}", text, labels=["camera", *labels])
        for kind, (name, text, labels) in _COUNTERS.items()
    }
    totals = {
        kind: CounterMetricFamily(f"manyeyes_{name}", text, labels=labels)
        for kind, (name, text, labels) in _TOTALS.items()
    }
    layout, sums = accounts.layout, Counter[tuple[str, ...]]()
    others = CounterMetricFamily(
        "manyeyes_stage_events", "What stages count", labels=["stage", "camera", "event"]
    )
    # a stage that is killed between counting and remembering counts anew: hence `risen`
    for (process, name, camera), n in _counts(plan, accounts).items():
        kind, *labels = name.split(":")
        if kind in families:
            sums[kind, camera, *labels] += n
        elif kind not in totals and process in plan.by_name:
            others.add_metric([process, camera, name], risen(n, process, camera, name))
    for (kind, camera, *labels), n in sums.items():
        life = ""
        if kind in _OF_NOW and (row := layout.cameras.get(camera)) is not None:
            life = str(accounts.ledger["began_at"][row])
        most = risen(n, "counted", life, kind, camera, *labels)
        if most or kind in _FROM_0:
            families[kind].add_metric([camera, *labels], most)
    for process, name in ((p, n) for p in plan.by_name for n in layout.counters.get(p, ())):
        kind, *labels = name.split(":")
        if kind in totals:
            n = risen(accounts.ledger.counted_in_all(process, name), process, "", name)
            totals[kind].add_metric(labels, n)
    known = (*families.values(), *totals.values())
    yield from (family for family in known if family.samples)
    yield others


def _counts(plan: Plan, accounts: Accounts) -> Counter[Count]:
    """By process, counter and camera; what is 0 only where a process has the camera."""
    before = (
        accounts.counted_before
    )  # first: who leaves meanwhile is rather missing than there twice
    counts = Counter({
        key: n for key, n in before.items() if key[1].partition(":")[0] not in _OF_NOW
    })  # fmt: skip
    for (process, name, camera), n in accounts.counted().items():
        if n or (process in plan.by_name and camera in plan.by_name[process].cameras):
            counts[process, name, camera] += n
    return counts


def measured(plan: Plan, ledger: Ledger) -> Iterator[Metric]:
    """Histograms."""
    families = {
        kind: HistogramMetricFamily(f"manyeyes_{name}", text, labels=list(labels))
        for kind, (name, text, labels) in _HISTOGRAMS.items()
    }
    others = HistogramMetricFamily(
        "manyeyes_stage_durations_seconds", "What stages measure", labels=["stage", "name"]
    )
    for spec in plan.processes:
        for name in spec.histograms:
            kind, *labels = name.split(":")
            known = kind in families
            family, labels = (families[kind], labels) if known else (others, [spec.name, name])
            add_histogram(family, labels, *ledger.histogram(spec.name, name))
    yield from (family for family in (*families.values(), others) if family.samples)


def add_histogram(
    family: HistogramMetricFamily, labels: list[str], cells: Any, total: float
) -> None:
    """cells: uint64 (len(EDGES_S) + 1,), how many durations were in each; total: their sum in seconds."""
    cumulative = np.cumsum(cells)
    shown = range(len(EDGES_S))[_EDGES_SHOWN]
    buckets = [(f"{EDGES_S[i]:.4g}", float(cumulative[i])) for i in shown]
    family.add_metric(labels, [*buckets, ("+Inf", float(cumulative[-1]))], total)
