"""How many cameras does this machine take? The search, its trials, and what limits them; no process here.

A trial runs n cameras and says how late and how many frames came through. n passes if p99 from capture
to result is within the limit and enough frames were served. `find` doubles n until it fails, bisects,
and then confirms the answer, and that one camera more is too many, over a longer time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

SERVED = 0.99  # of all frames that a passing number of cameras has served
TIMES = 2  # that an answer has to pass
SLOWER = 1.05  # times what cores usually took: whoever fails then is tried again
AGAIN = 2  # times at most
OTHERS = 0.05  # of all cores: from there on it is worth a word that other programs were at work
FULL = 0.85  # of a core or of all cores: from there on there is no reserve for what comes unevenly


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What n cameras saw in one window of time."""

    cameras: int
    seconds: float  # of the window; the start and the warm-up are before it
    p50_ms: float  # capture → result; nan: not one frame came through
    p99_ms: float
    served: float  # frames served / (served + lost), 0..1
    fps: float  # frames served a second, all cameras together
    cores: float  # CPU seconds a second of all processes
    cpu_ms: dict[str, float] = field(default_factory=dict)  # per frame served, by stage
    busy: dict[str, float] = field(default_factory=dict)  # 0..1, by stage: its busiest process
    others: float = 0.0  # cores that other programs took
    core_ms: float = 0.0  # of a core for a fixed piece of work, in the slowest second; see pulse.py
    memory_bytes: int = 0  # proportional, of all processes
    failure: str = ""  # why it did not run at all

    def passes(self, p99_ms: float) -> bool:
        """Whether the answer is yes."""
        return not self.failure and self.p99_ms <= p99_ms and self.served >= SERVED

    def why(self, p99_ms: float) -> str:
        """What it failed by; empty if it passes."""
        if self.failure:
            return self.failure
        if math.isnan(self.p99_ms):
            return "no frame was served"
        late = f"p99 {self.p99_ms:.0f} ms" if self.p99_ms > p99_ms else ""
        lost = f"{self.served:.1%} served" if self.served < SERVED else ""
        return ", ".join(filter(None, (late, lost)))

    def to_json(self, p99_ms: float) -> dict[str, Any]:
        """For the certificate; what is not a number is null."""
        row = {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in asdict(self).items()
        }
        return {**row, "passed": self.passes(p99_ms), "why": self.why(p99_ms)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The answer: `cameras` passed over the whole time, one more failed (or there were no more to try)."""

    cameras: int
    trials: tuple[Trial, ...]  # in the order in which they ran
    confirmed: Trial | None  # of `cameras`; None: not even one camera passed
    failed: Trial | None  # of cameras + 1; None: `most` passed


def find(
    trial: Callable[[int, float], Trial], *, p99_ms: float, short_s: float, full_s: float, most: int
) -> Found:
    """Double, bisect, confirm. trial(n, seconds) runs n cameras.

    p99 and share of a short window may err to both sides, so the answer of the search only says where
    to begin: from there down to a number that passes over `full_s`, then up while one more does. It has to
    pass TIMES times, each in a run of its own: at the edge one run in two passes, and whoever tries the
    answer again wants to see it hold. A trial that failed while the cores were slower than they usually are
    on this host, if only for a second, says little about the number, and is made again: one second in a
    minute is more than the hundredth of all frames that may be late.
    """
    trials: list[Trial] = []
    known: dict[tuple[int, bool], Trial] = {}

    def tried(n: int, seconds: float) -> Trial:
        for _ in range(1 + AGAIN):
            trials.append(trial(n, seconds))
            usual_ms = median(one.core_ms for one in trials)
            if trials[-1].passes(p99_ms) or trials[-1].core_ms <= SLOWER * usual_ms:
                break
        return trials[-1]

    def passes(n: int, *, confirm: bool) -> bool:
        if (n, confirm) not in known:
            for _ in range(TIMES if confirm else 1):
                known[n, confirm] = tried(n, full_s if confirm else short_s)
                if not known[n, confirm].passes(p99_ms):
                    break
        return known[n, confirm].passes(p99_ms)

    low, high = 0, 1
    while high <= most and passes(high, confirm=False):
        low, high = high, min(2 * high, most) if high < most else most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if passes(middle, confirm=False) else (low, middle)
    while low > 0 and not passes(low, confirm=True):
        low -= 1
    while low < most and passes(low + 1, confirm=True):
        low += 1
    return Found(
        cameras=low,
        trials=tuple(trials),
        confirmed=known.get((low, True)),
        failed=known.get((low + 1, True)),
    )


def limiting(trial: Trial, cores: int, p99_ms: float) -> tuple[str, str]:
    """The resource that a trial which failed had too little of: a name, and a sentence for people."""
    if trial.failure:
        name = "memory" if "memory" in trial.failure else "stability"
        return name, f"{name}: it does not run: {trial.failure}"
    total_ms = sum(trial.cpu_ms.values())
    shares = {name: ms / total_ms for name, ms in trial.cpu_ms.items()} if total_ms else {}
    if trial.cores + trial.others >= FULL * cores:
        top = sorted(shares, key=shares.__getitem__, reverse=True)[:3]
        parts = ", ".join(f"{name} {shares[name]:.0%}" for name in top)
        others = (
            f"; other programs took {trial.others:.1f}" if trial.others > OTHERS * cores else ""
        )
        return (
            "host CPU",
            f"the CPU: {trial.cores:.1f} of {cores} cores are busy, and they work for {parts}{others}",
        )
    name = max(trial.busy, key=trial.busy.__getitem__, default="")
    if name and trial.busy[name] >= FULL:
        return (
            name,
            f"{name}: one of its processes is busy {trial.busy[name]:.0%} of the time, while "
            f"{cores - trial.cores - trial.others:.1f} of {cores} cores are idle{_hint(name)}",
        )
    if trial.served < SERVED and not trial.p99_ms > p99_ms:
        return (
            "losses",
            f"frames are lost ({trial.served:.1%} served) although no process and no core is always busy",
        )
    return (
        "latency",
        f"the way of a single frame: nothing is used up ({trial.cores:.1f} of {cores} cores busy), but "
        f"frames that arrive together wait for each other's batches, and p99 is {trial.p99_ms:.0f} ms",
    )


def _hint(name: str) -> str:
    keys = {"inference": "[model] workers", "preprocess": "[preprocess] workers"}
    return f"; more {keys[name]} may help" if name in keys else ""
