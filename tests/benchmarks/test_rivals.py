"""What is counted, what is compared, and that each rival reads its cameras as it should."""

import threading
from dataclasses import dataclass

import numpy as np
import pytest

from benchmarks.peers.cameras import PEERS, Task
from benchmarks.peers.sightings import (
    MAX_BOXES,
    Sightings,
    SightingsConfig,
    SightingsSink,
    detections,
)
from benchmarks.peers.streams import MIN_BURST, OPENCV, Cameras, make_clip, rendered
from benchmarks.rivals import OURS, SETTINGS, Sample, Setting, agreement, figures, sample
from benchmarks.rivals import PEERS as NAMES
from pipeline.detections import Detections
from pipeline.messages import FrameInfo, Result
from pipeline.runtime import LocalRuntime


def boxes(*corners, label=0):
    xyxy = np.array([(x, y, x + 10, y + 10) for x, y in corners], np.float32).reshape(-1, 4)
    scores = np.linspace(0.9, 0.5, len(xyxy), dtype=np.float32)
    return Detections(xyxy, scores, np.full(len(xyxy), label, np.int32))


def test_the_log_gives_back_what_was_found(tmp_path):
    log, reader = Sightings(tmp_path / "log", 2), Sightings(tmp_path / "log", 2)
    assert reader.counts == [0, 0]
    assert len(reader.rows(1)) == 0
    log.add(1, 7, boxes((1, 2), (30, 40)))
    log.add(1, 9, Detections.empty())
    assert reader.counts == [0, 2]
    first, second = reader.rows(1)
    assert (first["number"], second["number"]) == (7, 9)
    assert first["t_ns"] <= second["t_ns"]
    found = detections(first)
    assert found.xyxy.tolist() == [[1, 2, 11, 12], [30, 40, 40, 50]]
    assert found.labels.tolist() == [0, 0]
    assert len(detections(second)) == 0


def test_a_frame_with_too_many_boxes_keeps_the_first(tmp_path):
    log = Sightings(tmp_path / "log", 1)
    log.add(0, 0, boxes(*((20 * i, 0) for i in range(MAX_BOXES + 5))))
    found = detections(log.rows(0)[0])
    assert len(found) == MAX_BOXES
    assert agreement(found, boxes(*((20 * i, 0) for i in range(MAX_BOXES + 5)))) == 1


def test_our_sink_knows_a_frame_by_its_time(tmp_path):
    sink = SightingsSink(SightingsConfig(path=str(tmp_path / "log"), rates_hz=(30, 2)))
    sink.runtime = LocalRuntime(("a", "b"))
    sink.setup()
    for camera, pts_ns in (("a", None), ("a", 33_333_333), ("b", 2_500_000_000)):
        info = FrameInfo(
            camera=camera, frame_id=0, t_capture_ns=0, t_wall_ns=0, width=64, height=64,
            pts_ns=pts_ns,
        )  # fmt: skip
        sink.process(Result(info=info, detections=boxes((1, 1))))
    log = Sightings(tmp_path / "log", 2)
    assert [log.rows(i)["number"].tolist() for i in range(2)] == [[1], [5]]


def test_agreement_is_the_share_of_boxes_that_both_have():
    one, two = boxes((0, 0)), boxes((0, 0), (50, 50))
    assert agreement(two, two) == 1
    assert agreement(one, two) == pytest.approx(2 / 3)
    assert agreement(one, boxes((0, 0), label=1)) == 0
    assert agreement(one, Detections.empty()) == 0


@dataclass
class Clock:
    """Cameras that send a frame each 100 ns."""

    def due_ns(self, camera, number):
        return 100 * (number - MIN_BURST)


def test_only_what_came_in_the_window_from_watched_cameras_counts(tmp_path):
    log = Sightings(tmp_path / "log", 2)
    for number in range(MIN_BURST, MIN_BURST + 10):
        log.add(0, number, boxes((0, 0)))
        log.add(1, number, boxes((0, 0)))
    for camera in range(2):
        rows = log.rows(camera)
        rows["t_ns"] = 100 * (rows["number"] - MIN_BURST) + 30  # each is 30 ns late
    both = Setting(name="two", rates_hz=(1, 1))
    reference = [[boxes((0, 0))] * (MIN_BURST + 10)] * 2
    got = sample(log, Clock(), both, reference, 200, 700)
    assert got.fps == pytest.approx(10 / 500e-9)
    assert got.p99_s == pytest.approx(30e-9)
    assert (got.fairness, got.same) == (1, 1)
    second = Setting(name="two", rates_hz=(1, 1), unwatched=1)
    assert sample(log, Clock(), second, reference, 200, 700).fps == pytest.approx(5 / 500e-9)
    with pytest.raises(ValueError, match=r"two: 0.0% of the boxes are those of the model"):
        sample(log, Clock(), both, [[boxes((50, 50))] * 40] * 2, 200, 700)


