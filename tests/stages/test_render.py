from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipeline.detections import Detections
from pipeline.messages import Frame, FrameInfo
from pipeline.runtime import LocalRuntime
from stages.imaging.drawing import color_of
from stages.imaging.pixels import to_i420
from stages.render import Render, RenderConfig

CAR = Detections(np.float32([[40, 60, 120, 140]]), np.float32([0.9]), np.int32([1]))


class Slots(LocalRuntime):
    """Remembers the memory that it gave."""

    def __init__(self) -> None:
        super().__init__(["gate"])
        self.given: list[np.ndarray] = []

    def empty(self, shape, dtype):
        self.given.append(super().empty(shape, dtype))
        return self.given[-1]


def stage(**config) -> Render:
    render = Render(RenderConfig(classes=("person", "car"), **config))
    render.runtime = Slots()
    render.setup()
    return render


def frame(
    n: int = 0, format: str = "bgr24", camera: str = "gate", t_ns: int | None = None
) -> Frame:
    image = np.full((180, 320, 3), 60, np.uint8)
    pixels = image if format == "bgr24" else to_i420(image)
    pixels.flags.writeable = False
    info = FrameInfo(
        camera=camera, frame_id=n, t_capture_ns=n * 100_000_000 if t_ns is None else t_ns,
        t_wall_ns=1_700_000_000_000_000_000, width=320, height=180,
    )  # fmt: skip
    return Frame(info=info, format=format, pixels=pixels)


@pytest.mark.parametrize("format", ["bgr24", "i420"])
def test_a_frame_is_drawn_into_its_slot_and_the_source_is_left_alone(format):
    render, given = stage(), frame(format=format)
    before = given.pixels.copy()
    out = render.process(given, CAR)
    assert out.pixels is render.runtime.given[0]
    assert len(render.runtime.given) == 1
    assert (out.format, out.info) == ("bgr24", given.info)
    assert out.pixels[100, 40].tolist() == list(color_of(1))
    assert abs(out.pixels[100, 80].astype(int) - 60).max() <= 2
    np.testing.assert_array_equal(given.pixels, before)


@pytest.mark.parametrize("detections", [None, Detections.empty()])
def test_nothing_found_shows_the_picture(detections):
    out = stage(show_clock=False, show_fps=False, show_title=False).process(frame(), detections)
    assert (out.pixels == 60).all()


@pytest.mark.parametrize("shown", ["show_title", "show_clock", "show_fps"])
def test_each_part_of_the_status_line_can_be_had_alone(shown):
    off = {"show_title": False, "show_clock": False, "show_fps": False}
    render = stage(**off | {shown: True})
    render.process(frame(0), None)
    assert (render.process(frame(1), None).pixels[:20] != 60).any()


def test_frames_per_second_are_counted_per_camera_from_capture_times():
    render = stage()
    rates = [render._fps("gate", n * 100_000_000) for n in range(50)]
    assert rates[0] is None
    assert rates[1:] == pytest.approx([10.0] * 49)
    assert render._fps("yard", 5) is None
    assert [render._fps("gate", 3), render._fps("gate", 3 + 10**9)] == [None, 1.0]  # began anew
    assert render._fps("gate", 3 + 11 * 10**9) == pytest.approx(0.1)


def test_a_slot_holds_the_picture_of_either_format():
    config = RenderConfig()
    assert Render.slot_bytes(config, 320 * 180 * 3 // 2) >= 320 * 180 * 3


def test_boxes_of_a_large_source_lie_right_in_its_small_frame():
    small = frame()
    large = dataclasses.replace(small, info=small.info._replace(width=960, height=360))
    wide = Detections(CAR.xyxy * np.float32([3, 2, 3, 2]), CAR.scores, CAR.labels)
    np.testing.assert_array_equal(
        stage(show_clock=False).process(large, wide).image,
        stage(show_clock=False).process(small, CAR).image,
    )
