from __future__ import annotations

import contextlib
from pathlib import Path

import av
import numpy as np
import pytest
from sink_frames import bar, frame
from sink_killed import run_and_kill

from pipeline.detections import Detections
from pipeline.errors import ConfigError, FrameError, ResourceError
from pipeline.messages import Frame
from pipeline.runtime import LocalRuntime
from stages.imaging.drawing import color_of, draw
from stages.imaging.scenes import Scene
from stages.sinks.video import Video, VideoConfig


def sink(folder: Path, **config) -> Video:
    video = Video(VideoConfig(path=str(folder), **config))
    video.runtime = LocalRuntime(("gate",))
    video.check(video.config)
    video.setup()
    return video


def decode(path: Path) -> tuple[list[np.ndarray], list[float]]:
    """All frames as BGR, and when each is shown, in seconds."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [f.to_ndarray(format="bgr24") for f in frames], [float(f.time) for f in frames]


def write(folder: Path, frames, **config) -> None:
    video = sink(folder, **config)
    for one in frames:
        video.process(one)
    video.close()


def test_every_frame_is_there_in_order_at_its_time(tmp_path):
    write(tmp_path, [frame(n) for n in range(60)])
    images, times = decode(tmp_path / "gate.mp4")
    assert [bar(image) for image in images] == [n % 16 for n in range(60)]
    np.testing.assert_allclose(times, [n / 25 for n in range(60)], atol=1e-4)
    assert abs(images[0].astype(int) - frame(0).image).mean() < 4


def test_a_frame_is_taken_when_its_second_is_in_the_file(tmp_path):
    video = sink(tmp_path)
    for n in range(60):
        video.process(frame(n))
        in_file = video.runtime.settled["gate", True]
        assert in_file == n // 25 * 25
        assert not in_file or len(decode(tmp_path / "gate.mp4")[0]) == in_file
    video.close()
    assert video.runtime.settled == {("gate", True): 60, ("gate", False): 0}


def test_where_the_clock_stands_still_a_frame_is_taken_all_the_same(tmp_path):
    video = sink(tmp_path)
    for n in range(600):
        video.process(frame(n, t_capture_ns=5_000_000_000))
    assert video.runtime.settled["gate", True] == 500
    video.close()


@pytest.mark.parametrize("size_wh", [(640, 360), (1280, 720)])
def test_a_drawn_side_keeps_its_colour(tmp_path, size_wh):
    corners = [(21 + 150 * (k % 4) + k, 41 + 100 * (k // 4) + k) for k in range(12)]  # odd and even
    boxes = Detections(
        np.float32([[x, y, x + 91, y + 61] for x, y in corners]),
        np.ones(12, np.float32),
        np.arange(12, dtype=np.int32),
    )
    pictures = []
    for n in range(4):
        image, _ = Scene(3, size_wh, objects=0).render(n / 25)
        draw(image, boxes, ())
        info = frame(n, size_wh=size_wh).info
        pictures.append(Frame(info=info, format="bgr24", pixels=image))
    write(tmp_path, pictures)
    image = decode(tmp_path / "gate.mp4")[0][-1].astype(int)
    for label, (x, y) in enumerate(corners):
        for side in (image[y + 30 : y + 55, x], image[y + 30 : y + 55, x + 91]):
            assert np.abs(np.median(side, axis=0) - color_of(label)).max() < 30


def test_gaps_in_the_stream_are_gaps_in_the_file(tmp_path):
    kept = [0, 1, 2, 30, 31]
    write(tmp_path, [frame(n) for n in kept])
    np.testing.assert_allclose(decode(tmp_path / "gate.mp4")[1], [n / 25 for n in kept], atol=1e-4)


SECOND = 1_000_000_000


def test_a_recording_is_shown_by_its_own_clock_however_fast_it_is_read(tmp_path):
    times_s = (7, 8, 9.5, 49.5)  # a time-lapse may wait for long
    frames = [
        frame(n, pts_ns=round(t_s * SECOND), t_capture_ns=n, recorded=True)
        for n, t_s in enumerate(times_s)
    ]
    frames.append(frame(4, pts_ns=0, t_capture_ns=5, stream_epoch=1, recorded=True))  # began anew
    write(tmp_path, frames)
    wanted = [0, 1, 2.5, 42.5, 43.5]
    np.testing.assert_allclose(decode(tmp_path / "gate.mp4")[1], wanted, atol=1e-4)


@pytest.mark.parametrize("clock", ["none", "25 Hz", "stands still", "jumps", "back and forth"])
def test_a_camera_is_shown_by_the_clock_here_whatever_its_own_says(tmp_path, clock):
    """A picture each half second; each outlier of its clock is a new stream to those who follow it."""
    own = {
        "none": lambda n: None,
        "25 Hz": lambda n: n * SECOND // 25,
        "stands still": lambda n: 0,
        "jumps": lambda n: n * SECOND // 2 + (n > 7) * 18_000 * SECOND,
        "back and forth": lambda n: (n ^ 1) * SECOND // 2,
    }[clock]
    frames = [
        frame(n, pts_ns=own(n), t_capture_ns=n * SECOND // 2, stream_epoch=n // 5)
        for n in range(20)
    ]
    write(tmp_path, frames)
    wanted = [n / 2 for n in range(20)]
    np.testing.assert_allclose(decode(tmp_path / "gate.mp4")[1], wanted, atol=1e-4)


def test_a_slow_camera_is_slow_and_one_that_was_away_is_not_waited_for(tmp_path):
    frames = [frame(n, t_capture_ns=n * 30 * SECOND) for n in range(3)]
    frames += [frame(3, t_capture_ns=3600 * SECOND, stream_epoch=1)]
    frames += [frame(4, t_capture_ns=3605 * SECOND, stream_epoch=2)]
    write(tmp_path, frames)
    np.testing.assert_allclose(decode(tmp_path / "gate.mp4")[1], [0, 30, 60, 61, 66], atol=1e-4)


def test_each_camera_has_its_file(tmp_path):
    write(tmp_path, [frame(n // 2, camera=("gate", "a/../yard")[n % 2]) for n in range(10)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_.._yard.mp4", "gate.mp4"]
    assert len(decode(tmp_path / "gate.mp4")[0]) == 5


def test_another_size_begins_another_file_and_odd_sides_lose_a_pixel(tmp_path):
    write(tmp_path, [frame(0), frame(1), frame(2, size_wh=(97, 55)), frame(3, size_wh=(97, 55))])
    first, second = decode(tmp_path / "gate.mp4")[0], decode(tmp_path / "gate-2.mp4")[0]
    assert [image.shape for image in first] == [(90, 160, 3)] * 2
    assert [image.shape for image in second] == [(54, 96, 3)] * 2


def test_no_start_overwrites_what_an_earlier_one_wrote(tmp_path):
    write(tmp_path, [frame(0)])
    before = (tmp_path / "gate.mp4").read_bytes()
    write(tmp_path, [frame(0), frame(1)])
    write(tmp_path, [frame(0), frame(1), frame(2)])
    assert (tmp_path / "gate.mp4").read_bytes() == before
    counts = [len(decode(tmp_path / f"gate{n}.mp4")[0]) for n in ("", "-2", "-3")]
    assert counts == [1, 2, 3]


def test_no_frame_makes_no_file(tmp_path):
    write(tmp_path / "new", [])
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("after", [60, 137])
def test_after_kill_9_the_file_plays_up_to_the_last_second(tmp_path, after):
    said = run_and_kill("video", tmp_path, after)
    images, _ = decode(tmp_path / "gate.mp4")
    assert len(images) >= said - 26  # 25 frames a second, a fragment a second
    assert [bar(image) for image in images] == [n % 16 for n in range(len(images))]
    write(tmp_path, [frame(0)])
    assert len(decode(tmp_path / "gate-2.mp4")[0]) == 1


def fill(video: Video, frames) -> list[int]:
    """Which frames it took."""
    taken = []
    for one in frames:
        with contextlib.suppress(FrameError):
            video.process(one)
            taken.append(one.info.frame_id)
    return taken


def pictures(folder: Path) -> list[int]:
    """Bars of all files of a folder, in the order in which they were begun."""
    paths = sorted(folder.iterdir(), key=lambda path: (len(path.name), path.name))
    return [bar(image) for path in paths for image in decode(path)[0]]


def test_what_the_disk_does_not_take_is_counted_and_no_file_is_torn(
    tmp_path, small_files, monkeypatch
):
    monkeypatch.setattr("stages.sinks.video._AGAIN_S", 0)
    video = sink(tmp_path)
    with small_files(12_000):
        taken = fill(video, [frame(n) for n in range(300)])
        video.close()
    unwritten = video.runtime.settled["gate", False]
    assert 0 < unwritten < len(taken) < 300
    assert len(pictures(tmp_path)) == len(taken) - unwritten
    assert all(path.stat().st_size <= 12_000 for path in tmp_path.iterdir())


def test_the_last_fragment_may_find_no_room_either(tmp_path, small_files):
    video = sink(tmp_path)
    assert fill(video, [frame(n) for n in range(30)]) == [*range(30)]
    with small_files(1000):
        video.close()
    assert video.runtime.settled["gate", False] == 5
    assert pictures(tmp_path) == [n % 16 for n in range(25)]


def test_a_full_disk_leaves_no_empty_file_and_the_video_goes_on_when_there_is_room(
    small_disk, monkeypatch
):
    monkeypatch.setattr("stages.sinks.video._AGAIN_S", 0)
    video = sink(small_disk)
    before = fill(video, [frame(n) for n in range(30)])
    other = small_disk / "other"
    with other.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    lost_from = fill(video, [frame(n) for n in range(30, 200)])
    assert [path.name for path in small_disk.iterdir() if not path.stat().st_size] == []
    other.unlink()
    after = fill(video, [frame(n) for n in range(200, 230)])
    assert len(after) == 30
    video.close()
    unwritten = video.runtime.settled["gate", False]
    assert len(lost_from) <= unwritten + 1
    shown = pictures(small_disk)
    assert len(shown) == len(before) + len(lost_from) + len(after) - unwritten
    assert shown[-30:] == [n % 16 for n in range(200, 230)]


def test_after_a_failure_the_disk_is_left_alone_for_a_moment(tmp_path, small_files, monkeypatch):
    monkeypatch.setattr("stages.sinks.video._AGAIN_S", 1000)
    video = sink(tmp_path)
    with small_files(0), pytest.raises(FrameError, match=r"can be written .*make room"):
        video.process(frame(0))
    with pytest.raises(FrameError, match="a moment ago"):
        video.process(frame(1))
    assert list(tmp_path.iterdir()) == []
    video.close()


@pytest.mark.parametrize("how", ["rename", "delete"])
def test_a_file_that_was_moved_or_deleted_gets_a_successor(tmp_path, how):
    video = sink(tmp_path / "new")
    fill(video, [frame(n) for n in range(3)])
    video.idle()
    path = tmp_path / "new" / "gate.mp4"
    if how == "rename":
        path.rename(tmp_path / "old.mp4")
    else:
        path.unlink()
    video.idle()
    fill(video, [frame(n) for n in range(3, 8)])
    video.close()
    assert pictures(tmp_path / "new") == [3, 4, 5, 6, 7]
    if how == "rename":
        assert len(decode(tmp_path / "old.mp4")[0]) == 3


def test_a_picture_too_small_to_encode_is_one_lost_frame(tmp_path):
    video = sink(tmp_path)
    with pytest.raises(FrameError, match="2x2 px or more"):
        video.process(frame(0, size_wh=(64, 1)))
    video.process(frame(1))
    video.close()


@pytest.mark.parametrize(
    ("config", "says"),
    [({"crf": 52}, "crf"), ({"preset": "best"}, "veryfast"), ({"threads": 0}, "threads")],
)
def test_values_out_of_range_are_refused(tmp_path, config, says):
    with pytest.raises(ConfigError, match=says):
        Video.check(VideoConfig(path=str(tmp_path), **config))


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="wanted a folder at"):
        Video.check(VideoConfig(path=str(tmp_path / "file")))
