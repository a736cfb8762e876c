"""Places drawn on a picture."""

import cv2
import numpy as np
import pytest
from walks import LEFT_HALF, MIDDLE, line, zone

from pipeline.errors import ConfigError, ResourceError
from stages.scene.drawing import draw_places, write_places


@pytest.mark.parametrize("size", [(90, 160), (720, 1280)])
def test_a_zone_tints_its_inside_and_a_line_is_where_it_is(size):
    image = np.zeros((*size, 3), np.uint8)
    drawn = draw_places(image, [zone(LEFT_HALF)], [])
    assert drawn is image
    height, width = size
    assert drawn[height // 4, 2].any()
    assert not drawn[height // 4, -2].any()
    crossed = draw_places(np.zeros((*size, 3), np.uint8), [], [line(MIDDLE)])
    assert crossed[:, width // 2].any(axis=1).all()


def test_a_tiny_picture_has_room_for_something():
    assert draw_places(np.zeros((16, 16, 3), np.uint8), [zone(LEFT_HALF)], [line(MIDDLE)]).any()


def test_without_places_nothing_is_drawn():
    assert not draw_places(np.zeros((90, 160, 3), np.uint8), [], []).any()


def test_a_place_that_can_not_be_is_refused():
    with pytest.raises(ConfigError, match="zone 'door': polygon must have 3 points"):
        draw_places(np.zeros((90, 160, 3), np.uint8), [zone([[0, 0], [1, 1]])], [])


def test_the_file(tmp_path):
    path = tmp_path / "zones.png"
    write_places(str(path), np.zeros((90, 160, 3), np.uint8), [zone(LEFT_HALF)], [])
    assert cv2.imread(str(path)).shape == (90, 160, 3)
    with pytest.raises(ResourceError, match="name another file"):
        write_places(str(tmp_path), np.zeros((90, 160, 3), np.uint8), [], [])
