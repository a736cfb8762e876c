from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import FrameError
from stages.detector.bundle import InputFacts, ResizeFacts
from stages.imaging.letterbox import fit_into, prepare, prepare_i420
from stages.imaging.pixels import to_i420

SIDES = st.integers(1, 5000)
RESIZES = st.builds(
    ResizeFacts,
    mode=st.sampled_from(["letterbox", "stretch"]),
    align=st.sampled_from(["center", "top-left"]),
    interpolation=st.sampled_from(["linear", "area", "nearest", "cubic", "antialias"]),
)
INPUTS = st.builds(
    InputFacts, width=st.integers(1, 1300), height=st.integers(1, 1300),
    color=st.sampled_from(["rgb", "bgr"]),
)  # fmt: skip


def smooth(width: int, height: int) -> np.ndarray:
    """A picture without an edge: colours that change slowly across it."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    planes = [90 + 80 * np.sin(3 * x + c) * np.cos(2 * y - c) for c in range(3)]
    return np.stack(planes, axis=2).astype(np.uint8)


@given(SIDES, SIDES, INPUTS, RESIZES, st.data())
def test_boxes_there_and_back(width, height, input, resize, data):
    fit, (x1, y1, x2, y2) = fit_into((width, height), input, resize)
    assert 0 <= x1 < x2 <= input.width
    assert 0 <= y1 < y2 <= input.height
    xs = sorted(data.draw(st.tuples(*[st.floats(0, width, width=32)] * 2)))
    ys = sorted(data.draw(st.tuples(*[st.floats(0, height, width=32)] * 2)))
    boxes = np.float32([[xs[0], ys[0], xs[1], ys[1]], [0, 0, width, height]])
    there = fit.to_input(boxes)
    np.testing.assert_allclose(there[1], [x1, y1, x2, y2], atol=1e-3)
    assert abs(fit.to_source(there, (width, height)) - boxes).max() <= 1


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 80), st.integers(1, 80), RESIZES)
def test_the_picture_fills_the_inner_box_and_bars_the_rest(width, height, out_w, out_h, resize):
    input = InputFacts(width=out_w, height=out_h)
    out = np.full((out_h, out_w, 3), 7, np.uint8)
    got, fit = prepare(np.full((height, width, 3), 200, np.uint8), input, resize, out=out)
    assert got is out
    _, (x1, y1, x2, y2) = fit_into((width, height), input, resize)
    assert (out[y1:y2, x1:x2] == 200).all()
    out[y1:y2, x1:x2] = resize.pad
    assert (out == resize.pad).all()
    assert fit.scale_x == (x2 - x1) / width


@pytest.mark.parametrize("size", [(48, 36), (130, 20), (64, 200)])
def test_antialias_has_the_pixels_of_torchvision(size):
    """Which are those of transformers' processors, within the one that is rounded otherwise."""
    torch = pytest.importorskip("torch")
    from torchvision.transforms.v2 import functional

    picture = np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)
    resize = ResizeFacts(mode="stretch", interpolation="antialias")
    ours, _ = prepare(picture, InputFacts(width=size[0], height=size[1], color="bgr"), resize)
    planar = torch.from_numpy(picture).permute(2, 0, 1)
    theirs = functional.resize(planar, list(size[::-1]), antialias=True).permute(1, 2, 0).numpy()
    assert abs(ours.astype(int) - theirs).max() <= 1


def test_a_yolox_picture_lies_top_left_at_its_exact_scale():
    input, resize = InputFacts(width=416, height=416), ResizeFacts(align="top-left")
    fit, inner = fit_into((640, 352), input, resize)
    assert inner == (0, 0, 416, 229)  # round(352 * 0.65)
    assert (fit.scale_x, fit.scale_y) == (416 / 640, 229 / 352)
    assert (fit.offset_x_px, fit.offset_y_px) == (0, 0)


def test_stretching_fills_everything():
    input, resize = InputFacts(width=320, height=320), ResizeFacts(mode="stretch")
    fit, inner = fit_into((640, 160), input, resize)
    assert inner == (0, 0, 320, 320)
    assert (fit.scale_x, fit.scale_y) == (0.5, 2)


def test_colour_order_is_the_models():
    blue = np.zeros((4, 4, 3), np.uint8)
    blue[..., 0] = 255
    for color, wanted in (("rgb", [0, 0, 255]), ("bgr", [255, 0, 0])):
        out, _ = prepare(blue, InputFacts(width=4, height=4, color=color), ResizeFacts())
        assert out[2, 2].tolist() == wanted


def test_interpolation_is_the_one_of_the_facts():
    noise = np.random.default_rng(1).integers(0, 255, (60, 60, 3), np.uint8)
    codes = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA,
             "nearest": cv2.INTER_NEAREST, "cubic": cv2.INTER_CUBIC}  # fmt: skip
    for name, code in codes.items():
        input = InputFacts(width=25, height=25, color="bgr")
        out, _ = prepare(noise, input, ResizeFacts(interpolation=name))
        np.testing.assert_array_equal(out, cv2.resize(noise, (25, 25), interpolation=code))


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("interpolation", ["linear", "area", "nearest", "cubic"])
@pytest.mark.parametrize("size_wh", [(1280, 720), (320, 240), (100, 80)])
def test_resized_planes_are_the_converted_picture(
    matrix, full_range, color, interpolation, size_wh
):
    width, height = size_wh
    image = smooth(width, height)
    flat = to_i420(image, matrix, full_range).reshape(-1)
    n, q = width * height, width * height // 4
    planes = (
        flat[:n].reshape(height, width),
        flat[n : n + q].reshape(height // 2, width // 2),
        flat[n + q :].reshape(height // 2, width // 2),
    )
    input = InputFacts(width=320, height=320, color=color)
    resize = ResizeFacts(interpolation=interpolation)
    wanted, wanted_fit = prepare(image, input, resize)
    got, fit = prepare_i420(planes, matrix, full_range, input, resize)
    assert fit == wanted_fit
    difference = abs(got.astype(int) - wanted)
    assert np.percentile(difference, 99) <= 3
    assert difference.mean() < 1.2


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_what_is_no_picture_is_refused(image):
    with pytest.raises(FrameError, match="image_bgr: wanted uint8"):
        prepare(image, InputFacts(width=8, height=8), ResizeFacts())


def test_an_output_of_another_size_is_refused():
    with pytest.raises(FrameError, match=r"out: wanted uint8 \(8, 9, 3\)"):
        prepare(
            np.zeros((4, 4, 3), np.uint8), InputFacts(width=9, height=8), ResizeFacts(),
            out=np.zeros((9, 8, 3), np.uint8),
        )  # fmt: skip
