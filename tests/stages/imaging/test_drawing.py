from __future__ import annotations

import numpy as np
import pytest

from pipeline.detections import Detections
from stages.imaging.drawing import PALETTE, color_of, draw

NAMES = ("person", "car", "bicycle")
SIZES = [(320, 180), (640, 352), (1920, 1080), (90, 160), (20, 12), (1, 1)]


def found(*boxes, labels=None, tracks=None) -> Detections:
    n = len(boxes)
    return Detections(
        np.float32(boxes).reshape(n, 4),
        np.linspace(0.5, 1, n).astype(np.float32),
        np.int32(labels if labels is not None else range(n)),
        None if tracks is None else np.int64(tracks),
    )


def has(image, color) -> bool:
    return bool((image == color).all(axis=2).any())


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_any_size_and_any_box(width, height):
    image = np.full((height, width, 3), 60, np.uint8)
    boxes = found(
        [0, 0, width, height], [0, 0, 0, 0], [-1e9, -5, 1e9, 3], [width, height, width, height]
    )
    out = draw(image, boxes, NAMES, title="a long name of a gate", clock="10:00:00", fps=12.3)
    assert out is image
    assert image.shape == (height, width, 3)


@pytest.mark.parametrize(("width", "height"), SIZES[:3])
def test_boxes_are_where_they_were_found(width, height):
    image = np.full((height, width, 3), 60, np.uint8)
    x1, y1, x2, y2 = width // 4, height // 2, width // 2, height * 3 // 4
    draw(image, found([x1, y1, x2, y2]), NAMES)
    for x, y in ((x1, (y1 + y2) // 2), (x2, (y1 + y2) // 2), ((x1 + x2) // 2, y2)):
        assert image[y, x].tolist() == list(PALETTE[0])
    assert (image[(y1 + y2) // 2, (x1 + x2) // 2] == 60).all()
    assert (image[: height // 3] == 60).all()  # and nowhere else


@pytest.mark.parametrize(("width", "height"), SIZES[:3])
def test_a_side_begins_at_an_even_pixel_and_is_two_wide_or_more(width, height):
    for x, y in ((20, 40), (21, 41)):
        image = np.full((height, width, 3), 60, np.uint8)
        draw(image, found([x, y, x + 61, y + 121]), NAMES)
        colored = (image == PALETTE[0]).all(axis=2)
        for line in (colored[100], colored[100:, x + 30]):  # below the label
            changes = np.flatnonzero(np.diff(line.astype(int))) + 1  # one side, or two
            assert len(changes) in (2, 4)
            assert (changes % 2 == 0).all()


def test_what_lies_outside_the_picture_is_left_out():
    image = np.full((180, 320, 3), 60, np.uint8)
    outside = [[-60, 50, -1, 90], [320, 50, 380, 90], [50, -40, 90, 0], [50, 180, 90, 200]]
    draw(image, found(*outside), NAMES)
    assert (image == 60).all()


@pytest.mark.parametrize("detections", [None, Detections.empty()])
def test_nothing_found_changes_nothing_but_the_status_line(detections):
    image = np.full((180, 320, 3), 60, np.uint8)
    assert (draw(image.copy(), detections, NAMES) == image).all()
    drawn = draw(image.copy(), detections, NAMES, title="gate", clock="10:00:00", fps=5)
    assert (drawn[:10] != 60).any()
    assert (drawn[40:] == 60).all()


def test_letters_grow_with_the_picture():
    ink = []
    for width, height in SIZES[:3]:
        image = np.zeros((height, width, 3), np.uint8)
        draw(image, None, NAMES, title="gate")
        rows = np.nonzero(image.any(axis=(1, 2)))[0]
        ink.append(rows.max() - rows.min())
    assert ink[0] >= 7  # px, still legible
    assert ink[0] < ink[1] < ink[2]


def test_a_colour_belongs_to_the_track_or_else_to_the_class():
    image = np.zeros((180, 320, 3), np.uint8)
    draw(image, found([40, 60, 90, 120], labels=[1]), NAMES)
    assert has(image, color_of(1))
    image[:] = 0
    draw(image, found([40, 60, 90, 120], labels=[1], tracks=[16]), NAMES)
    assert has(image, color_of(16))
    assert not has(image, color_of(1))
    assert color_of(16) == color_of(16 + len(PALETTE))


def test_a_box_that_is_of_no_object_yet_is_left_out():
    image = np.zeros((180, 320, 3), np.uint8)
    draw(image, found([40, 60, 90, 120], [140, 60, 190, 120], tracks=[-1, 16]), NAMES)
    assert not image[:, :100].any()
    assert has(image, color_of(16))


def test_labels_keep_clear_of_each_other_and_stay_inside():
    image = np.zeros((360, 640, 3), np.uint8)
    box = [600, 0, 640, 30]  # top right: no room above, none to the right
    draw(image, found(box, [598, 2, 638, 33], labels=[0, 1]), NAMES)
    areas = [(image == color_of(label)).all(axis=2).sum() for label in (0, 1)]
    assert min(areas) > 400  # px of background: neither label hides the other


def test_where_there_is_no_room_a_label_covers_as_little_as_it_can():
    image = np.zeros((60, 400, 3), np.uint8)
    boxes = found(*[[20 * n, 0, 20 * n + 120, 59] for n in range(10)], labels=range(10))
    draw(image, boxes, NAMES)
    areas = [(image == color_of(label)).all(axis=2).sum() for label in range(10)]
    assert min(areas) > 150


def test_a_label_without_a_name_is_shown_as_its_number():
    image = np.zeros((180, 320, 3), np.uint8)
    draw(image, found([40, 60, 90, 120], labels=[77]), NAMES)
    assert has(image, color_of(77))
