"""Does every camera get its share, and what does one more cost? Figures d1 to d3.

    python -m benchmarks.fairness [--seconds 180] [--json FILE]

The engine is the stub with a declared service time α + β·b for a batch of b, during which it sleeps: a
model that computed would take the cores from 64 cameras, and what is asked here is how the runtime
shares one engine, and what the runtime itself costs. Everything else is a run as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from threading import Timer

import numpy as np

from benchmarks.rig.measure import Figure, Target, command, median, ratio
from benchmarks.rig.runs import Rig, cameras, changed
from benchmarks.rig.shares import jain

SECONDS = 210  # about how long all of it takes with the windows below, the starts included
COUNTS = (1, 4, 16, 64)  # cameras
WINDOWS = 5  # of each run
WARM_UP_S = 2.0
SETTLE_S = 1.0  # after a camera came back

# d1: no host should be busier than 240 frames a second make it, whatever the number of cameras
SERVED_HZ = {1: 15.0, 4: 15.0, 16: 7.5, 64: 1.875}  # by the number of cameras
SERVED_FRAMES = 12  # of a camera in a window: 12 or 13 are unfair by nature, but only to 0.9985
MAX_BATCH = 8
ALPHA_SHARE = 0.25  # of the service time of a full batch

# d2: eight as usual, a slow one, one that stops half way
MIXED_HZ = {**{f"cam{i}": 30.0 for i in range(8)}, "cam8": 5.0, "cam9": 30.0}
SLOW, STOPS = "cam8", "cam9"
MIXED_S = 4.0  # a window
MIXED_MS = {"stub_alpha_ms": 2.0, "stub_beta_ms": 1.0}  # 800 frames a second in batches of 8

# d3: the host has nothing else to do, so that nothing waits and nothing is dropped
COST_COUNTS = (1, 16, 64)
COST_HZ = 2.0
COST_S = 3.0
COST_MS = {"stub_alpha_ms": 1.0, "stub_beta_ms": 1.0}

FAIR = Target(sign="≥", limit=0.99)
OVERLOADED = 1.8  # offered / served; below it nobody had to share, and the index is not judged
LINEAR = Target(sign="≤", limit=1.1)


def figures(seconds: float) -> list[Figure]:
    """Measure all of them."""
    pace = seconds / SECONDS
    return [
        *(shared(n, pace * max(2.0, SERVED_FRAMES / SERVED_HZ[n])) for n in COUNTS),
        mixed(pace * MIXED_S),
        *costs(pace * COST_S),
    ]


# -- pure ------------------------------------------------------------------------------------------


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """How much y grows with x, by least squares; two or more different x.

    >>> round(slope([1, 2, 3], [10, 12, 14]), 9)
    2.0
    """
    dx, dy = np.asarray(x, float) - np.mean(x), np.asarray(y, float) - np.mean(y)
    return float((dx @ dy) / (dx @ dx))


# -- the runs --------------------------------------------------------------------------------------


def shared(n: int, window_s: float) -> Figure:
    """d1: n cameras of the same rate, together twice what the engine can serve; the worst window."""
    batch = min(MAX_BATCH, n)
    batch_ms = 1e3 * batch / (n * SERVED_HZ[n])
    alpha_ms = ALPHA_SHARE * batch_ms
    with _run(n, 3 * SERVED_HZ[n], alpha_ms, (batch_ms - alpha_ms) / batch) as rig:
        rig.window(WARM_UP_S)
        capacity_hz = rig.window(window_s).fps / n
        rig.pace(2 * capacity_hz)
        rig.window(WARM_UP_S)
        windows = [rig.window(window_s) for _ in range(WINDOWS)]
    offered, got = _sum(w.offered for w in windows), _sum(w.served for w in windows)
    seconds = sum(w.seconds for w in windows)
    return median(
        "d1",
        f"Jain index of served rates, {n} camera{'s' * (n > 1)}, worst window",
        [jain(list(w.served.values())) for w in windows],
        FAIR if offered >= OVERLOADED * got else None,
        q=0.0,
        detail=f"{got / seconds:.1f} of {offered / seconds:.1f} fps, {offered / got:.2f} × served",
    )


def mixed(window_s: float) -> Figure:
    """d2: eight cameras as usual, a slow one and one that stops half way, an engine for all."""
    with _run(len(MIXED_HZ), MIXED_HZ[STOPS], **MIXED_MS) as rig:
        rig.pace(MIXED_HZ[SLOW], SLOW)
        rig.window(WARM_UP_S)
        windows = []
        for _ in range(WINDOWS):
            rig.pace(MIXED_HZ[STOPS], STOPS)
            rig.window(SETTLE_S)
            stop = Timer(window_s / 2, rig.pace, (0.0, STOPS))
            stop.start()
            windows.append(rig.window(window_s))
            stop.join()
    got = [_sum([w.served]) for w in windows]
    # what was decided meanwhile; what is in flight at both ends would blur the share
    known = [n + _sum(w.dropped.values()) for n, w in zip(got, windows, strict=True)]
    slow, lost = sum(w.served[SLOW] for w in windows), _sum(w.dropped[SLOW] for w in windows)
    return ratio(
        "d2",
        "served / offered, 5 fps and a stopping one among eight at 30 fps",
        got,
        known,
        FAIR,
        detail=f"{sum(got)} : {sum(known)} frames, of the slow one {slow} : {slow + lost}",
    )


def costs(window_s: float) -> list[Figure]:
    """d3: CPU and memory of runs of 1, 16 and 64 cameras that deliver COST_HZ each."""
    cores: dict[int, list[float]] = {}
    mib: dict[int, list[float]] = {}
    for n in COST_COUNTS:
        with _run(n, COST_HZ, **COST_MS) as rig:
            rig.window(WARM_UP_S)
            windows = [rig.window(window_s) for _ in range(WINDOWS)]
        cores[n] = [sum(w.cpu_s.values()) / w.seconds for w in windows]
        mib[n] = [sum(w.pss_bytes.values()) / 2**20 for w in windows]
    return [
        figure
        for what, values, unit, scale in (
            ("CPU", cores, "% of a core", 100),
            ("memory", mib, "MiB", 1),
        )
        for figure in linear(what, values, unit, scale)
    ]


def linear(what: str, values: dict[int, list[float]], unit: str, scale: float) -> list[Figure]:
    """Each added camera against the first, and the last ones against those that came earlier."""
    rounds = list(zip(*values.values(), strict=True))
    each = [slope(COST_COUNTS, row) for row in rounds]
    first = [row[0] for row in rounds]
    early = [slope(COST_COUNTS[:2], row[:2]) for row in rounds]
    late = [slope(COST_COUNTS[1:], row[1:]) for row in rounds]

    def show(a: Sequence[float], b: Sequence[float]) -> str:
        return f"{scale * np.median(a):.3g} : {scale * np.median(b):.3g} {unit}"

    low, middle, high = COST_COUNTS
    return [
        ratio("d3", f"{what} of an added camera / of a run of one", each, first, LINEAR,
              detail=show(each, first)),
        ratio("d3", f"{what} of an added camera, {middle} to {high} / {low} to {middle}", late, early,
              LINEAR, detail=show(late, early)),
    ]  # fmt: skip


def _run(n: int, rate_hz: float, stub_alpha_ms: float, stub_beta_ms: float) -> Rig:
    """n Replay cameras before one stub engine."""
    model = {"engine": "stub", "workers": 1, "max_batch": min(MAX_BATCH, n)}
    stub = {"stub_alpha_ms": stub_alpha_ms, "stub_beta_ms": stub_beta_ms}
    return Rig(
        cameras(n, rate_hz, model=model), edit=lambda plan: changed(plan, "inference", **stub)
    )


def _sum(counts: Iterable[Mapping[str, int]]) -> int:
    return sum(sum(part.values()) for part in counts)


if __name__ == "__main__":
    command("fairness", __doc__, figures, SECONDS)
