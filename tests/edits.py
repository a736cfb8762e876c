"""Random edits of a run while it goes on: cameras join, leave, change, are paused; stages get other
settings, come and go; so do sinks; processes are killed.

`play(folder, seed, edits)` runs a supervisor with pattern cameras in this process and returns it when it
has ended. The camera "steady" is in every plan, never paused and never killed.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import patterns
from patience import BOUND_S

from pipeline.supervision.child import Child
from pipeline.supervision.supervisor import Options, Supervisor

NAMES = ("a", "b", "c", "d", "e")
SPARE = 4  # so that rows are used again
SET = ("postprocess", "render", "sink.results", "sink.frames")  # what gets other settings
RATES_HZ = (10.0, 20.0, 40.0)


class Player:
    """A tick for the supervisor."""

    def __init__(self, folder: Path, seed: int, edits: int, policy: str, *, kills: bool) -> None:
        self.random = random.Random(seed)
        self.folder, self.edits, self.policy, self.kills = folder, edits, policy, kills
        self.rates = {"steady": 20.0, "a": 20.0}
        self.turns = dict.fromkeys(SET, 0)
        self.more: set[str] = set()
        self.between = False
        self.log: list[str] = []
        self.steady: set[Child | None] = set()  # who read it
        self._next = self._since = time.monotonic()

    def plan(self):
        return patterns.plan(
            self.folder, policy=self.policy, cameras=[*self.rates], rates_hz=self.rates.items(),
            spare=SPARE, turns=self.turns.items(), more=self.more, between=self.between,
        )  # fmt: skip

    def tick(self, run: Supervisor) -> None:
        now = time.monotonic()
        self.steady.add(run.children.get("capture.steady"))
        assert now - self._since < BOUND_S, f"it does not come to rest after {self.log}"
        if not run.live or now < self._next or run.stopping:
            return
        if self.edits:
            self.edits -= 1
            self._edit(run)
            self._since = now
            self._next = now + self.random.choice((0.0, 0.05, 0.3, 0.6))
        elif self._is_at_rest(run):
            run.stop()

    def _edit(self, run: Supervisor) -> None:
        kinds = ["join", "leave", "change", "pause", "all", "set", "sink", "sink", "stage"]
        kinds += ["kill"] * 3 * self.kills
        kind = self.random.choice(kinds)
        others = [name for name in self.rates if name != "steady"]
        new = [name for name in NAMES if name not in self.rates]
        what = ""
        if kind == "kill":
            living = [c for c in run.children.values() if c.pid and c.name != "capture.steady"]
            child = self.random.choice(living)
            what = child.name
            os.kill(child.pid, signal.SIGKILL)
        elif kind == "join" and new and len(self.rates) < SPARE + 2:
            what = self.random.choice(new)
            self.rates[what] = self.random.choice(RATES_HZ)
        elif kind == "leave" and others:
            what = self.random.choice(others)
            del self.rates[what]
        elif kind == "change" and others:
            what = self.random.choice(others)
            self.rates[what] = self.random.choice(RATES_HZ)
        elif kind == "pause" and others:
            what = self.random.choice(others)
            run.pause(what, paused=what not in run.paused)
        elif kind == "set":
            what = self.random.choice(SET)
            self.turns[what] += 1
        elif kind == "sink":
            what = self.random.choice([*patterns.MORE])
            self.more ^= {what}
        elif kind == "stage":
            self.between = not self.between
        elif kind == "all":
            names = self.random.sample(NAMES, self.random.randint(0, SPARE))
            self.rates = {"steady": 20.0} | {n: self.random.choice(RATES_HZ) for n in names}
        self.log.append(f"{kind} {what}")
        run.apply(self.plan())

    def _is_at_rest(self, run: Supervisor) -> bool:
        """Everything that was asked for has happened, and every camera that left is settled."""
        rows = run.accounts.layout.room[0] - run.accounts.rows_left
        return (
            run.changes.settled
            and rows == len(run.plan.cameras)
            and run.accounts.layout.sinks.keys() == {"sink.results", "sink.frames"} | self.more
            and all(child.state == "ready" for child in run.children.values())
            and run.totals["steady", "detect"].delivered > 0
        )


def play(folder: Path, seed: int, edits: int, policy: str, *, kills: bool) -> Supervisor:
    player = Player(folder, seed, edits, policy, kills=kills)
    run = Supervisor(player.plan(), Options(to_bgr=None), player.tick)
    run.log, run.steady = player.log, player.steady
    run.run()
    return run
