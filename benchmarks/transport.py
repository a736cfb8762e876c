"""What does a hop of a frame cost? Figures a1 to a4.

    python -m benchmarks.transport [--seconds 120] [--json FILE]

One hop is the way of a 1080p BGR frame from a camera's process to a sink's process, both as they are in
a run: from the moment that its pixels lie in a slot to the call of the sink's `process`, with the reader
thread, the descriptor, ZeroMQ, the checks of the generation, the ledger and the acknowledgement. Writing
the pixels into the slot is not part of it (a decoder does that), nor is reading them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.hops import Hop, Ours, Sample
from benchmarks.peers.transport import Peers
from benchmarks.rig.measure import MIN_PAIRS, Figure, Target, command, interleaved, ratio

PACED_HZ = 30.0
PACED_FRAMES = 30
BACK_TO_BACK = {
    "fast": 4000,
    "imagezmq": 60,
    "queue": 20,
    "shm": 150,
    "in place": 2000,
}  # frames: about 0.3 s each

Samples = dict[str, list[Sample]]
Show = Callable[[Sequence[float]], str]


def figures(seconds: float) -> list[Figure]:
    """Measure all of them in one run."""
    with tempfile.TemporaryDirectory(prefix="manyeyes-bench-") as name:
        folder = Path(name)
        runs: list[Ours | Peers] = []
        try:
            for start in (Peers, partial(Ours, "newest"), partial(Ours, "every")):
                runs.append(start(folder))
                for hop in runs[-1].hops.values():
                    hop.check()
            hops = {name: hop for run in runs for name, hop in run.hops.items()}
            samples = _measure(hops, seconds)
        finally:
            for run in runs:
                run.close()
    return _figures(samples)


def _measure(hops: dict[str, Hop], seconds: float) -> Samples:
    contenders: dict[str, Callable[[], Sample]] = {}
    for name in ("hd", "memcpy", "uhd", "small", "fan"):
        contenders[name] = partial(hops[name].run, PACED_FRAMES, PACED_HZ)
    for name, frames in BACK_TO_BACK.items():
        if name in hops:
            contenders[f"{name} back"] = partial(hops[name].run, frames, 0.0)
    contenders["memcpy back"] = partial(hops["memcpy"].run, 600, 0.0)
    start = time.monotonic()
    interleaved(0, contenders)
    round_s = time.monotonic() - start
    rounds = max(MIN_PAIRS, int(seconds / round_s) - 1)
    return interleaved(rounds, contenders, progress="transport")


def _figures(samples: Samples) -> list[Figure]:
    def latency(name: str) -> list[float]:
        return [sample.latency_s for sample in samples[name]]

    def cpu(name: str, readers: int = 1) -> list[float]:
        return [sample.cpu_s / readers for sample in samples[name]]

    def fps(name: str) -> list[float]:
        return [sample.fps for sample in samples[name]]

    one = Target(sign="≤", limit=1)
    flat = Target(sign="≤", limit=1.1)
    quarter = Target(sign="≤", limit=0.25)
    rows: list[tuple[str, str, list[float], list[float], Target | None, Show]] = [
        ("a1", "latency / memcpy, 30 fps", latency("hd"), latency("memcpy"), one, _ms),
        ("a1", "latency 4K / 360p, 30 fps", latency("uhd"), latency("small"), flat, _ms),
        ("a1", "CPU 4K / 360p, 30 fps", cpu("uhd"), cpu("small"), flat, _ms),
        ("a2", "CPU / memcpy, back to back", cpu("fast back"), cpu("memcpy back"), quarter, _ms),
        ("a2", "CPU / memcpy, 30 fps", cpu("hd"), cpu("memcpy"), None, _ms),
    ]
    peers: tuple[tuple[str, float | None], ...] = (
        ("imagezmq", 10.0),
        ("queue", 30.0),
        ("shm", 1.0),
        ("in place", None),
    )
    for name, limit in peers:
        if f"{name} back" not in samples:
            print(f"{name} is not installed: pip install 'manyeyes[dev]'; its figure is left out")
            continue
        what = f"fps / {TITLES[name]}, back to back"
        target = Target(sign="≥", limit=limit) if limit else None
        rows.append(("a3", what, fps("fast back"), fps(f"{name} back"), target, _fps))
    fan = Target(sign="≤", limit=1.15)
    rows += [
        ("a4", "CPU per delivery, 4 readers / 1", cpu("fan", 4), cpu("hd"), fan, _ms),
        ("a4", "latency, 4 readers / 1", latency("fan"), latency("hd"), None, _ms),
    ]
    return [
        ratio(id, what, a, b, target, detail=f"{show(a)} : {show(b)}")
        for id, what, a, b, target, show in rows
    ]


TITLES = {
    "imagezmq": "imagezmq (ipc)",
    "queue": "mp.Queue",
    "shm": "shared_memory + Queue",
    "in place": "the same without the copy",
}


def _ms(values: Sequence[float]) -> str:
    return f"{np.median(values) * 1e3:.3f} ms"


def _fps(values: Sequence[float]) -> str:
    return f"{np.median(values):.0f} fps"


if __name__ == "__main__":
    command("transport", __doc__, figures, 120)
