from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import patterns
import pytest
import sink_frames
from sink_frames import bar, frame

from pipeline.errors import ConfigError, FrameError, ResourceError
from stages.sinks.snapshot import Snapshot, SnapshotConfig

TESTS = Path(sink_frames.__file__).parent


def sink(folder, **config) -> Snapshot:
    snapshot = Snapshot(SnapshotConfig(path=str(folder), **config))
    snapshot.check(snapshot.config)
    snapshot.setup()
    return snapshot


def test_the_newest_picture_of_each_camera_is_there_and_nothing_else(tmp_path):
    snapshot = sink(tmp_path / "new")
    for n in range(3):
        snapshot.process(frame(n))
    snapshot.process(frame(9, camera="../yard"))
    snapshot.close()
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["_yard.jpg", "gate.jpg"]
    assert bar(cv2.imread(str(tmp_path / "new" / "gate.jpg"))) == 2
    assert bar(cv2.imread(str(tmp_path / "new" / "_yard.jpg"))) == 9


def test_a_reader_never_meets_half_a_picture(tmp_path):
    snapshot = sink(tmp_path)
    snapshot.process(frame(0, size_wh=(640, 360)))
    done, broken = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            data = (tmp_path / "gate.jpg").read_bytes()
            if not (data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9")):
                broken.append(len(data))

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(100):
        snapshot.process(frame(n, size_wh=(640, 360)))
    done.set()
    reader.join()
    assert not broken


def test_no_more_pictures_are_asked_for_than_are_kept(tmp_path):
    assert Snapshot(SnapshotConfig(path=str(tmp_path), interval_s=4)).max_hz == 0.25


@pytest.mark.parametrize("config", [{"interval_s": 0}, {"quality": 0}, {"quality": 101}])
def test_values_out_of_range_are_refused(tmp_path, config):
    with pytest.raises(ConfigError, match=next(iter(config))):
        Snapshot.check(SnapshotConfig(path=str(tmp_path), **config))


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="wanted a folder at"):
        Snapshot.check(SnapshotConfig(path=str(tmp_path / "file")))


def test_a_folder_that_went_away_costs_pictures_until_it_is_back(tmp_path):
    snapshot = sink(tmp_path / "new")
    (tmp_path / "new").rmdir()
    with pytest.raises(FrameError, match="can't be written"):
        snapshot.process(frame())
    (tmp_path / "new").mkdir()
    snapshot.process(frame(3))
    assert bar(cv2.imread(str(tmp_path / "new" / "gate.jpg"))) == 3


def test_a_full_disk_keeps_the_last_picture_and_no_half_one(tmp_path, small_files):
    snapshot = sink(tmp_path)
    snapshot.process(frame(1))
    with small_files(200), pytest.raises(FrameError, match="make room"):
        snapshot.process(frame(2))
    assert [path.name for path in tmp_path.iterdir()] == ["gate.jpg"]
    assert bar(cv2.imread(str(tmp_path / "gate.jpg"))) == 1
    snapshot.process(frame(3))
    assert bar(cv2.imread(str(tmp_path / "gate.jpg"))) == 3


MANY = """
import sys
from pathlib import Path
from sink_frames import frame
from stages.sinks.snapshot import Snapshot, SnapshotConfig

sink = Snapshot(SnapshotConfig(path=sys.argv[1]))
sink.setup()
frames = [frame(n, size_wh=(16, 16)) for n in range(16)]
pages = []
for n in range(4001):
    sink.process(frames[n % 16])
    if n % 1000 == 0:
        pages.append(int(Path("/proc/self/statm").read_text().split()[1]))
print(*(after - pages[1] for after in pages[2:]))
"""


def test_thousands_of_pictures_take_no_more_memory_than_one(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(tmp_path)], env=os.environ | {"PYTHONPATH": patterns.PATH},
        cwd=TESTS.parent,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert max(map(int, done.stdout.split())) <= 8  # pages of 4 KiB; it was 200
