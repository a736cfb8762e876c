"""The best picture of each object: which one, what is in it, how long it stays."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detections import Detections
from pipeline.errors import ConfigError, FrameError, ResourceError
from pipeline.happenings import picture_name
from pipeline.runtime import LocalRuntime
from pipeline.testing import frame
from stages.sinks.store.pictures import KEPT, LOST, Pictures, PicturesConfig, sweep, worth

BLUE, RED = (200, 40, 30), (30, 40, 200)


def shown(color, box, n=0, size_wh=(640, 360)):
    """A grey frame with a rectangle of this colour."""
    image = np.full((size_wh[1], size_wh[0], 3), 128, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = color
    return frame(image, camera="gate", frame_id=n)


def found(*boxes, ids=(7,), score=0.8):
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    n = len(xyxy)
    return Detections(xyxy, np.full(n, score, np.float32), np.zeros(n, np.int32), np.int64(ids))


@pytest.fixture
def pictures(tmp_path):
    stage = Pictures(PicturesConfig(path=str(tmp_path / "p"), run="5f3a"))
    stage.check(stage.config)
    stage.runtime = LocalRuntime(("gate",))
    stage.setup()
    return stage


def kept(stage, track=7, end=".jpg"):
    return Path(stage.config.path) / f"{picture_name('5f3a', 'gate', track)}{end}"


def middle(path):
    image = cv2.imread(str(path))
    return image[image.shape[0] // 2, image.shape[1] // 2]


def test_of_an_object_the_largest_and_surest_picture_is_kept(pictures):
    small, large = (300, 150, 340, 200), (200, 100, 400, 300)
    pictures.process(shown(BLUE, small), found(small))
    assert np.allclose(middle(kept(pictures)), BLUE, atol=12)
    pictures.process(shown(RED, large), found(large))
    assert np.allclose(middle(kept(pictures)), RED, atol=12)
    pictures.process(shown(BLUE, small), found(small))  # worse
    pictures.process(shown(BLUE, large), found(large, score=0.9))  # hardly better
    assert np.allclose(middle(kept(pictures)), RED, atol=12)
    assert pictures.runtime.counts[KEPT, "gate"] == 2
    crop, whole = (cv2.imread(str(kept(pictures, end=end))) for end in (".jpg", ".frame.jpg"))
    assert whole.shape == (360, 640, 3)
    assert crop.shape == (261, 261, 3)  # the box and a margin around it
    assert not list(Path(pictures.config.path).rglob("*.part"))


def test_one_that_was_killed_replaces_no_picture_by_one_that_is_no_better(pictures):
    small, middling, large = (300, 150, 340, 200), (280, 130, 340, 210), (200, 100, 400, 300)
    pictures.process(shown(RED, middling), found(middling))
    second = Pictures(pictures.config)
    second.runtime = pictures.runtime
    second.setup()
    second.process(shown(BLUE, small), found(small))
    assert np.allclose(middle(kept(pictures)), RED, atol=12)
    second.process(shown(BLUE, large), found(large))
    assert np.allclose(middle(kept(pictures)), BLUE, atol=12)


def test_a_frame_that_was_scaled_down_has_its_boxes_where_they_are(pictures):
    box = (100, 50, 200, 150)
    scaled = shown(RED, box)
    info = scaled.info._replace(width=1280, height=720)
    twice = tuple(2 * edge for edge in box)
    pictures.process(type(scaled)(info=info, format="bgr24", pixels=scaled.pixels), found(twice))
    crop = cv2.imread(str(kept(pictures)))
    assert crop.shape == (131, 131, 3)
    assert np.allclose(middle(kept(pictures)), RED, atol=12)


def test_who_has_no_id_has_no_picture(pictures):
    pictures.process(shown(RED, (0, 0, 9, 9)), found((0, 0, 9, 9), ids=(-1,)))
    pictures.process(shown(RED, (0, 0, 9, 9)), None)
    pictures.process(shown(RED, (0, 0, 9, 9)), Detections.empty())
    assert not list(Path(pictures.config.path).iterdir())


def test_a_crowd_is_taken_a_few_at_a_time(pictures):
    boxes = [(60 * n, 100, 60 * n + 40, 180) for n in range(10)]
    for n, expected in enumerate((4, 8, 10, 10)):
        pictures.process(shown(RED, boxes[0], n), found(*boxes, ids=range(10)))
        assert pictures.runtime.counts[KEPT, "gate"] == expected


def test_what_the_disk_does_not_take_is_counted_and_the_next_one_may_be_taken(pictures):
    in_the_way = Path(pictures.config.path) / "5f3a"
    in_the_way.write_text("a file where a folder belongs")
    box = (200, 100, 400, 300)
    with pytest.raises(FrameError, match=r"pictures in .* can't be written"):
        pictures.process(shown(RED, box), found(box))
    assert pictures.runtime.counts[LOST, "gate"] == 1
    in_the_way.unlink()
    pictures.process(shown(RED, box), found(box))
    assert kept(pictures).is_file()


def test_old_pictures_go_and_the_oldest_of_too_many(tmp_path):
    for day in range(10):
        path = tmp_path / f"run{day // 5}" / "gate" / f"{day}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
        os.utime(path, (day * 86400, day * 86400))
    assert sweep(tmp_path, keep_days=6.5, max_bytes=10**6) == 7000
    assert {path.name for path in tmp_path.rglob("*.jpg")} == {f"{day}.jpg" for day in range(3, 10)}
    assert sweep(tmp_path, keep_days=6.5, max_bytes=3500) == 3000
    assert sorted(path.name for path in tmp_path.rglob("*.jpg")) == ["7.jpg", "8.jpg", "9.jpg"]
    assert not (tmp_path / "run0").exists()


@given(st.floats(0, 600), st.floats(0, 300), st.floats(1, 640), st.floats(0.1, 1))
def test_a_box_that_grows_inside_the_picture_is_never_worth_less(x, y, side, score):
    box = np.array([x, y, x + side, y + side])
    bigger = box + np.array([0, 0, 1, 1])
    inside = bigger[2] < 639 and bigger[3] < 359 and x > 1 and y > 1
    if inside:
        assert worth(bigger, score, (640, 360)) >= worth(box, score, (640, 360))
    assert worth(box, score, (640, 360)) >= 0


def test_numbers_that_cant_be(tmp_path):
    with pytest.raises(ConfigError, match="pictures_mib"):
        Pictures.check(PicturesConfig(path=str(tmp_path), max_mib=-1))
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError):
        Pictures.check(PicturesConfig(path=str(tmp_path / "file")))
