"""What a user writes as `source`, and which class reads it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import BOUND_S

from pipeline.errors import ConfigError, FrameError
from pipeline.stage import Source
from stages.capture.choose import source_for
from stages.capture.clock import RecordingClock
from stages.capture.sizes import fit_size

AV = "stages.capture.av:AvSource"
OPENCV = "stages.capture.opencv:OpenCvSource"
SNAPSHOTS = "stages.capture.snapshots:SnapshotsSource"
PICTURES = "stages.capture.pictures:PicturesSource"


@pytest.mark.parametrize(
    ("source", "run", "config"),
    [
        (0, OPENCV, {"device": 0}),
        ("2", OPENCV, {"device": 2}),
        ("/dev/video1", OPENCV, {"device": "/dev/video1"}),
        ("/dev/v4l/by-id/usb-away", OPENCV, {"device": "/dev/v4l/by-id/usb-away"}),
        ("/dev/null", OPENCV, {"device": "/dev/null"}),
        ("-", AV, {"url": "-"}),
        ("rtmp://host/live/1", AV, {"url": "rtmp://host/live/1"}),
        ("srt://host:9000", AV, {"url": "srt://host:9000"}),
        ("udp://239.0.0.1:5004", AV, {"url": "udp://239.0.0.1:5004"}),
        ("http://host/snap.JPG?channel=1", SNAPSHOTS, {"url": "http://host/snap.JPG?channel=1"}),
        ("rtsp://host/1", AV, {"url": "rtsp://host/1"}),
        ("RTSPS://host/1", AV, {"url": "RTSPS://host/1"}),
        ("http://host/a.mjpg", AV, {"url": "http://host/a.mjpg"}),
        ("https://host/?a=*", AV, {"url": "https://host/?a=*"}),
        ("away/clip.MP4", AV, {"url": "away/clip.MP4"}),
        ("away/*.png", PICTURES, {"path": "away/*.png"}),
        ("away/one.JPG", PICTURES, {"path": "away/one.JPG"}),
        ("synthetic://street?seed=1", "stages.capture.synthetic:Synthetic",
         {"url": "synthetic://street?seed=1"}),
    ],
)  # fmt: skip
def test_each_kind_has_its_reader(source, run, config):
    assert source_for(source) == (run, config)


def test_what_lies_on_the_disk_decides(tmp_path):
    assert source_for(str(tmp_path))[0] == PICTURES
    for name, run in (("film", AV), ("[1].mp4", AV), ("[1].png", PICTURES)):
        (tmp_path / name).write_bytes(b"x")
        assert source_for(str(tmp_path / name))[0] == run


def test_a_reader_can_be_forced():
    assert source_for("clip.mp4", reader="opencv") == (OPENCV, {"device": "clip.mp4"})
    assert source_for("clip.mp4", reader="av")[0] == AV
    assert source_for(0, reader="opencv")[0] == OPENCV
    assert source_for("http://host/snap", reader="snapshots")[0] == SNAPSHOTS
    assert source_for("http://host/mjpg.jpg", reader="av")[0] == AV


@pytest.mark.parametrize("source", [0, "rtsp://host/1", "clip.mp4", "in/*.png"])
def test_what_comes_out_builds_a_source_even_from_json(source):
    run, config = source_for(source)
    module, name = run.split(":")
    cls = getattr(importlib.import_module(module), name)
    assert issubclass(cls, Source)
    made = cls.Config(**json.loads(json.dumps(config)), max_size=(64, 48))
    cls.check(made)
    assert cls.slot_bytes(made, 0) in (64 * 48 * 3, 64 * 48 * 3 // 2)
    assert cls(made).turn_s > 2


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("ftp://me:hunter22@host/a", {}, "unknown scheme; wanted rtsp://"),
        ("file:///a.mp4", {}, "unknown scheme"),
        ("concat:a|b", {}, "no such file or folder"),
        ("", {}, "source is empty"),
        ("vidoe", {}, "no such file or folder"),
        (-1, {}, "index of a webcam"),
        (True, {}, "must be text"),
        (1.5, {}, "must be text"),
        (None, {}, "must be text"),
        ("rtsp://me:hunter22@host", {"reader": "opencv"}, "remove reader"),
        ("a.mp4", {"reader": "vlc"}, "'av', 'opencv' or 'snapshots'"),
        (0, {"reader": "av"}, "remove reader"),
    ],
)
def test_the_rest_is_refused_in_one_sentence(source, options, words):
    with pytest.raises(ConfigError) as caught:
        source_for(source, **options)
    assert words in str(caught.value)
    assert "hunter22" not in str(caught.value)


def test_choosing_imports_nothing_heavy():
    code = (
        "import sys; from stages.capture.choose import source_for; source_for(0);"
        "print([m for m in ('cv2', 'av', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=BOUND_S
    )
    assert done.stdout.strip() == "[]"


sides = st.integers(1, 10_000)


@given(sides, sides, st.integers(1, 1 << 22), st.booleans())
def test_sizes_fit_and_keep_their_aspect(width, height, max_px, even):
    step = 2 if even else 1
    if min(width, height) < step or max_px < step * step:
        with pytest.raises(FrameError):
            fit_size(width, height, max_px, even=even)
        return
    out_w, out_h = fit_size(width, height, max_px, even=even)
    assert step <= out_w <= width
    assert step <= out_h <= height
    assert out_w * out_h <= max_px
    assert out_w % step == out_h % step == 0
    if width * height <= max_px:
        assert (out_w, out_h) == (width // step * step, height // step * step)
    elif min(out_w, out_h) > 100:
        assert abs(out_w / out_h - width / height) <= 0.05 * width / height


def test_the_clock_of_a_recording_has_one_anchor():
    clock = RecordingClock()
    clock.start_lap(step_ns=40_000_000)
    first = clock.tick(5_000_000_000)
    assert clock.pts_ns == 0
    due = [clock.tick(5_000_000_000 + i * 40_000_000) - first for i in range(1, 4)]
    assert due == pytest.approx([0.04, 0.08, 0.12], abs=1e-6)


def test_the_clock_does_not_catch_up_and_does_not_wait_for_hours():
    clock = RecordingClock()
    clock.start_lap(step_ns=40_000_000)
    first = clock.tick(0)
    assert clock.tick(10 * 10**9) == pytest.approx(first + 10, abs=1e-6)  # a time-lapse
    assert clock.tick(3600 * 10**9) < first + 60  # an hour ahead: a new anchor
    assert clock.pts_ns == 3600 * 10**9


@pytest.mark.parametrize(
    ("jumps", "own_s", "wanted_s"),
    [
        (False, [5, 6, 3, 4], [0, 1, 1.04, 2.04]),  # back: one step goes by
        (True, [5, 6, 18_006, 18_007], [0, 1, 1.04, 2.04]),
        (False, [5, 6, 18_006, 18_007], [0, 1, 18_001, 18_002]),  # a very slow time-lapse
        (False, [5, 6, 6 + 40 * 3600], [0, 1, 1.04]),
        (False, [None, None, 7, 8, None], [0, 0.04, 0.08, 1.08, 1.12]),
    ],
)
def test_a_recordings_time_only_grows(jumps, own_s, wanted_s):
    clock = RecordingClock()
    clock.start_lap(step_ns=40_000_000, jumps=jumps)
    times = []
    for t_s in own_s:
        clock.tick(None if t_s is None else t_s * 10**9)
        times.append(clock.pts_ns / 1e9)
    assert times == pytest.approx(wanted_s)
