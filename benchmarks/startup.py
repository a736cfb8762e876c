"""What does a run cost before and between its frames? Figure g.

    python -m benchmarks.startup [--seconds 90] [--json FILE]

The clock of a start runs from the moment that `manyeyes run` is called, in a fresh interpreter, until
the first line with a detection is in its file of events: one rendered camera, the demo model. Idle runs
are those of Replay cameras that deliver one frame a second; CPU is that of all their processes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.rig.measure import ROOT, Figure, Target, command, interleaved, median
from benchmarks.rig.runs import Rig, Window, cameras

SECONDS = 90  # about how long all of it takes with what follows
STARTS = 5
WARM_UP_S, WINDOW_S, WINDOWS = 3.0, 3.0, 5
IDLE_HZ = 1.0
LOST_S = 60.0  # a start that took longer has failed
SOURCE = "synthetic://?seed=1&size=640x360&rate=15"
IMPORT = "import time; t = time.perf_counter(); import torch; print(time.perf_counter() - t)"
MIB = 2**20


def figures(seconds: float) -> list[Figure]:
    """Measure all of them."""
    pace = seconds / SECONDS
    one, four = (idle(n, pace * WINDOW_S) for n in (1, 4))
    return [
        started(max(STARTS, round(pace * STARTS))),
        _idle("1 camera", one, Target(sign="≤", limit=3)),
        _idle("4 cameras", four, None),
        _memory("1 camera", one),
        _memory("4 cameras", four),
    ]


# -- from nothing to a detection -------------------------------------------------------------------


def started(tries: int) -> Figure:
    """Start to first detection beyond `import torch`, in turns."""
    seconds = interleaved(
        tries, {"start": first_detection_s, "import": import_torch_s}, progress="startup"
    )
    start, torch = np.array(seconds["start"]), np.array(seconds["import"])
    return median(
        "g",
        "start to first detection − import torch (s)",
        start - torch,
        Target(sign="≤", limit=3),
        detail=f"{np.median(start):.2f} − {np.median(torch):.2f} s",
    )


def first_detection_s() -> float:
    """`manyeyes run` until a detection is on disk. Raises TimeoutError, RuntimeError."""
    with tempfile.TemporaryDirectory(prefix="manyeyes-bench-") as folder:
        events = Path(folder) / "events.jsonl"
        command = [sys.executable, "-m", "pipeline", "run", SOURCE, "--events", str(events)]
        begun = time.monotonic()
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
            try:
                while not has_detection(events):
                    if process.poll() is not None:
                        raise RuntimeError("the run ended before its first detection; see above")
                    if time.monotonic() - begun > LOST_S:
                        raise TimeoutError(f"no detection within {LOST_S:.0f} s")
                    time.sleep(0.005)
                return time.monotonic() - begun
            finally:
                process.send_signal(signal.SIGINT)


def has_detection(events: Path) -> bool:
    """Whether a whole line of a file of events has one; False while there is no file."""
    if not events.exists():
        return False
    lines = events.read_text().split("\n")[:-1]  # what follows the last line's end is not whole
    return any(json.loads(line)["detections"] for line in lines)


def import_torch_s() -> float:
    """In a fresh interpreter, its own start left out."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], stdout=subprocess.PIPE, text=True, check=True,
        env=environment,
    )  # fmt: skip
    return float(done.stdout)


# -- between frames --------------------------------------------------------------------------------


def idle(n: int, window_s: float) -> list[Window]:
    """A run of n cameras with the demo model that have next to nothing to say."""
    with Rig(cameras(n, IDLE_HZ)) as rig:
        rig.window(WARM_UP_S)
        return [rig.window(window_s) for _ in range(WINDOWS)]


def _idle(who: str, windows: list[Window], target: Target | None) -> Figure:
    shares = [100 * sum(w.cpu_s.values()) / w.seconds for w in windows]
    seconds = sum(w.seconds for w in windows)
    parts = by_stage([{k: 100 * v / seconds for k, v in w.cpu_s.items()} for w in windows])
    what = f"CPU of a run of {who} at 1 fps (% of a core)"
    return median("g", what, shares, target, detail=_text(parts, "{:.2f}"))


def _memory(who: str, windows: list[Window]) -> Figure:
    totals = [sum(w.pss_bytes.values()) / MIB for w in windows]
    parts = by_stage([{k: v / MIB for k, v in windows[-1].pss_bytes.items()}])
    return median("g", f"memory of a run of {who} (MiB)", totals, detail=_text(parts, "{:.0f}"))


def by_stage(parts: list[Mapping[str, float]]) -> dict[str, float]:
    """Summed over all, and over the processes of a stage; the largest first."""
    sums: dict[str, float] = defaultdict(float)
    for part in parts:
        for name, value in part.items():
            sums[name.split(".")[0]] += value
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def _text(parts: dict[str, float], form: str) -> str:
    return ", ".join(f"{name} {form.format(value)}" for name, value in parts.items())


if __name__ == "__main__":
    command("startup", __doc__, figures, SECONDS)
