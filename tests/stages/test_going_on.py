"""Tracker and scene go on in another process as if nothing had happened."""

import numpy as np
import pytest
import walks
from hypothesis import given, settings
from hypothesis import strategies as st
from walks import LEFT_HALF, MIDDLE, line, scene, zone

from pipeline.accounts.states import MAX_STATE_BYTES
from pipeline.detections import Detections
from pipeline.messages import FrameInfo, Result
from pipeline.runtime import LocalRuntime
from stages.track.stage import Track, TrackConfig

FRAMES = 40


def found(n, *, live, seed=5):
    """Six objects that wander, some of them unseen in some frames."""
    rng = np.random.default_rng(seed)
    start, speed = rng.uniform(50, 550, (6, 2)), rng.uniform(-9, 9, (6, 2))
    seen = np.random.default_rng([seed, n]).random(6) < 0.85
    at = (start + n * speed)[seen].astype(np.float32)
    xyxy = np.concatenate([at, at + np.float32([40, 80])], axis=1)
    labels = np.random.default_rng([seed, n, 1]).integers(0, 2, len(at)).astype(np.int32)
    info = FrameInfo("gate", n, 1 + n * (10**8 if live else 10**6), 0, 640, 360, pts_ns=n * 10**8)
    return Result(info=info, detections=Detections(xyxy, np.full(len(at), 0.8, np.float32), labels))


def tracker(runtime, **config):
    stage = Track(TrackConfig(**config))
    stage.runtime = runtime
    stage.setup()
    return stage


def told(result):
    tracked = result.detections
    return tracked.track_ids.tolist(), tracked.labels.tolist()


@pytest.mark.parametrize("live", [True, False])
@given(kills=st.sets(st.integers(0, FRAMES - 1), max_size=8))
@settings(max_examples=10)
def test_a_tracker_that_is_killed_gives_the_same_ids(live, kills):
    whole = tracker(LocalRuntime(("gate",)), live=live)
    wanted = [told(whole.process(found(n, live=live))) for n in range(FRAMES)]
    runtime = LocalRuntime(("gate",))
    stage = tracker(runtime, live=live)
    for n in range(FRAMES):
        assert told(stage.process(found(n, live=live))) == wanted[n]
        state = stage.save("gate")
        assert len(state) < MAX_STATE_BYTES / 4
        if n in kills:
            stage = tracker(runtime, live=live)
            stage.restore("gate", state)
    assert runtime.counts["tracks", "gate"] == whole.runtime.counts["tracks", "gate"]


@pytest.mark.parametrize("kind", ["bytetrack", "ocsort"])
def test_a_parked_car_is_one_object_across_twenty_restarts(kind):
    runtime = LocalRuntime(("gate",))
    stage, ids = tracker(runtime, type=kind), set()
    for n in range(63):
        box = Detections(np.float32([[50, 50, 150, 120]]), np.float32([0.9]), np.int32([1]))
        info = FrameInfo("gate", n, 1 + n * 10**8, 0, 640, 360)
        ids |= set(told(stage.process(Result(info=info, detections=box)))[0])
        if n % 3 == 2:
            state = stage.save("gate")
            stage = tracker(runtime, type=kind)
            stage.restore("gate", state)
    assert ids == {-1, 1}


PLACES = {"zones": [zone(LEFT_HALF, loiter_s=0.5, max_objects=1)], "lines": [line(MIDDLE)]}
POSITION = st.none() | st.integers(0, 200)


@given(
    rows=st.lists(st.tuples(POSITION, POSITION), min_size=1, max_size=30),
    kills=st.sets(st.integers(0, 29), max_size=6),
)
@settings(max_examples=50)
def test_a_scene_that_is_killed_tells_the_same(rows, kills):
    frames = [{k: (x, 40 + 50 * k) for k, x in enumerate(row) if x is not None} for row in rows]
    whole, stage = scene(**PLACES), scene(**PLACES)
    for n, feet in enumerate(frames):
        wanted = whole.process(walks.result(n, feet)).happenings
        assert stage.process(walks.result(n, feet)).happenings == wanted
        if n in kills:
            state, runtime = stage.save("gate"), stage.runtime
            stage = scene(**PLACES)
            stage.runtime = runtime
            stage.restore("gate", state)
    assert stage.runtime.counts == whole.runtime.counts


def test_a_state_that_can_not_be_used_is_a_value_error():
    stage = scene(**PLACES)
    stage.process(walks.result(0, {1: (50, 60)}))
    state = stage.save("gate")
    scene(zones=[zone(LEFT_HALF, "another")]).restore("gate", state)  # edited since, which is fine
    follower = tracker(LocalRuntime(("gate",)))
    follower.process(found(0, live=True))
    follower.process(found(1, live=True))
    tracked = follower.save("gate")
    for restored, whole in ((scene(**PLACES), state), (tracker(LocalRuntime(("gate",))), tracked)):
        for cut in (b"", whole[:3], whole[:40], whole[:-1], b"\xff" * 100):
            with pytest.raises(ValueError):  # noqa: PT011 - whatever it says, nothing else is raised
                restored.restore("gate", cut)
