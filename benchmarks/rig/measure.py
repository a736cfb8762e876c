"""What all benchmarks share: pairs taken in turns, their ratio with an interval, verdicts, the machine.

A figure is a ratio within one run. A and B are measured alternately, so that whatever else the machine
does hits both; the figure is the median of the ratios of the pairs, with a 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.rig import plots
from pipeline.errors import ConfigError

Verdict = Literal["met", "missed", "undecided", "report"]
Sample = TypeVar("Sample")

ROOT = Path(__file__).parents[2]
MIN_PAIRS = 5
_RESAMPLES = 4000
_LIBRARIES = (
    "numpy",
    "pyzmq",
    "msgpack",
    "av",
    "opencv-python",
    "torch",
    "onnxruntime",
    "imagezmq",
)
_STYLES = {"met": "green", "missed": "bold red", "undecided": "yellow", "report": "dim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a figure should be: at most or at least `limit`."""

    sign: Literal["≤", "≥"]
    limit: float

    def verdict(self, low: float, high: float) -> Verdict:
        """Of an interval: undecided if the limit lies inside it."""
        if self.sign == "≥":
            low, high, limit = -high, -low, -self.limit
        else:
            limit = self.limit
        if high <= limit:
            return "met"
        return "missed" if low > limit else "undecided"

    def __str__(self) -> str:
        return f"{self.sign} {self.limit:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of a table."""

    id: str
    what: str
    value: float
    low: float  # 95 % interval
    high: float
    n: int  # pairs, or tries
    target: Target | None = None
    detail: str = ""  # the absolute numbers behind it

    @property
    def verdict(self) -> Verdict:
        """Met, missed, undecided; report where there is no target."""
        return self.target.verdict(self.low, self.high) if self.target else "report"


def ratio(
    id: str,
    what: str,
    a: Sequence[float],
    b: Sequence[float],
    target: Target | None = None,
    *,
    detail: str = "",
) -> Figure:
    """The median of a[i] / b[i] with its bootstrap interval; at least MIN_PAIRS pairs."""
    if len(a) != len(b) or len(a) < MIN_PAIRS:
        raise ValueError(f"{id}: wanted at least {MIN_PAIRS} pairs, got {len(a)} and {len(b)}")
    return median(id, what, np.asarray(a, float) / np.asarray(b, float), target, detail=detail)


def median(
    id: str,
    what: str,
    values: Sequence[float] | np.ndarray[Any, Any],
    target: Target | None = None,
    *,
    q: float = 0.5,
    detail: str = "",
) -> Figure:
    """The median (or another quantile q) of values with its bootstrap interval."""
    cells = np.asarray(values, float)
    draws = np.random.default_rng(0).choice(cells, (_RESAMPLES, len(cells)))
    low, high = np.quantile(np.quantile(draws, q, axis=1), (0.025, 0.975))
    return Figure(
        id=id, what=what, value=float(np.quantile(cells, q)), low=float(low), high=float(high),
        n=len(cells), target=target, detail=detail,
    )  # fmt: skip


def resampled_medians(starts: Sequence[Sequence[float]], *, seed: int = 0) -> np.ndarray[Any, Any]:
    """Medians of bootstrap samples of values that come from several starts, each of at least one value.

    First starts are drawn, then values of each (Davison and Hinkley, Bootstrap Methods, 1997, 3.8): what
    differs from start to start, such as the phases of cameras, is not averaged away by many values.
    """
    rng = np.random.default_rng(seed)
    lengths = np.array([len(values) for values in starts])
    padded = np.zeros((len(starts), lengths.max()))
    for row, values in zip(padded, starts, strict=True):
        row[: len(values)] = values
    drawn = rng.integers(0, len(starts), (_RESAMPLES, len(starts)))
    shares = rng.random((_RESAMPLES, len(starts), lengths.max()))
    places = (shares * lengths[drawn][..., None]).astype(int)
    values = padded[drawn[..., None], places]
    medians: np.ndarray[Any, Any] = np.median(values.reshape(_RESAMPLES, -1), axis=1)
    return medians


