"""Do many cameras start, share and stop? Figure m.

    python -m benchmarks.many [--cameras 200] [--seconds 60] [--json FILE]
    python -m benchmarks.many --cameras 40 --rate-hz 2 --model street.bundle

Rendered cameras of 1 fps with the demo model, or another, on the cores that there are. Times are those of
the machine, so CPU seconds of all processes stand beside them: they tell what a start costs where the
cores are busy.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.rig.measure import ROOT, Figure, Machine, Target, median, report
from benchmarks.rig.shares import jain

SECONDS = 60
LOST_S = 300.0  # a start that took longer has failed
_METRICS = "metrics on http://"


def figures(
    cameras: int, rate_hz: float, seconds: float, model: Path | None = None
) -> list[Figure]:
    """Start a run, wait until results of every camera arrive, watch it for `seconds`, stop it."""
    with tempfile.TemporaryDirectory(prefix="manyeyes-bench-") as name:
        events = Path(name) / "events.jsonl"
        config = Path(name) / "many.toml"
        config.write_text(configuration(cameras, rate_hz, model))
        begun = time.monotonic()
        with running(config) as (process, address):
            ready_s = until_ready(process, address, begun)
            started_s = cpu_s(process.pid)
            before = events.stat().st_size
            time.sleep(seconds)
            steady = (cpu_s(process.pid) - started_s) / seconds
            after = events.stat().st_size
            stopped = time.monotonic()
            process.send_signal(signal.SIGINT)
            process.wait()
            stop_s = time.monotonic() - stopped
        served = counts(events.read_bytes()[before:after], cameras)
    fair = jain(served, nobody=0.0)
    who = f"{cameras} cameras of {rate_hz:g} fps"
    detail = f"{sum(served)} results in {seconds:g} s, {min(served)} to {max(served)} a camera"
    return [
        median("m", f"{who}: ready (s)", [ready_s], Target(sign="≤", limit=60)),
        median("m", f"{who}: CPU until then (s)", [started_s]),
        median("m", f"{who}: CPU from then on (cores)", [steady]),
        median("m", f"{who}: Jain index", [fair], Target(sign="≥", limit=0.99), detail=detail),
        median("m", f"{who}: stopped (s)", [stop_s], Target(sign="≤", limit=5)),
    ]  # fmt: skip


def configuration(cameras: int, rate_hz: float, model: Path | None = None) -> str:
    """As a user would write it; the events lie beside it."""
    rows = [
        f'[[camera]]\nname = "c{i}"\nsource = "synthetic://?seed={i}&rate={rate_hz}"\n'
        for i in range(cameras)
    ]
    sink = '[[sink]]\ntype = "events"\npath = "events.jsonl"\n'
    named = f"[model]\npath = {json.dumps(str(model.resolve()))}\n" if model else ""
    return "\n".join(["[metrics]\nport = 0\n", named, *rows, sink])


@contextmanager
def running(config: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`manyeyes run`, and where its metrics are."""
    command = [sys.executable, "-m", "pipeline", "run", str(config)]
    output = config.with_suffix(".out")
    with (
        output.open("w") as stdout,
        subprocess.Popen(command, cwd=ROOT, stdout=stdout, text=True) as process,
    ):
        try:
            while _METRICS not in output.read_text():
                if process.poll() is not None:
                    raise RuntimeError("the run ended before it began; see above")
                time.sleep(0.05)
            address = output.read_text().partition(_METRICS)[2].partition("/metrics")[0]
            yield process, f"http://{address}"
        finally:
            process.send_signal(signal.SIGINT)


def until_ready(process: subprocess.Popen[str], address: str, begun: float) -> float:
    """Wait for results of every camera; returns how long after `begun`, monotonic, they were all there."""
    while (seconds := time.monotonic() - begun) < LOST_S:
        if process.poll() is not None:
            raise RuntimeError("the run ended before it was ready; see above")
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=10):
                return seconds
        except (urllib.error.URLError, TimeoutError):  # 503 until results of every camera arrive
            time.sleep(0.2)
    raise TimeoutError(f"not ready within {LOST_S:.0f} s")


def cpu_s(pid: int) -> float:
    """Of a process and its living children, so far."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ticks = 0
    for one in (str(pid), *children):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def counts(lines: bytes, cameras: int) -> list[int]:
    """Results of each camera, also of those that have none."""
    whole = lines.splitlines()[1:-1]  # the first and the last may be parts
    served = Counter(json.loads(line)["camera"] for line in whole)
    return [served[f"c{i}"] for i in range(cameras)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cameras", type=int, default=200)
    parser.add_argument("--rate-hz", type=float, default=1.0, help="of each of them")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="watched once it is ready")
    parser.add_argument("--model", type=Path, help="a bundle; without it the demo model")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args()
    machine = Machine()
    found = figures(options.cameras, options.rate_hz, options.seconds, options.model)
    report("many", found, machine, options.json)


if __name__ == "__main__":
    main()