def test_nothing_at_all_counts_as_less_than_one_and_as_the_whole_time(tmp_path):
    log = Sightings(tmp_path / "log", 1)
    got = sample(log, Clock(), Setting(name="one", rates_hz=(1,)), [], 0, 2_000_000_000)
    assert (got.fps, got.p50_s, got.p99_s, got.fairness) == (0.5, 2.0, 2.0, 1.0)


def test_ahead_behind_and_level():
    def rows(fps, p99_s, fairness):
        return [Sample(fps=fps, p50_s=p99_s / 2, p99_s=p99_s, fairness=fairness, same=1)] * 5

    samples = {}
    for setting in SETTINGS:
        samples[setting.name, OURS] = rows(60, 0.1, 0.999)
        samples[setting.name, "slower"] = rows(30, 1.0, 1.0)
        samples[setting.name, "faster"] = rows(80, 0.05, 0.5)
    found = {f.what: f for f in figures(samples, SETTINGS, ["slower", "faster"])}
    assert found["4 cameras: results a second / slower"].value == 2
    verdicts = {
        what: found[f"4 cameras: {what}"].verdict
        for what in ("results a second / slower", "p99 latency / slower",
                     "results a second / faster", "p99 latency / faster", "fairness / the fairest")
    }  # fmt: skip
    assert list(verdicts.values()) == ["met", "met", "missed", "missed", "met"]
    assert found["1 camera: p99 latency / faster"].verdict == "report"
    assert "1 camera: fairness / the fairest" not in found


# -- the rivals ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip():
    return make_clip(rendered(40, 20, (320, 180)), 20)


def model_that_finds_nothing(images):
    return [Detections.empty() for _ in images]


@pytest.fixture(autouse=True)
def _quick_to_open(monkeypatch):
    for key, value in OPENCV.items():
        monkeypatch.setenv(key, value)


def start(name, cameras, path):
    task = Task(model_that_finds_nothing, cameras.urls, str(path))
    thread = threading.Thread(target=PEERS[name][0], args=(task,))
    thread.start()
    return task, thread


def wait(condition, limit_s=30):
    for _ in range(round(limit_s / 0.01)):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("waited too long")


def test_the_driver_knows_every_rival():
    assert tuple(PEERS) == NAMES


@pytest.mark.parametrize("name", ["blog", "threads", "loader"])
def test_a_rival_serves_all_cameras_until_it_is_told_to_stop(clip, tmp_path, name):
    log = Sightings(tmp_path / "log", 2)
    with Cameras([clip, clip]) as cameras:
        task, thread = start(name, cameras, tmp_path / "log")
        wait(lambda: all(log.counts))
        cameras.go()
        wait(lambda: all(log.rows(i)["number"].max() > MIN_BURST + 8 for i in range(2)))
        task.stop.set()
        cameras.close()
        thread.join(20)
        assert not thread.is_alive()
    for camera in range(2):
        numbers = log.rows(camera)["number"]
        assert (np.diff(numbers) > 0).all()
        assert name != "blog" or numbers.tolist() == list(range(len(numbers)))  # skips none


@pytest.mark.parametrize("name", ["blog", "loader"])
def test_who_waits_for_all_is_as_slow_as_the_slowest(clip, tmp_path, name):
    log = Sightings(tmp_path / "log", 2)
    with Cameras([make_clip(rendered(20, 4, (320, 180)), 4), clip]) as cameras:
        task, thread = start(name, cameras, tmp_path / "log")
        wait(lambda: all(log.counts))
        cameras.go()
        wait(lambda: log.rows(0)["number"].max() > MIN_BURST)
        slow, fast = log.counts
        assert abs(fast - slow) <= 1
        task.stop.set()
        cameras.close()
        thread.join(20)


def test_with_threads_nobody_waits_for_a_slow_camera(clip, tmp_path):
    log = Sightings(tmp_path / "log", 2)
    with Cameras([make_clip(rendered(20, 1, (320, 180)), 1), clip]) as cameras:
        task, thread = start("threads", cameras, tmp_path / "log")
        wait(lambda: all(log.counts))
        cameras.go()
        wait(lambda: log.counts[1] > log.counts[0] + 5)
        task.stop.set()
        cameras.close()
        thread.join(20)
