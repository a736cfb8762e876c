"""Live cameras: numbers that survive the codec, the clock, late comers, the end."""

import threading
import time
from contextlib import suppress

import av
import numpy as np
import pytest
from clips import moving_square, write_clip
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.peers import rtsp
from benchmarks.peers.streams import (
    MIN_BURST,
    Cameras,
    make_clip,
    number_of,
    recorded,
    rendered,
    stamp,
)

SIZE = (320, 180)


def noise(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def clip():
    return make_clip(rendered(30, 10, SIZE), 10)


def images(url):
    options = {"rtsp_transport": "tcp", "analyzeduration": "200000"}
    with av.open(url, options=options, timeout=5) as container:
        for frame in container.decode(video=0):
            pts_s = float(frame.pts * frame.time_base) if frame.pts else 0.0
            yield frame.to_ndarray(format="bgr24"), pts_s


@given(number=st.integers(0, 65535), width=st.integers(64, 900))
def test_a_number_can_be_read_where_it_was_written(number, width):
    image = np.full((64, width, 3), 100, np.uint8)
    stamp(image, number)
    assert number_of(image) == number


@pytest.mark.parametrize("grey", [0, 100, 255])
def test_a_picture_without_a_number_is_noticed(grey):
    with pytest.raises(ValueError, match="without a readable number"):
        number_of(np.full((180, 320, 3), grey, np.uint8))


def test_the_numbers_survive_the_codec_in_any_picture():
    clip = make_clip(noise(12), 10)
    assert [number_of(image) for image in clip.decoded()] == list(range(12))
    assert [n for n, key in enumerate(clip.keys) if key] == [0, 10]


def test_a_recording_begins_again_until_there_is_enough(tmp_path):
    path = write_clip(tmp_path / "odd.mp4", moving_square(3, (96, 64)))
    got = list(recorded(path, 7))
    assert [image.shape for image in got] == [(64, 96, 3)] * 7
    assert (got[0] == got[6]).all()
    assert (got[0] != got[1]).any()


@given(
    sizes=st.lists(st.integers(1, 3 * rtsp.MAX_PAYLOAD), min_size=1, max_size=3),
    number=st.integers(0, 1 << 33),
)
def test_packets_can_be_put_together_again(sizes, number):
    units = [bytes([0x65]) + b"\x22" * (size - 1) for size in sizes]
    data = rtsp.Track(25).packets(number, b"".join(b"\0\0\1" + unit for unit in units))
    got, markers, times, place = [], [], set(), 0
    while place < len(data):
        assert data[place : place + 2] == b"$\0"
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        packet, place = data[place + 4 : place + 4 + length], place + 4 + length
        markers.append(packet[1] >> 7)
        times.add(packet[4:8])
        payload = packet[12:]
        if payload[0] & 0x1F != 28:
            got.append(payload)
        elif payload[1] & 0x80:
            got.append(bytes([payload[0] & 0xE0 | payload[1] & 0x1F]) + payload[2:])
        else:
            got[-1] += payload[2:]
    assert got == units
    assert markers == [0] * (len(markers) - 1) + [1]
    assert len(times) == 1


def reader(url, seen):
    def read():
        with suppress(av.FFmpegError):  # the camera hangs up
            for image, t_s in images(url):
                seen.append((number_of(image), time.monotonic_ns(), t_s))

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def until(condition, limit_s=20):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def test_cameras_wait_for_the_start_and_then_send_each_frame_when_it_is_due(clip):
    seen = [[], []]
    slow = make_clip(rendered(30, 5, SIZE), 5)
    with Cameras([clip, slow]) as cameras:
        threads = [reader(*pair) for pair in zip(cameras.urls, seen, strict=True)]
        # a decoder may keep the last one back
        until(lambda: all(rows and rows[-1][0] >= MIN_BURST - 2 for rows in seen))
        assert all(rows[-1][0] < MIN_BURST for rows in seen)
        cameras.go()
        until(lambda: seen[0][-1][0] >= 22 and seen[1][-1][0] >= 15)
        cameras.close()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        for camera, rows in enumerate(seen):
            assert [number for number, _, _ in rows] == list(range(len(rows)))
            rate_hz = cameras.clips[camera].rate_hz
            assert [round(t_s * rate_hz) for _, _, t_s in rows] == list(range(len(rows)))
            live = [(number, t_ns) for number, t_ns, _ in rows if number >= MIN_BURST]
            assert all(t_ns >= cameras.due_ns(camera, number) for number, t_ns in live)
    assert cameras.due_ns(1, MIN_BURST + 1) - cameras.due_ns(1, MIN_BURST) == 200_000_000
    assert (
        cameras.due_ns(1, MIN_BURST) - cameras.due_ns(0, MIN_BURST) == 100_000_000
    )  # half its period


def test_who_comes_late_begins_with_the_last_key_frame(clip):
    seen = []
    with Cameras([clip]) as cameras:
        cameras.go()
        until(lambda: time.monotonic_ns() > cameras.due_ns(0, 14))
        begun_ns = time.monotonic_ns()
        thread = reader(cameras.urls[0], seen)
        until(lambda: len(seen) >= 5)
        cameras.close()
        thread.join(10)
    assert seen[0][0] in (10, 20)
    assert cameras.due_ns(0, seen[0][0] + 10) > begun_ns  # there was no newer one
    assert all(t_ns >= cameras.due_ns(0, number) for number, t_ns, _ in seen)
