"""Runs that follow objects, whose tracker and scene are killed."""

import json
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace

import patterns
import pytest

from pipeline.plan import config
from pipeline.plan.standard import make
from pipeline.supervision.supervisor import Options, Supervisor
from stages.sinks.store import query


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def ids_of(rows):
    return {found["track_id"] for row in rows for found in row["detections"]} - {None}


@pytest.fixture(autouse=True)
def _parts_on_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", patterns.PATH)


def all_seeing(plan):
    """The plan with a postprocess that finds exactly what is there, whatever the model says."""
    known = {"run": "parts:KnownBoxes", "config": {}, "counters": ()}
    processes = [replace(p, **known) if p.name == "postprocess" else p for p in plan.processes]
    return replace(plan, processes=tuple(processes))


def test_two_cameras_share_no_id_though_the_tracker_is_killed(tmp_path):
    """Two cameras, `every`; the tracker dies when it has given some ids."""
    events = tmp_path / "events.jsonl"
    sources = [
        f"synthetic://?seed={n}&size=320x180&rate=10&frames=150&realtime=false" for n in (1, 2)
    ]
    settings = config.from_sources(sources, events=events, policy="every", track=True)
    before = []

    def kill_once(supervisor):
        if not before and len(ids_of(lines(events))) >= 4:
            before.extend(lines(events))
            supervisor.children["track"].signal(signal.SIGKILL)

    model = settings.model.model_copy(update={"engine": "stub"})
    plan = all_seeing(make(settings.model_copy(update={"model": model})))
    supervisor = Supervisor(plan, Options(), kill_once)
    supervisor.run()
    assert supervisor.children["track"].restarts.count == 1
    rows = lines(events)
    by_camera = [ids_of([r for r in rows if r["camera"] == camera]) for camera in ("cam0", "cam1")]
    assert not by_camera[0] & by_camera[1]
    for row in rows:
        assert all(found["track_id"] != -1 for found in row["detections"])
    given = sum(supervisor.ledger.counted("track", "tracks", c) for c in ("cam0", "cam1"))
    assert given == len(by_camera[0] | by_camera[1])
    assert all(totals.error == 0 for totals in supervisor.totals.values())


def test_a_result_that_a_newer_one_overtook_is_accounted_for(tmp_path):
    """Two workers have frames of one camera, and one is slow: the tracker is past what that one gives.

    As it comes in a run where two results, sent one after the other, lie in two sockets of postprocess.
    """
    events = tmp_path / "events.jsonl"
    source = "synthetic://?seed=1&size=320x180&rate=20&frames=60"
    settings = config.from_sources([source], events=events, policy="newest", track=True)
    model = settings.model.model_copy(update={"engine": "stub", "workers": 2})
    plan = make(settings.model_copy(update={"model": model}))
    parts = {process.name: process for process in plan.processes}
    for worker, alpha_ms in (("inference.0", 100.0), ("inference.1", 500.0)):  # a frame comes in 50
        config_of = {**parts[worker].config, "stub_alpha_ms": alpha_ms}
        parts[worker] = replace(parts[worker], config=config_of)
    options = {**parts["batcher"].options, "policy": "every"}
    parts["batcher"] = replace(parts["batcher"], options=options)
    supervisor = Supervisor(replace(plan, processes=tuple(parts.values())), Options())
    supervisor.run()
    detect = supervisor.totals["cam0", "detect"]
    [sink] = supervisor.sink_totals.values()
    assert detect.error == sink.error == 0
    assert sink.dropped["superseded"] > 0
    ids = [row["frame_id"] for row in lines(events)]
    assert sink.delivered == len(ids)
    assert ids == sorted(set(ids))


LINE = """
[model]
engine = "stub"
[[camera]]
name = "gate"
source = "synthetic://?seed=1&size=320x180&rate=10&frames=300&realtime=false"
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
name = "all"
kinds = ["appeared", "gone", "entered", "left", "loitering", "crowded", "uncrowded", "crossed"]
cooldown_s = 0
to = ["log"]
[[target]]
name = "log"
type = "file"
path = "alarms.jsonl"
"""


def alarms(folder):
    """The happenings of all alarms that were kept; what was delivered is the beginning of it, in order."""
    with closing(sqlite3.connect(folder / "outbox.db")) as outbox:
        rows = outbox.execute("SELECT document FROM message ORDER BY seq").fetchall()
    kept = [json.loads(row[0]) for row in rows]
    delivered = list(dict.fromkeys(alarm["id"] for alarm in lines(folder / "alarms.jsonl")))
    assert delivered == [alarm["id"] for alarm in kept[: len(delivered)]]
    assert len(delivered) > len(kept) / 2
    return [alarm["happening"] for alarm in kept]


def happened(folder, victims=()):
    """What a run tells: (by sink, what happened how often; crossings by the counters; frames lost).

    victims are killed one after the other.
    """
    folder.mkdir()
    (folder / "run.toml").write_text(LINE)
    waiting, at = list(victims), 5

    def kill(supervisor):
        nonlocal at
        told = len(lines(folder / "happenings.jsonl"))
        if waiting and told >= at and supervisor.children[waiting[0]].state == "ready":
            supervisor.children[waiting.pop(0)].signal(signal.SIGKILL)
            at = told + 2

    settings = config.load(folder / "run.toml", policy="every")
    supervisor = Supervisor(all_seeing(make(settings)), Options(), kill)
    supervisor.run()
    assert not waiting
    assert all(totals.error == 0 for totals in supervisor.totals.values())
    told = {
        "happenings": lines(folder / "happenings.jsonl"),
        "store": list(query.happenings(str(folder / "store.db"), limit=10_000)),
        "alarms": alarms(folder),
    }
    counts = {}
    for sink, rows in told.items():
        each = {row["id"]: row for row in rows}.values()  # what comes twice has the same id
        counts[sink] = Counter(
            (row["kind"], row.get("object"), row.get("place"), row.get("direction")) for row in each
        )
    names = supervisor.plan.by_name["scene"].counters
    crossed = {n: supervisor.ledger.counted("scene", n, "gate") for n in names if "crossed" in n}
    lost = sum(totals.lost for totals in supervisor.sink_totals.values())
    return counts, {n: k for n, k in crossed.items() if not n.startswith("true")}, lost


def test_whoever_is_killed_what_happened_is_told_once_and_nothing_else(tmp_path):
    """Tracker, scene, store and outbox under kill -9, the last two of them while much is under way: the
    same objects, the same numbers, and no sink lost a frame."""
    quiet = happened(tmp_path / "quiet")
    counts, _, lost = quiet
    assert lost == 0
    assert len({kind for kind, *_ in counts["store"]}) >= 6
    assert counts["store"] == counts["happenings"] == counts["alarms"]
    victims = ["track", "scene", "sink.store", "sink.alarms", "track", "scene"]
    assert happened(tmp_path / "killed", victims) == quiet
