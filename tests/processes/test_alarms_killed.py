"""Tracker, scene, store and outbox under kill -9 while the broker is away and the webhook fails."""

import alarms_killed
import patterns
from broker import needs_broker


@needs_broker
def test_whoever_is_killed_what_happened_is_told_once_and_in_order(tmp_path, monkeypatch):
    """The same objects and the same numbers as in a run that nobody disturbs, and no sink lost a frame."""
    monkeypatch.setenv("PYTHONPATH", patterns.PATH)
    quiet = alarms_killed.run(tmp_path / "quiet", frames=300, times=0)
    assert not list(alarms_killed.disagreements(quiet))
    assert quiet.lost == quiet.errors == 0
    assert len({kind for kind, *_ in quiet.kinds}) >= 6
    told = alarms_killed.run(tmp_path / "killed", frames=300, times=1, away_s=3.0)
    assert told.kills == dict.fromkeys(alarms_killed.VICTIMS, 1)
    assert not list(alarms_killed.disagreements(told))
    assert told.what() == quiet.what()
