"""What does a camera that joins or leaves cost a run that goes on? Figure n.

    python -m benchmarks.joining [--pairs 7] [--cycles 20] [--json FILE]

Eight rendered cameras of 5 fps with the demo model. A ninth joins and leaves in every other window: its
first result is waited for, and the latency of the other eight, from capture to result, is compared with
that of the quiet windows around it. Then seven of the eight leave and come back, again and again, and the
memory of all processes is read each time.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.many import configuration, running, until_ready
from benchmarks.rig.measure import MIN_PAIRS, Figure, Machine, Target, median, ratio, report
from pipeline.supervision.asking import ask

CAMERAS, RATE_HZ = 8, 5.0
WINDOW_S = 6.0
WARM_UP_S = 5.0
PATIENCE_S = 60.0
POLL_S = 0.002
LATE = "late"


class Arrivals(threading.Thread):
    """Reads the events as they are written: when, of which camera, how long after its capture."""

    def __init__(self, events: Path) -> None:
        super().__init__(daemon=True)
        self.seen: list[tuple[float, str, float]] = []  # monotonic s, camera, latency in s
        self._events = events

    def run(self) -> None:
        """For as long as the program lives."""
        begun = ""
        with self._events.open() as lines:
            while True:
                begun += lines.readline()
                if not begun.endswith("\n"):
                    time.sleep(POLL_S)
                    continue
                event, begun = json.loads(begun), ""
                captured = datetime.fromisoformat(event["time"])
                latency = datetime.now(UTC) - captured
                self.seen.append((time.monotonic(), event["camera"], latency.total_seconds()))

    def p99_s(self, begun: float, ended: float) -> float:
        """Of the eight, within this time."""
        found = [s for at, camera, s in self.seen if begun <= at < ended and camera != LATE]
        return float(np.quantile(found, 0.99))


@dataclass(frozen=True, slots=True)
class Running:
    """A run of eight cameras, as its user sees it."""

    pid: int
    folder: Path
    arrivals: Arrivals

    def ask(self, **question: object) -> None:
        """`manyeyes ctl`, without the start of an interpreter."""
        ask(self.pid, question, patience_s=PATIENCE_S)

    def first_result_s(self) -> float:
        """Let the ninth camera join, and wait for its first event."""
        begun, before = time.monotonic(), len(self.arrivals.seen)
        table = {"name": LATE, "source": f"synthetic://?seed=99&rate={RATE_HZ}"}
        self.ask(do="add", cameras=[table], folder=str(self.folder))
        while time.monotonic() - begun < PATIENCE_S:
            for at, camera, _ in self.arrivals.seen[before:]:
                if camera == LATE and at > begun:
                    return at - begun
            time.sleep(POLL_S)
        raise TimeoutError(f"no result of the new camera within {PATIENCE_S:.0f} s")

    def processes(self) -> list[int]:
        """Ids of all of them, when all those of the eight cameras are ready, and no other is left."""
        begun = time.monotonic()
        while time.monotonic() - begun < PATIENCE_S:
            stages = ask(self.pid, {"do": "status"}, patience_s=PATIENCE_S)["stages"]
            captures = sum(name.startswith("capture.") for name in stages)
            if captures == CAMERAS and all(s["state"] == "ready" for s in stages.values()):
                return [self.pid, *(stage["pid"] for stage in stages.values())]
            time.sleep(POLL_S)
        raise TimeoutError(f"not at rest within {PATIENCE_S:.0f} s")

    def memory_mib(self) -> float:
        """The proportional shares of all its processes together.

        Of those that stay: one that is still on its way out is a tenth of all.
        """
        texts = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.processes())
        return sum(int(re.findall(r"^Pss: +(\d+) kB", text, re.M)[0]) for text in texts) / 1024


@contextmanager
def eight(folder: Path) -> Iterator[Running]:
    """The run, ready and warm."""
    config = folder / "eight.toml"
    config.write_text(configuration(CAMERAS, RATE_HZ))
    (folder / "one.toml").write_text(configuration(1, RATE_HZ))
    begun = time.monotonic()
    with running(config) as (process, address):
        until_ready(process, address, begun)
        arrivals = Arrivals(folder / "events.jsonl")
        arrivals.start()
        time.sleep(WARM_UP_S)
        yield Running(process.pid, folder, arrivals)


def joins(run: Running, pairs: int) -> list[Figure]:
    """A ninth camera, in every other window."""
    first_s: list[float] = []
    quiet: list[float] = []
    joined: list[float] = []
    for _ in range(pairs):
        for seen, late in ((quiet, False), (joined, True)):
            begun = time.monotonic()
            if late:
                first_s.append(run.first_result_s())
            time.sleep(max(0.0, begun + WINDOW_S - time.monotonic()))
            seen.append(run.arrivals.p99_s(begun, begun + WINDOW_S))
            if late:
                run.ask(do="remove", camera=LATE)
                time.sleep(1.0)
    p99 = f"{np.median(joined) * 1e3:.0f} : {np.median(quiet) * 1e3:.0f} ms"
    what = "p99 latency of eight cameras while a ninth joins / while none does"
    return [
        median(
            "n", "first result after a camera was added (s)", first_s, Target(sign="≤", limit=2)
        ),
        ratio("n", what, joined, quiet, Target(sign="≤", limit=1.2), detail=p99),
    ]


def comes_and_goes(run: Running, cycles: int) -> Figure:
    """Seven of eight leave and come back: memory of the second half against that of the first."""
    seen = []
    for _ in range(cycles):
        for name in ("one", "eight"):
            run.ask(do="apply", file=str(run.folder / f"{name}.toml"))
        run.first_result_s()  # those before it have theirs, or nearly
        run.ask(do="remove", camera=LATE)
        time.sleep(1.0)
        seen.append(run.memory_mib())
    half = len(seen) // 2
    early, late = seen[half - MIN_PAIRS : half], seen[-MIN_PAIRS:]
    detail = f"{np.median(early):.1f} → {np.median(late):.1f} MiB in {cycles} rounds"
    what = "memory of all processes after seven of eight cameras left and came back, late / early"
    return ratio("n", what, late, early, Target(sign="≤", limit=1.02), detail=detail)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=7, help="of windows")
    parser.add_argument(
        "--cycles", type=int, default=20, help="of leaving and coming back, from 10 on"
    )
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args()
    machine = Machine()
    with tempfile.TemporaryDirectory(prefix="manyeyes-bench-") as name, eight(Path(name)) as run:
        found = [*joins(run, options.pairs), comes_and_goes(run, max(10, options.cycles))]
    report("joining", found, machine, options.json)


if __name__ == "__main__":
    main()
