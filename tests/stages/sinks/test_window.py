from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sink_frames import bar, frame

from pipeline.errors import ConfigError
from stages.sinks.window import Wall, Window, WindowConfig, tiles


@given(st.integers(0, 70), st.integers(64, 2000), st.integers(64, 2000))
def test_tiles_lie_inside_beside_each_other(n, width, height):
    places = tiles(n, (width, height))
    assert len(places) == n
    covered = set()
    for x1, y1, x2, y2 in places:
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert (x1, y1) not in covered
        covered.add((x1, y1))
    assert sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in places) <= width * height


def test_the_wall_shows_the_newest_frame_of_each_camera():
    wall = Wall(["gate", "yard"], (320, 90))
    for n in (3, 4):
        assert wall.put(frame(n, "gate"))
    assert wall.put(frame(9, "yard"))
    assert bar(wall.image[:, :160]) == 4
    assert bar(wall.image[:, 160:]) == 9


def test_the_wall_takes_frames_of_any_size_and_refuses_strangers():
    wall = Wall(["gate"], (160, 160))
    assert wall.put(frame(5, "gate", size_wh=(331, 77)))
    assert wall.image[80].max() > 200
    assert not wall.put(frame(0, "stranger"))
    assert Wall([], (64, 64)).put(frame(0)) is False


@pytest.mark.parametrize("display", ["", ":987"])
def test_without_a_display_there_is_one_sentence(monkeypatch, display):
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    window = Window(WindowConfig())
    with pytest.raises(ConfigError, match="there is no display"):
        window.setup()  # on :987 the check passes and nobody answers
    window.close()


def test_values_out_of_range_are_refused(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    Window.check(WindowConfig())
    with pytest.raises(ConfigError, match="max_hz"):
        Window.check(WindowConfig(max_hz=0))
    with pytest.raises(ConfigError, match="width and height"):
        Window.check(WindowConfig(width=10))
    assert Window(WindowConfig(max_hz=9)).max_hz == 9
