from __future__ import annotations

import threading

import cv2
import pytest
from sink_frames import bar, frame

from pipeline.errors import ConfigError, ResourceError
from stages.sinks.snapshot import Snapshot, SnapshotConfig


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


def test_a_folder_that_went_away_is_said(tmp_path):
    snapshot = sink(tmp_path / "new")
    (tmp_path / "new").rmdir()
    with pytest.raises(ResourceError, match="can't be written"):
        snapshot.process(frame())
