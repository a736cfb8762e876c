"""A run that follows objects, whose tracker is killed."""

import json
import signal

from pipeline.plan import config
from pipeline.plan.standard import make
from pipeline.supervision.supervisor import Options, Supervisor


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def ids_of(rows):
    return {found["track_id"] for row in rows for found in row["detections"]} - {None}


def test_no_id_is_given_twice_though_the_tracker_is_killed(tmp_path):
    """Two cameras, `every`; the tracker dies when it has given some ids."""
    events = tmp_path / "events.jsonl"
    sources = [
        f"synthetic://?seed={n}&size=320x180&rate=10&frames=80&realtime=false" for n in (1, 2)
    ]
    settings = config.from_sources(sources, events=events, policy="every", track=True)
    before = []

    def kill_once(supervisor):
        if not before and len(ids_of(lines(events))) >= 4:
            before.extend(lines(events))
            supervisor.children["track"].signal(signal.SIGKILL)

    supervisor = Supervisor(make(settings), Options(), kill_once)
    supervisor.run()
    after = lines(events)[len(before) + 60 :]  # what it had finished was perhaps still on its way
    assert supervisor.children["track"].restarts.count == 1
    assert ids_of(before)
    assert ids_of(after)
    by_camera = [
        ids_of([row for row in rows if row["camera"] == camera])
        for rows in (before, after)
        for camera in ("cam0", "cam1")
    ]
    assert sum(map(len, by_camera)) == len(set().union(*by_camera))  # no two share one
    for row in after:
        assert all(found["track_id"] != -1 for found in row["detections"])
    given = sum(supervisor.ledger.counted("track", "tracks", c) for c in ("cam0", "cam1"))
    assert given >= len(set().union(*by_camera))
    assert all(totals.error == 0 for totals in supervisor.totals.values())
