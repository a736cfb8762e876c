"""Does a run stay as it is for hours, while its processes are killed? Nothing grows, nothing is lost twice.

    python -m benchmarks.soak [--seconds 1800] [--kill-every 20] [--seed 7] [--json FILE]

Four rendered cameras faster than the model, with events, videos and snapshots; every 20 seconds one
process, drawn by a seeded generator, is killed with SIGKILL. Once a second memory of its own (anonymous:
what a leak would grow), descriptors and threads of every process are read. Of each half minute the median
counts: for a moment after a kill the others hold less, or both ends, and what leaks stays longer than that.
A slope is fitted to the medians over all lives of a process together, each after it has settled.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import tempfile
import time
from array import array
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from benchmarks.rig.measure import Figure, Machine, Target, report
from pipeline.plan import config as configuration
from pipeline.plan.standard import make
from pipeline.supervision.supervisor import Options, Supervisor

SOURCES = [f"synthetic://?seed={seed}&size=640x360&rate=25" for seed in (1, 2, 3, 4)]
LOOK_S = 1.0
SETTLED_S = 30.0  # of a life: caches fill, allocators reach their level
WINDOW_S = 30.0  # of which most is calm: a kill is over in a second or two
SUPERVISOR = "supervisor"
COLUMNS = 4  # of a look: age in seconds, bytes, descriptors, threads
LEVEL = {  # what may change in an hour without being a leak
    "memory": ("MiB / h", 12.0),  # 3 kB a second: allocators that find their level
    "descriptors": ("1 / h", 1.0),
    "threads": ("1 / h", 1.0),
}


class Soak:
    """A supervisor's tick: looks at all processes, and kills one now and then."""

    def __init__(self, kill_every_s: float, seed: int) -> None:
        # by (process, pid), look behind look; packed, since they are kept by one that is looked at
        self.lives: dict[tuple[str, int], array[float]] = defaultdict(lambda: array("d"))
        self.kills: Counter[str] = Counter()
        self._every_s, self._random = kill_every_s, random.Random(seed)
        self._look_at = self._kill_at = self._born = 0.0

    def tick(self, supervisor: Supervisor) -> None:
        """To be called by the supervisor."""
        now = time.monotonic()
        if not supervisor.live or supervisor.stopping or now < self._look_at:
            return
        if not self._born:
            self._born, self._kill_at = now, now + self._every_s
        self._look_at = now + LOOK_S
        self.lives[SUPERVISOR, os.getpid()].extend((now - self._born, *_held(os.getpid())))
        for child in supervisor.children.values():
            if child.state == "ready" and child.pid is not None:
                try:
                    self.lives[child.name, child.pid].extend(
                        (child.lived_s(now), *_held(child.pid))
                    )
                except OSError:  # it dies at this moment
                    continue
        if now >= self._kill_at:
            self._kill_at += self._every_s
            name = self._random.choice(sorted(supervisor.children))
            self.kills[name] += 1
            supervisor.children[name].signal(signal.SIGKILL)

    def slopes(self, what: str) -> list[tuple[str, float, float, int]]:
        """(process, growth an hour, its standard error, windows) of all that lived long enough."""
        column = 1 + list(LEVEL).index(what)
        rows: dict[str, list[np.ndarray]] = defaultdict(list)
        for (name, _), looks in self.lives.items():
            table = np.array(looks).reshape(-1, COLUMNS)
            levels = _levels(table[table[:, 0] >= SETTLED_S][:, (0, column)])
            if len(levels) > 1:
                rows[name].append(levels - levels.mean(axis=0))
        found = []
        for name, lives in sorted(rows.items()):
            age_h, value = np.concatenate(lives).T / [[3600], [1]]
            if (free := len(age_h) - len(lives) - 1) <= 0:  # a level for each life, and the slope
                continue
            slope = age_h @ value / (age_h @ age_h)
            rest = value - slope * age_h
            error = np.sqrt(rest @ rest / free / (age_h @ age_h))
            found.append((name, float(slope), float(error), len(age_h)))
        return found


