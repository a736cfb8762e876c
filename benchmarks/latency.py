"""How late is what we say? Figures c1, c2 and c3.

    python -m benchmarks.latency [--seconds 90] [--long] [--json FILE]

Four cameras send rendered 640x360 stills from memory to the demo model, policy `newest`, one worker, as
schedule.py assumes. Their rates are shares of the capacity, the frames a second that the same run serves
at twice its load.

c1, at half load, the cameras evenly spread, so that no frame finds another in its way: the median latency
   from capture to result, against Σ of the median times that preprocess, inference and postprocess have a
   frame in hand. What is more is hops.
c2 and c3: the rates differ at random by up to 2 %, so that phases drift past each other and every
   arrangement comes by, the one where all cameras deliver at once, too.
c2, at 90 % load: the p99 from the batcher's mailbox to the engine's output, against 2(α + βn), the bound
   that schedule.py states for n cameras. α and β are fitted to the p99 of the service times of each
   size of batch.
c3, at twice the load: the p99 age of a frame at the engine's output, against T + 2S, S = α + βn and T a
   camera's period; and whether it grows from the first half of the run to the second.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rig.measure import MIN_PAIRS, Figure, Machine, Target, ratio, report
from benchmarks.rig.runs import Rig, Window, cameras

CAMERAS = 4
SPREAD = 0.02  # by which the rate of a camera may lie above or below the mean
FIRST_HZ = 60.0  # of each camera, until the capacity is known
HALF, NINETY, TWICE = 0.5, 0.9, 2.0  # loads
HALF_S, NINETY_S, TWICE_S, SETTLE_S = 4.0, 7.0, 3.0, 1.0
C3_S, C3_LONG_S = 30.0, 60.0
C1_SLICES, C3_SLICES = 4, 20  # of a window; each has its medians, and what drifts is in both sides
MIN_BATCHES = 100  # of one size, for a p99 that is not the largest of them
P99 = 0.99
Array = np.ndarray[Any, Any]


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=90, help="about how long c1 and c2 take")
    parser.add_argument("--long", action="store_true", help="c3 for 60 s, and not 30")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args()
    machine = Machine()
    rows = figures(options.seconds, C3_LONG_S if options.long else C3_S)
    report("latency-long" if options.long else "latency", rows, machine, options.json)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The frames of one window at one load."""

    load: float
    window: Window
    rows: Array  # probes.ROW, of the frames whose engine output lies in the window


def figures(
    seconds: float,
    c3_s: float,
    *,
    model: dict[str, Any] | None = None,
    first_hz: float = FIRST_HZ,
) -> list[Figure]:
    """c1 and c2 in turns, then c3 in one piece. model: as in `rig.cameras`."""
    round_s = HALF_S + NINETY_S + TWICE_S + 3 * SETTLE_S
    one = {"workers": 1, "threads": 1, **(model or {})}
    with Rig(cameras(CAMERAS, first_hz, model=one), probes=True) as rig:
        rig.window(2 * SETTLE_S)
        capacity = rig.window(TWICE_S).fps
        rng = np.random.default_rng(0)
        parts: list[Part] = []
        for _ in range(max(MIN_PAIRS, round(seconds / round_s))):
            for load, part_s in ((HALF, HALF_S), (NINETY, NINETY_S), (TWICE, TWICE_S)):
                parts.append(_measured(rig, load * capacity, part_s, load, rng))
            capacity = parts[-1].window.fps
        long = _measured(rig, TWICE * capacity, c3_s, TWICE, rng)
    return [*_c1([p for p in parts if p.load == HALF]), *_c2(parts), *_c3(long, parts)]


def _measured(
    rig: Rig, rate_hz: float, seconds: float, load: float, rng: np.random.Generator
) -> Part:
    """rate_hz: of all cameras together."""
    rig.pace(rate_hz / CAMERAS)
    if load != HALF:
        shares = rng.uniform(1 - SPREAD, 1 + SPREAD, CAMERAS)
        for camera, share in zip(rig.plan.cameras, shares / shares.mean(), strict=True):
            rig.pace(rate_hz / CAMERAS * share, camera)
    rig.window(SETTLE_S)
    window = rig.window(seconds)
    rig.window(SETTLE_S / 4)  # for what left the engine at its end to become a result
    rows = rig.frames()
    inside = (rows["t_out_ns"] >= window.begun_ns) & (rows["t_out_ns"] < window.ended_ns)
    return Part(load=load, window=window, rows=rows[inside])


# -- the figures -----------------------------------------------------------------------------------


def _sizes(rows: Array) -> str:
    sizes, _ = batches([rows])
    return f"batches of {sizes.mean():.1f}"


def _c1(halves: Sequence[Part]) -> list[Figure]:
    slices = [rows for part in halves for rows in _slices(part, C1_SLICES)]
    latency = [_median(rows, "t_capture_ns", "t_result_ns") for rows in slices]
    stages = [{name: _median(rows, *ends) for name, ends in STAGES.items()} for rows in slices]
    hops = {
        name: np.median([_median(rows, *ends) for rows in slices]) for name, ends in HOPS.items()
    }
    work = [sum(times.values()) for times in stages]
    means = ", ".join(f"{n} {np.median([s[n] for s in stages]) * 1e3:.2f}" for n in STAGES)
    return [
        ratio(
            "c1", "p50 capture → result / Σ stages, 50 % load", latency, work,
            Target(sign="≤", limit=1.15),
            detail=f"{_ms(latency)} : {_ms(work)} ({means}; "
            f"{', '.join(f'{name} {s * 1e3:.2f}' for name, s in hops.items())}; "
            f"{_sizes(np.concatenate([p.rows for p in halves]))})",
        )
    ]  # fmt: skip


