"""OpenCvSource on files: the same path that a webcam takes."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from clips import moving_square, write_clip

from pipeline.errors import ConfigError, EndOfStream, SourceError
from pipeline.runtime import LocalRuntime
from stages.capture.opencv import OpenCvConfig, OpenCvSource, is_webcam


def opened(device: object, **options: object) -> OpenCvSource:
    config = OpenCvConfig(device=device if isinstance(device, int) else str(device), **options)
    OpenCvSource.check(config)
    source = OpenCvSource(config)
    source.runtime = LocalRuntime(["yard"])
    source.setup()
    source.open()
    return source


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "a.avi", moving_square(8, (96, 64)))


def test_pictures_are_decoded_in_place(clip):
    source = opened(clip)
    buffer = np.full(96 * 64 * 3 + 50, 7, np.uint8)
    capture = cv2.VideoCapture(str(clip))
    for i in range(8):
        picture = source.read(buffer)
        assert (picture.width, picture.height, picture.format) == (96, 64, "bgr24")
        assert picture.pts_ns == i * 40_000_000
        np.testing.assert_array_equal(buffer[:-50].reshape(64, 96, 3), capture.read()[1])
    assert (buffer[-50:] == 7).all()
    for _ in range(2):
        with pytest.raises(EndOfStream):
            source.read(buffer)
    assert source.runtime.counts == {}  # neither copied nor scaled
    source.close()
    source.close()


def test_a_slot_of_exactly_the_size_is_enough(clip):
    source = opened(clip, max_size=(96, 64))
    buffer = np.empty(OpenCvSource.slot_bytes(source.config, 0), np.uint8)
    assert buffer.size == 96 * 64 * 3
    assert source.read(buffer).width == 96
    assert source.runtime.counts == {}
    source.close()


def test_larger_than_the_slot_is_scaled_down_and_counted(clip):
    source = opened(clip, max_size=(48, 32))
    buffer = np.empty(OpenCvSource.slot_bytes(source.config, 0), np.uint8)
    for _ in range(3):
        picture = source.read(buffer)
        assert (picture.width, picture.height) == (48, 32)
    assert source.runtime.counts == {("scaled", "yard"): 3}
    whole = np.empty(96 * 64 * 3, np.uint8)
    assert source.read(whole).width == 96
    source.close()


def test_skip_takes_a_picture_and_loop_starts_again(clip):
    source = opened(clip, loop=True)
    buffer = np.empty(1 << 16, np.uint8)
    assert source.skip()
    times = []
    while len(times) < 12:
        if (picture := source.read(buffer)) is not None:
            times.append(picture.pts_ns // 40_000_000)
    assert times == list(range(1, 13))
    source.close()


def test_realtime_is_never_ahead_of_the_file(clip):
    source = opened(clip, realtime=True)
    buffer = np.empty(1 << 16, np.uint8)
    begun = time.monotonic()
    for _ in range(3):
        source.read(buffer)
    assert time.monotonic() - begun >= 2 / 25
    source.close()


def test_what_cannot_be_opened_is_one_sentence(tmp_path, capfd):
    (tmp_path / "a.avi").write_bytes(b"no video")
    for device in (tmp_path / "a.avi", tmp_path / "missing.avi"):
        with pytest.raises(SourceError, match="wanted a video file"):
            opened(device)
    with pytest.raises(SourceError, match="wanted a webcam"):
        opened(63)
    with pytest.raises(SourceError, match="wanted a webcam"):
        opened("/dev/video63")
    with pytest.raises(SourceError, match="not open"):
        OpenCvSource(OpenCvConfig(device=63)).read(np.empty(10, np.uint8))


@pytest.mark.parametrize(
    "options",
    [
        {"device": "rtsp://me:hunter22@host/1"},
        {"device": 0, "max_size": (1, 1)},
        {"device": 0, "fourcc": "MJPEG"},
    ],
)
def test_check_refuses(options):
    with pytest.raises(ConfigError) as caught:
        OpenCvSource.check(OpenCvConfig(**options))
    assert "hunter22" not in str(caught.value)


def test_what_is_a_webcam():
    assert is_webcam(0)
    assert is_webcam("/dev/video3")
    assert not is_webcam("video3.mp4")


def test_a_film_goes_on_behind_what_came_of_it_before(clip):
    source = OpenCvSource(OpenCvConfig(device=str(clip)))
    source.resume(5)
    source.open()
    buffer = np.empty(96 * 64 * 3, np.uint8)
    assert [source.read(buffer).pts_ns for _ in range(3)] == [200_000_000, 240_000_000, 280_000_000]
    with pytest.raises(EndOfStream):
        source.read(buffer)
    source.close()