def _levels(looks: np.ndarray) -> np.ndarray:
    """Of (N, 2) ages and values the median of each whole window: (windows, 2), its end and the value."""
    window = looks[:, 0] // WINDOW_S
    return np.array(
        [
            ((number + 1) * WINDOW_S, np.median(looks[window == number, 1]))
            for number in np.unique(window)
            if (window == number).sum() * LOOK_S > 0.8 * WINDOW_S
        ]
    ).reshape(-1, 2)


def _held(pid: int) -> tuple[int, int, int]:
    """Bytes that belong to a process alone, descriptors, threads."""
    proc = Path(f"/proc/{pid}")
    rows = (line.split() for line in (proc / "smaps_rollup").read_text().splitlines()[1:])
    return (
        next(int(row[1]) for row in rows if row[0] == "Anonymous:") * 1024,
        len(list((proc / "fd").iterdir())),
        len(list((proc / "task").iterdir())),
    )


def run(folder: Path, soak: Soak, seconds: float) -> Supervisor:
    """The whole run; events.jsonl, videos and snapshots are in `folder` afterwards."""
    config = configuration.from_sources(
        SOURCES, events=folder / "events.jsonl", video=folder / "video", seconds=seconds
    )
    snapshot = configuration.SinkConfig(type="snapshot", options={"path": str(folder / "shots")})
    config = config.model_copy(update={"sink": (*config.sink, snapshot)})
    supervisor = Supervisor(make(config), Options(seconds=seconds), soak.tick)
    supervisor.run()
    return supervisor


def figures(seconds: float, kill_every_s: float, seed: int) -> list[Figure]:
    """Run it and judge."""
    soak = Soak(kill_every_s, seed)
    with tempfile.TemporaryDirectory(prefix="manyeyes-soak-") as name:
        folder = Path(name)
        supervisor = run(folder, soak, seconds)
        lines = (folder / "events.jsonl").read_text().splitlines()
    accounts = {**supervisor.totals, **supervisor.sink_totals}
    errors = {f"{name} {way}": one.error for (name, way), one in accounts.items() if one.error}
    events = Counter((row["camera"], row["frame_id"]) for row in map(json.loads, lines))
    taken = sum(one.delivered for one in supervisor.accounts.of_sinks()["events"])
    kills = f"{sum(soak.kills.values())} kills: {dict(sorted(soak.kills.items()))}"
    served = f"{len(lines)} lines, {taken} taken"
    rows = [
        _count("ledger", "errors of all accounts", sum(errors.values()), f"{errors} {kills}"),
        _count("torn", "torn frames", int(supervisor.ledger["torn"].sum()), kills),
        _count("twice", "events that are there twice", len(lines) - len(events), served),
        _count("sum", "lines that no account knows", abs(len(lines) - taken), served),
    ]
    for what, (unit, limit) in LEVEL.items():
        scale = 2**20 if what == "memory" else 1
        for process, slope, error, looks in soak.slopes(what):
            low, high = slope - 2 * error, slope + 2 * error
            rows.append(
                Figure(
                    id=what, what=f"{process}, {unit}", value=slope / scale, low=low / scale,
                    high=high / scale, n=looks, target=Target(sign="≤", limit=limit),
                )
            )  # fmt: skip
    return rows


def _count(id: str, what: str, n: int, detail: str) -> Figure:
    none = Target(sign="≤", limit=0)
    return Figure(id=id, what=what, value=n, low=n, high=n, n=1, target=none, detail=detail)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1800, help="how long")
    parser.add_argument("--kill-every", type=float, default=20, help="seconds between two kills")
    parser.add_argument("--seed", type=int, default=7, help="of the order of kills")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args()
    logging.getLogger("manyeyes").setLevel(logging.ERROR)  # each death is meant
    machine = Machine()
    report(
        "soak", figures(options.seconds, options.kill_every, options.seed), machine, options.json
    )


if __name__ == "__main__":
    main()