def _c2(parts: Sequence[Part]) -> list[Figure]:
    alpha, beta = fit(*batches([p.rows for p in parts if p.load != HALF]))
    bound = 2 * (alpha + beta * CAMERAS)
    waits = [
        float(np.quantile(between(p.rows, "t_in_ns", "t_out_ns"), P99))
        for p in parts
        if p.load == NINETY
    ]
    return [
        ratio(
            "c2", "p99 mailbox → output / 2(α + βn), 90 % load", waits, [bound] * len(waits),
            Target(sign="≤", limit=1),
            detail=f"{_ms(waits)} : {bound * 1e3:.2f} ms (α {alpha * 1e3:.2f}, β {beta * 1e3:.2f} ms)",
        )
    ]  # fmt: skip


def _c3(long: Part, parts: Sequence[Part]) -> list[Figure]:
    alpha, beta = fit(*batches([p.rows for p in parts if p.load != HALF] + [long.rows]))
    period_s = CAMERAS * long.window.seconds / sum(long.window.offered.values())
    bound = period_s + 2 * (alpha + beta * CAMERAS)
    slices = _slices(long, C3_SLICES)
    ages = [float(np.quantile(between(rows, "t_capture_ns", "t_out_ns"), P99)) for rows in slices]
    half = C3_SLICES // 2
    usual = [_median(rows, "t_capture_ns", "t_out_ns") for rows in slices]
    span = f"{long.window.seconds:.0f} s"
    return [
        ratio(
            "c3", f"p99 age at the output / (T + 2S), 200 % load, {span}", ages, [bound] * C3_SLICES,
            Target(sign="≤", limit=1),
            detail=f"{_ms(ages)} : {bound * 1e3:.2f} ms (T {period_s * 1e3:.2f} ms)",
        ),
        ratio(
            "c3", f"median age, second half / first half, {span}", usual[half:], usual[:half],
            Target(sign="≤", limit=1.1), detail=f"{_ms(usual[half:])} : {_ms(usual[:half])}",
        ),
    ]  # fmt: skip


STAGES = {
    "preprocess": ("t_preprocess_ns", "t_in_ns"),
    "inference": ("t_engine_ns", "t_out_ns"),
    "postprocess": ("t_postprocess_ns", "t_result_ns"),
}
HOPS = {
    "to preprocess": ("t_capture_ns", "t_preprocess_ns"),
    "to inference": ("t_in_ns", "t_engine_ns"),
    "to postprocess": ("t_out_ns", "t_postprocess_ns"),
}


def between(rows: Array, start: str, end: str) -> Array:
    """Seconds from one time of each frame to another."""
    seconds: Array = (rows[end] - rows[start]) / 1e9
    return seconds


def batches(parts: Sequence[Array]) -> tuple[Array, Array]:
    """Sizes and service times, in seconds, of all batches in rows of `probes.ROW`.

    Frames of one batch have the times of the engine's call and of its return in common.
    """
    sizes, seconds = [], []
    for rows in parts:
        starts, first, counts = np.unique(
            rows["t_engine_ns"], return_index=True, return_counts=True
        )
        sizes.append(counts)
        seconds.append((rows["t_out_ns"][first] - starts) / 1e9)
    return np.concatenate(sizes), np.concatenate(seconds)


def fit(sizes: Array, seconds: Array, *, q: float = P99) -> tuple[float, float]:
    """α and β in seconds, so that α + βb is the q-quantile of the service time of a batch of b.

    The line through the quantiles of each size with at least MIN_BATCHES batches, each size as heavy
    as the square root of its number says, since a quantile's error falls with that. Raises ValueError
    if no size has so many; where one alone has, β is 0.
    """
    known = [int(b) for b in np.unique(sizes) if (sizes == b).sum() >= MIN_BATCHES]
    if not known:
        raise ValueError(f"wanted {MIN_BATCHES} batches of one size, got {len(sizes)} of all sizes")
    quantiles = [float(np.quantile(seconds[sizes == b], q)) for b in known]
    if len(known) == 1:
        return quantiles[0], 0.0
    weights = [float(np.sqrt((sizes == b).sum())) for b in known]
    beta, alpha = np.polyfit(known, quantiles, 1, w=weights)
    return float(alpha), float(beta)


def _slices(part: Part, n: int) -> list[Array]:
    """Its rows cut into n pieces of the same time."""
    edges = np.linspace(part.window.begun_ns, part.window.ended_ns, n + 1)
    piece = np.searchsorted(edges, part.rows["t_out_ns"], side="right") - 1
    return [part.rows[piece == i] for i in range(n)]


def _median(rows: Array, start: str, end: str) -> float:
    return float(np.median(between(rows, start, end)))


def _ms(values: Sequence[float]) -> str:
    return f"{np.median(values) * 1e3:.2f} ms"


if __name__ == "__main__":
    main()