def interleaved(
    rounds: int, contenders: Mapping[str, Callable[[], Sample]], *, progress: str = ""
) -> dict[str, list[Sample]]:
    """Each contender once a round, in alternating order; a first round warms up and is forgotten."""
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    for n in range(-1, rounds):
        for name in list(contenders)[:: 1 if n % 2 else -1]:
            sample = contenders[name]()
            if n >= 0:
                samples[name].append(sample)
        if progress and sys.stderr.isatty():
            print(f"\r{progress}: round {n + 1} of {rounds} ", end="", file=sys.stderr, flush=True)
    if progress and sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return samples


# -- the machine -----------------------------------------------------------------------------------


class Machine:
    """Its fingerprint; made before the run, asked after it, for the load and steal in between."""

    def __init__(self) -> None:
        self._before = _jiffies()
        self._load_before = os.getloadavg()[0]

    def fingerprint(self) -> dict[str, Any]:
        """What has to be alike for two runs to be compared, and how quiet the machine was."""
        spent = _jiffies() - self._before
        total = max(1, int(spent[:8].sum()))
        return {
            "cpu": _cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "mhz": _mhz(),
            "gpu": _gpu_name(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in _LIBRARIES},
            "load_before": round(self._load_before, 2),
            "load_after": round(os.getloadavg()[0], 2),
            "busy_share": round(1 - int(spent[3] + spent[4]) / total, 3),
            "steal_share": round(int(spent[7]) / total, 4),
            "commit": _output("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        }


def _jiffies() -> np.ndarray[Any, Any]:
    # user nice system idle iowait irq softirq steal guest guest_nice; proc(5)
    return np.array(Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:11], np.int64)


def busy_s() -> float:
    """CPU seconds that all cores together were not idle since the machine started, stolen ones too."""
    spent = _jiffies()
    return float(spent[:8].sum() - spent[3] - spent[4]) / os.sysconf("SC_CLK_TCK")


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _mhz() -> list[float]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return [round(float(x.partition(":")[2])) for x in lines if x.startswith("cpu MHz")]


def _gpu_name() -> str:
    return _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


# -- what is seen of it ----------------------------------------------------------------------------


def command(
    name: str, doc: str | None, figures: Callable[[float], list[Figure]], seconds: float
) -> None:
    """The command line of a benchmark that has no options of its own: measure and print.

    doc: of its module; seconds: about how long it takes if nothing else is asked for.
    """
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=seconds, help="about how long to measure")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args()
    machine = Machine()
    report(name, figures(options.seconds), machine, options.json)


def report(name: str, figures: Sequence[Figure], machine: Machine, json_file: Path | None) -> None:
    """Print the table, and write the JSON, with a plot beside it, if asked for."""
    facts = machine.fingerprint()
    table = Table(title=f"{name}: {facts['cpu']}, {facts['cores']} cores", title_justify="left")
    for column in ("", "figure", "value", "95 % interval", "target", "verdict", "n", "measured"):
        table.add_column(column, justify="right" if column in ("value", "n") else "left")
    for figure in figures:
        table.add_row(
            figure.id, figure.what, plots.shown(figure.value),
            f"{plots.shown(figure.low)} – {plots.shown(figure.high)}",
            str(figure.target or ""), f"[{_STYLES[figure.verdict]}]{figure.verdict}",
            str(figure.n), figure.detail,
        )  # fmt: skip
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)
    console.print(
        f"load {facts['load_before']} → {facts['load_after']}, {facts['busy_share']:.0%} busy, "
        f"{facts['steal_share']:.1%} stolen, {facts['commit']}, {facts['date']}",
        style="dim",
    )
    if json_file is not None:
        rows = [{**asdict(figure), "verdict": figure.verdict} for figure in figures]
        document = {"benchmark": name, "machine": facts, "figures": rows}
        json_file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        try:
            plots.write(document, json_file.with_suffix(".png"))
        except ConfigError as error:  # the figures are there; the picture may wait for matplotlib
            console.print(str(error), style="dim")
