"""A run that tells what happens, while those who follow, judge, keep and tell are killed, the broker is
away and a webhook fails half of the time: what became of each happening.

    python tests/alarms_killed.py [--times 20] [--away-s 60] [--frames 6000] [FOLDER]

does that at full size, and prints it beside a run that nobody disturbs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import patterns
from alarming import alarms, mqtt, until, webhook
from broker import Broker, Listener
from receiver import Receiver
from seeing import all_seeing

from pipeline.plan import config
from pipeline.plan.standard import make
from pipeline.supervision.supervisor import Options, Supervisor
from stages.sinks.store import query

VICTIMS = ("track", "scene", "sink.store", "sink.alarms")
PLACE = """
[model]
engine = "stub"
[metrics]
enabled = false
[[camera]]
name = "gate"
source = "synthetic://?seed=1&size=320x180&rate=10&frames={frames}&realtime=false"
[[line]]
name = "middle"
camera = "gate"
points = [[0.5, 1], [0.5, 0]]
[[zone]]
name = "left"
camera = "gate"
polygon = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
max_objects = 1
loiter_s = 1
[[sink]]
type = "happenings"
path = "happenings.jsonl"
[[sink]]
type = "store"
path = "store.db"
[[alert]]
name = "visitor"
kinds = ["appeared", "gone", "entered", "left", "loitering", "crowded", "uncrowded", "crossed"]
cooldown_s = 0
to = ["ops", "home"]
[[target]]
name = "ops"
type = "webhook"
url = "{url}"
[[target]]
name = "home"
type = "mqtt"
url = "mqtt://127.0.0.1:{port}"
timeout_s = 2.0
"""


@dataclass
class Told:
    """What a run told: ids in their order, by who has them."""

    ids: dict[str, list[str]] = field(default_factory=dict)
    kinds: Counter = field(default_factory=Counter)  # what happened how often, in the store
    incidents: int = 0
    crossed: dict[str, int] = field(default_factory=dict)  # by the counters of the scene
    lost: int = 0  # results, by sinks
    errors: int = 0  # of the accounts
    kills: Counter = field(default_factory=Counter)
    away_s: float = 0.0
    refused: int = 0  # requests

    def what(self):
        """All that must be the same whoever was killed."""
        return self.kinds, self.incidents, self.crossed, self.lost, self.errors


class Trouble:
    """Kills one after the other when each is at work, and takes the broker away at the first kill."""

    def __init__(self, log, broker, times, away_s):
        self._log, self._broker, self._away_s = log, broker, away_s
        self._victims = list(VICTIMS) * times
        self._told, self._at, self._size = 0, 5, 0
        self._since_s = None
        self.kills, self.away_s = Counter(), 0.0

    def __call__(self, supervisor):
        """One turn of the supervisor."""
        self._read()
        if self._since_s is not None and time.monotonic() - self._since_s >= self._away_s:
            self.relent()
        if not self._victims or self._told < self._at:
            return
        child = supervisor.children[self._victims[0]]
        if child.state != "ready":
            return
        if not self.kills:
            self._broker.stop()
            self._since_s = time.monotonic()
        child.signal(signal.SIGKILL)
        self.kills[self._victims.pop(0)] += 1
        self._at = self._told + 2

    def relent(self):
        """The broker comes back, if it is away."""
        if self._since_s is not None:
            self.away_s = time.monotonic() - self._since_s
            self._since_s = None
            self._broker.start()

    def _read(self):
        if not self._log.exists() or self._log.stat().st_size == self._size:
            return
        data = self._log.read_bytes()
        self._size, self._told = len(data), data.count(b"\n")


def run(folder, *, frames, times, away_s=0.0):
    """One run in a new folder; times: that each of VICTIMS is killed."""
    folder.mkdir(parents=True)
    moods = random.Random(1)
    answers = (lambda n: moods.choice([204, 500, 204, "drop"])) if times else (lambda n: 204)
    broker_folder = folder / "broker"
    with (
        Receiver(answers) as receiver,
        Broker(broker_folder) as broker,
        Listener(broker.port, "manyeyes/alarms/#") as listener,
    ):
        text = PLACE.format(frames=frames, url=receiver.url, port=broker.port)
        (folder / "run.toml").write_text(text)
        settings = config.load(folder / "run.toml", policy="every")
        trouble = Trouble(folder / "happenings.jsonl", broker, times, away_s)
        supervisor = Supervisor(all_seeing(make(settings)), Options(), trouble)
        supervisor.run()
        trouble.relent()
        # what was not delivered when the run ended, the next one delivers
        targets = [webhook(receiver.url), mqtt(broker, name="home")]
        stage = alarms(folder / "outbox.db", targets)
        until(stage, lambda: not +stage._waiting)
        sent = _sent(folder)
        until(stage, lambda: len(listener.ids()) >= len(sent["home"]))
        stage.close()
    told = Told(
        kills=trouble.kills, away_s=trouble.away_s, refused=receiver.asked - len(receiver.ids)
    )
    told.ids = {
        "sent to ops": sent["ops"], "ops": receiver.distinct(),
        "sent to home": sent["home"], "home": listener.ids(),
        "happenings": [f"{one['id']}:visitor" for one in _lines(folder / "happenings.jsonl")],
    }  # fmt: skip
    store = str(folder / "store.db")
    happenings = list(query.happenings(store, limit=1_000_000))
    told.ids["store"] = [f"{one['id']}:visitor" for one in happenings]
    told.kinds = Counter(
        (one["kind"], one.get("object"), one.get("place"), one.get("direction"))
        for one in happenings
    )
    told.incidents = len(list(query.incidents(store, limit=1_000_000)))
    names = (n for n in supervisor.plan.by_name["scene"].counters if n.startswith("crossed"))
    told.crossed = {name: supervisor.ledger.counted("scene", name, "gate") for name in names}
    told.lost = sum(totals.lost for totals in supervisor.sink_totals.values())
    told.errors = sum(totals.error for totals in supervisor.totals.values())
    return told


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def _sent(folder):
    """Ids in the outbox by target, in the order in which they came."""
    with closing(sqlite3.connect(folder / "outbox.db")) as outbox:
        rows = outbox.execute("SELECT target, id FROM message ORDER BY seq").fetchall()
    return {name: [one for target, one in rows if target == name] for name in ("ops", "home")}


def disagreements(told):
    """Sentences about what was lost, came twice or in another order; none: all is well."""
    known = set(told.ids["store"])
    for target in ("ops", "home"):
        if told.ids[target] != told.ids[f"sent to {target}"]:
            yield f"what {target} got is not what was sent to it"
        if set(told.ids[target]) != known:
            yield f"what {target} got is not what the store has"
    if set(told.ids["happenings"]) != known:
        yield "the file has not what the store has"
    for name, ids in told.ids.items():
        if name != "happenings" and len(set(ids)) != len(ids):
            yield f"{name} has something twice"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--away-s", type=float, default=60.0)
    parser.add_argument("--frames", type=int, default=6000)
    parser.add_argument("folder", type=Path, nargs="?")
    asked = parser.parse_args()
    os.environ["PYTHONPATH"] = patterns.PATH
    folder = asked.folder or Path(tempfile.mkdtemp())
    began_s = time.monotonic()
    quiet = run(folder / "quiet", frames=asked.frames, times=0)
    print(f"undisturbed: {quiet.kinds.total()} happenings, {quiet.incidents} incidents, "
          f"{time.monotonic() - began_s:.0f} s", flush=True)  # fmt: skip
    began_s = time.monotonic()
    told = run(folder / "killed", frames=asked.frames, times=asked.times, away_s=asked.away_s)
    print(f"killed {dict(told.kills)}, broker away {told.away_s:.0f} s, {told.refused} requests refused: "
          f"{told.kinds.total()} happenings, {told.incidents} incidents, "
          f"{time.monotonic() - began_s:.0f} s")  # fmt: skip
    for name, ids in told.ids.items():
        print(f"  {name}: {len(ids)} ids, {len(set(ids))} of them different")
    wrong = list(disagreements(told))
    if told.what() != quiet.what():
        wrong.append(f"not what the undisturbed run told: {told.what()} / {quiet.what()}")
    if told.kills.total() != len(VICTIMS) * asked.times:
        wrong.append("the run was over before all were killed; ask for more --frames")
    print("\n".join(wrong) or "nothing lost, nothing twice, all in order")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
