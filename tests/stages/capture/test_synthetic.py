from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from pipeline.errors import ConfigError, EndOfStream, FrameError
from stages.capture.synthetic import Settings, Synthetic, SyntheticConfig, parse
from stages.imaging.scenes import Scene


def camera(url: str) -> Synthetic:
    config = SyntheticConfig(url=url)
    Synthetic.check(config)
    source = Synthetic(config)
    source.setup()
    source.open()
    return source


def test_a_url_says_everything():
    assert parse("synthetic://") == Settings()
    url = "synthetic://?seed=-3&size=320x180&rate=7.5&objects=0&frames=9&realtime=false"
    assert parse(url) == Settings(
        seed=-3, width=320, height=180, rate_hz=7.5, objects=0, frames=9, realtime=False
    )


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("sede=1", "unknown key 'sede'; it knows seed, size"),
        ("seed=x", "seed must be a whole number, got 'x'"),
        ("size=640", "size must be WIDTHxHEIGHT"),
        ("size=640x0", "size must be WIDTHxHEIGHT"),
        ("rate=0", "rate must be within"),
        ("rate=nan", "rate must be within"),
        ("objects=-1", "objects must be within 0..100"),
        ("frames=0", "frames must be 1 or more"),
        ("realtime=maybe", "realtime must be true or false"),
    ],
)
def test_a_wrong_url_is_refused_in_one_sentence(query, says):
    with pytest.raises(ConfigError, match=says):
        Synthetic.check(SyntheticConfig(url=f"synthetic://?{query}"))


@pytest.mark.parametrize("url", ["synthetic://seed=1", "rtsp://?seed=1", "synthetic:///a/b"])
def test_another_url_is_refused(url):
    with pytest.raises(ConfigError, match="such as synthetic://"):
        parse(url)


def test_frames_are_drawn_into_the_slot_with_their_truth_and_end():
    source = camera("synthetic://?seed=5&size=160x90&rate=10&frames=3&realtime=false")
    buffer = np.full(160 * 90 * 3 + 50, 7, np.uint8)
    for k in range(3):
        picture = source.read(buffer)
        wanted, truth = Scene(5, (160, 90), 6).render(k / 10)
        np.testing.assert_array_equal(buffer[: wanted.size].reshape(wanted.shape), wanted)
        np.testing.assert_array_equal(picture.truth.xyxy, truth.xyxy)
        assert (picture.width, picture.height, picture.format) == (160, 90, "bgr24")
        assert picture.pts_ns == k * 100_000_000
    assert (buffer[-50:] == 7).all()
    for call in (lambda: source.read(buffer), source.skip):
        with pytest.raises(EndOfStream):
            call()
    source.open()
    assert source.read(buffer).pts_ns == 0


def test_skipping_keeps_the_schedule():
    source = camera("synthetic://?seed=5&size=160x90&rate=10&frames=3&realtime=false")
    assert source.skip()
    buffer = np.empty(160 * 90 * 3, np.uint8)
    assert source.read(buffer).pts_ns == 100_000_000
    np.testing.assert_array_equal(buffer.reshape(90, 160, 3), Scene(5, (160, 90), 6).render(0.1)[0])


def test_real_time_never_runs_ahead_of_the_clock():
    source = camera("synthetic://?size=16x16&rate=200")
    buffer = np.empty(16 * 16 * 3, np.uint8)
    start_s = time.monotonic()
    for _ in range(20):
        source.skip()
        source.read(buffer)
    assert time.monotonic() - start_s >= 39 / 200


def test_a_frame_that_is_long_in_coming_is_not_waited_for():
    source = camera("synthetic://?size=16x16&rate=0.5")
    buffer = np.empty(16 * 16 * 3, np.uint8)
    assert source.read(buffer) is not None
    assert source.read(buffer) is None


def test_a_slot_too_small_is_said():
    with pytest.raises(FrameError, match="wanted a slot of 768 bytes, got 10"):
        camera("synthetic://?size=16x16").read(np.empty(10, np.uint8))


def test_the_supervisor_can_read_it_without_opencv():
    code = "import sys, stages.capture.synthetic, stages.render; sys.exit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_scene_that_was_read_before_goes_on_behind_it():
    url = "synthetic://?size=64x48&frames=9&realtime=false"
    whole, rest = camera(url), camera(url)
    rest.resume(7)
    rest.open()
    buffers = np.zeros((2, 64 * 48 * 3), np.uint8)
    for _ in range(7):
        whole.skip()
    for _ in range(2):
        pictures = [
            source.read(buffer) for source, buffer in zip((whole, rest), buffers, strict=True)
        ]
        assert pictures[0].pts_ns == pictures[1].pts_ns
        assert (buffers[0] == buffers[1]).all()
    with pytest.raises(EndOfStream):
        rest.read(buffers[1])
