"""Rendered scenes that freeze, go dark, are covered or look elsewhere; cameras that go and come back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.happenings import HEALTH, NO_FRAME, to_json
from pipeline.runtime import CameraState, LocalRuntime
from pipeline.testing import frame
from stages.health.picture import Looks, sample
from stages.health.stage import Health, HealthConfig
from stages.imaging.scenes import Scene

SECOND = 1_000_000_000
SIZE = (320, 180)


def pictures(seed, seconds, begin=0):
    scene = Scene(seed, SIZE)
    return [scene.render(float(t))[0].copy() for t in range(begin, begin + seconds)]


def said(*parts, **times):
    """What is said of a camera that shows these pictures, one a second: (second, kind, cause)."""
    looks = Looks(**{"frozen_s": 10, "hold_s": 3, **times})
    rows = []
    for t, image in enumerate(image for part in parts for image in part):
        rows += [(t, kind, cause) for kind, cause, _ in looks.see(sample(image), t * SECOND)]
    return rows


def kinds(rows):
    return [row[1:] for row in rows]


@pytest.mark.parametrize("seed", [1, 3, 11, 12])
def test_of_a_scene_that_is_as_it_should_be_nothing_is_said(seed):
    assert said(pictures(seed, 60)) == []


def test_a_picture_that_does_not_change_is_frozen_until_it_does():
    still = pictures(1, 1, begin=20) * 15
    assert said(pictures(1, 20), still, pictures(1, 5, begin=40)) == [
        (30, "frozen", ""), (35, "recovered", "frozen"),
    ]  # fmt: skip


def test_night_is_dark_and_day_is_not():
    night = [picture // 16 for picture in pictures(2, 10, begin=20)]
    rows = said(pictures(2, 20), night, pictures(2, 10, begin=30))
    assert rows == [(23, "dark", ""), (33, "recovered", "dark")]


@pytest.mark.parametrize("level", [120, 250])
def test_a_covered_lens_and_a_lamp_in_it_blind_the_camera(level):
    noise = np.random.default_rng(0)
    covered = [
        np.clip(noise.normal(level, 3, (SIZE[1], SIZE[0], 3)), 0, 255).astype(np.uint8)
        for _ in range(10)
    ]
    rows = said(pictures(1, 20), covered, pictures(1, 10, begin=30))
    assert kinds(rows) == [("blinded", ""), ("recovered", "blinded")]


@pytest.mark.parametrize("seed", [1, 3, 11, 12])
def test_a_camera_that_was_turned_has_moved_once(seed):
    elsewhere = [np.roll(picture, SIZE[0] // 5, axis=1) for picture in pictures(seed, 40, begin=20)]
    assert kinds(said(pictures(seed, 20), elsewhere)) == [("moved", "")]
    assert kinds(said(pictures(seed, 20), pictures(seed + 100, 40))) == [("moved", "")]


@given(st.lists(st.sampled_from(["day", "night", "still", "blank"]), min_size=1, max_size=6))
@settings(max_examples=15)
def test_what_is_wrong_is_said_once_and_taken_back_once(parts):
    day = pictures(1, 12)
    shown = {
        "day": day,
        "night": [picture // 16 for picture in day],
        "still": day[:1] * 12,
        "blank": [np.full_like(day[0], 120 + n) for n in range(12)],
    }
    open_ = set()
    for _, kind, cause in said(*(shown[part] for part in parts), day):
        if kind == "recovered":
            open_.remove(cause)
        elif kind != "moved":
            assert kind not in open_
            open_.add(kind)
    assert open_ == set()


@given(width=st.integers(96, 2000), height=st.integers(16, 1200))
@settings(max_examples=30)
def test_a_sample_is_of_the_whole_picture_whatever_its_size(width, height):
    plane = np.zeros((height, width), np.uint8)
    plane[:, width // 2 :] = 200
    luma = sample(plane)
    assert luma.shape == (27, 48)
    assert luma[:, :23].max() == 0
    assert luma[:, 25:].min() == 200
    assert np.array_equal(luma, sample(np.stack([plane] * 3, axis=-1)))


@pytest.fixture
def health():
    stage = Health(HealthConfig(run="5f3a", down_s=0.0, hold_s=2.0))
    stage.runtime = LocalRuntime(("gate", "yard"))
    return stage


def asked(stage):
    stage._ask_at = 0.0
    return [
        to_json(one, n, camera=r.info.camera, frame_id=r.info.frame_id, time="T")
        for r in stage.idle()
        for n, one in enumerate(r.happenings)
    ]


def test_a_camera_that_is_down_is_said_once_with_the_cause_and_so_is_its_return(health):
    states = health.runtime.states
    assert asked(health) == []
    states["gate"] = CameraState(False, "login", 7)
    [down] = asked(health)
    assert down == {
        "version": 1, "id": "5f3a-gate-T-0", "run": "5f3a", "kind": "down", "camera": "gate",
        "frame_id": None, "time": "T", "cause": "login",
    }  # fmt: skip
    assert asked(health) == []
    del states["gate"]
    [up] = asked(health)
    assert (up["kind"], up["camera"]) == ("up", "gate")
    assert up["seconds"] >= 0
    assert asked(health) == []
    assert health.runtime.counts["health:down", "gate"] == 1


@pytest.mark.parametrize("cause", ["", "paused"])
def test_a_camera_that_is_not_there_yet_or_not_wanted_is_not_down(health, cause):
    health.runtime.states["yard"] = CameraState(False, cause)
    assert asked(health) == []


def test_the_stage_tells_of_no_frame(health):
    image = np.zeros((180, 320, 3), np.uint8)
    results = [
        health.process(frame(image, camera="gate", frame_id=n, t_capture_ns=n * SECOND))
        for n in range(5)
    ]
    assert results[:2] == [None, None]
    [told] = [result for result in results if result is not None]
    assert told.info.frame_id == NO_FRAME
    assert [one.kind for one in told.happenings] == ["dark"]
    assert len(told.detections) == 0
    assert {one.kind for one in told.happenings} <= set(HEALTH)
