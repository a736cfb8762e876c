"""Augmented pictures keep their boxes on their objects, and a seed decides everything."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from stages.detector.bundle import InputFacts, ResizeFacts
from stages.imaging.letterbox import prepare
from stages.training.transforms import Augment, AugmentConfig, Boxed, around_object, mosaic, sheet

INPUT, RESIZE = InputFacts(width=96, height=64), ResizeFacts()
ALL = AugmentConfig(
    flip=0.5, photometric=0, iou_crop=1, zoom_out=0.5, scale_jitter=0.5, mosaic=0.5, min_box_px=3
)


def scene(index: int, objects: int = 2) -> Boxed:
    """White rectangles, well apart, on black."""
    image = np.zeros((100, 140, 3), np.uint8)
    boxes = [(10 + 70 * i, 15 + index, 40 + 70 * i, 60 + index) for i in range(objects)]
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = 255
    return image, np.array(boxes, np.float32).reshape(-1, 4), np.arange(objects, dtype=np.int32)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_boxes_stay_on_their_objects(seed: int) -> None:
    canvas, boxes, labels = Augment(ALL, INPUT, ResizeFacts(pad=0))(scene, 1, 4, seed)
    assert canvas.shape == (3, 64, 96)
    assert canvas.dtype == torch.uint8
    assert len(boxes) == len(labels)
    white = canvas[0] > 127
    for x1, y1, x2, y2 in boxes.tolist():
        assert 0 <= x1 < x2 <= 96.01
        assert 0 <= y1 < y2 <= 64.01
        inside = white[max(0, round(y1)) : round(y2), max(0, round(x1)) : round(x2)]
        # resizing smears an edge over a pixel, and a neighbour in a crowded mosaic may reach in
        assert inside.float().mean() > 0.6


def test_what_is_small_already_is_not_shown_smaller() -> None:
    """Where parts are learnt from, no object comes smaller than the canvas shows it."""
    canvas = InputFacts(width=280, height=200)  # twice the scene's size: objects of 60x90 px
    defaults = AugmentConfig(iou_crop=0, photometric=0)
    for seed in range(12):
        _, boxes, _ = Augment(defaults, canvas, RESIZE, part_px=128)(scene, 1, 4, seed)
        largest = (boxes[:, 2:] - boxes[:, :2]).max(dim=0).values
        assert largest.tolist() == pytest.approx([60, 90], abs=1)
    asked = Augment(AugmentConfig(mosaic=1), canvas, RESIZE, part_px=128)
    assert asked.config.mosaic == 1  # who wants it gets it


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), index=st.integers(0, 3))
def test_a_part_shows_a_whole_object_at_the_scale_of_the_canvas(seed: int, index: int) -> None:
    canvas = InputFacts(width=280, height=200)  # twice the scene's size
    augment = Augment(AugmentConfig.off(), canvas, ResizeFacts(pad=0), part_px=128)
    picture, boxes, _ = augment(scene, index, 4, seed)
    assert picture.shape == (3, 128, 128)
    sides = (boxes[:, 2:] - boxes[:, :2]).tolist()
    assert [60.0, 90.0] in [[round(w), round(h)] for w, h in sides]
    for x1, y1, x2, y2 in boxes.round().int().tolist():
        assert (picture[0, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2] > 127).all()
    whole = Augment(AugmentConfig.off(), canvas, ResizeFacts(pad=0))(scene, index, 4, seed)
    assert whole[0].shape == (3, 200, 280)


def test_a_part_of_a_picture_that_shows_nothing_or_is_smaller_than_it() -> None:
    empty, _, _ = around_object(scene(0, objects=0), np.array([50.0, 40.0]))
    assert empty.shape == (40, 50, 3)
    image, boxes, labels = around_object(scene(0), np.array([500.0, 400.0]))
    assert image.shape == (100, 140, 3)
    assert (boxes == scene(0)[1]).all()
    assert labels.tolist() == [0, 1]
    # an object that is larger than the part: all of the part may be it
    large = (scene(0)[0], np.array([[0, 0, 140, 100]], np.float32), np.zeros(1, np.int32))
    _, boxes, _ = around_object(large, np.array([120.0, 90.0]))
    assert boxes.tolist() == [[0, 0, 120, 90]]


def test_objects_survive_the_variations() -> None:
    kept = [len(Augment(ALL, INPUT, RESIZE)(scene, 1, 4, seed)[1]) for seed in range(40)]
    assert sum(kept) > 40
    assert max(kept) > 2  # mosaics


def test_a_seed_decides_everything_and_touches_no_other_randomness() -> None:
    augment = Augment(AugmentConfig(mosaic=0.5, scale_jitter=0.5), INPUT, RESIZE)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, again = augment(scene, 0, 4, 123), augment(scene, 0, 4, 123)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(before, torch.get_rng_state())
    others = [augment(scene, 0, 4, seed)[0] for seed in range(8)]
    assert any(not torch.equal(first[0], other) for other in others)


def test_colors_vary_alike_in_either_order() -> None:
    config = AugmentConfig(flip=0, photometric=1, iou_crop=0, zoom_out=0, mosaic=0)
    bgr = InputFacts(width=96, height=64, color="bgr")
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    boxed = (image, np.array([[10, 10, 40, 40]], np.float32), np.zeros(1, np.int32))
    first, boxes, _ = Augment(config, INPUT, RESIZE)(lambda _: boxed, 0, 1, 5)
    other, _, _ = Augment(config, bgr, RESIZE)(lambda _: boxed, 0, 1, 5)
    assert torch.equal(first, other.flip(0))
    assert boxes.tolist() == [[10, 10, 40, 40]]
    plain, _, _ = Augment(AugmentConfig.off(), INPUT, RESIZE)(lambda _: boxed, 0, 1, 5)
    assert (first.float() - plain.float()).abs().mean() > 5


def test_without_variation_it_is_the_letterbox_of_the_pipeline() -> None:
    image, xyxy, _ = scene(2)
    image = np.random.default_rng(0).integers(0, 256, image.shape).astype(np.uint8)
    canvas, boxes, labels = Augment(AugmentConfig.off(), INPUT, RESIZE)(
        lambda _: (image, xyxy, np.array([1, 0], np.int32)), 0, 1, 5
    )
    expected, fit = prepare(image, INPUT, RESIZE)
    assert np.array_equal(canvas.permute(1, 2, 0).numpy(), expected)
    np.testing.assert_allclose(boxes.numpy(), fit.to_input(xyxy), atol=1e-4)
    assert labels.tolist() == [1, 0]
    assert labels.dtype == torch.int64


@pytest.mark.parametrize("config", [AugmentConfig(), ALL])
def test_a_picture_without_objects(config: AugmentConfig) -> None:
    for seed in range(6):
        canvas, boxes, labels = Augment(config, INPUT, RESIZE)(lambda i: scene(i, 0), 0, 1, seed)
        assert canvas.shape == (3, 64, 96)
        assert boxes.shape == (0, 4)
        assert labels.shape == (0,)


def test_boxes_too_small_to_learn_are_left_out() -> None:
    image = np.zeros((1000, 1000, 3), np.uint8)
    boxes = np.array([[0, 0, 20, 20], [100, 100, 600, 600]], np.float32)
    augment = Augment(AugmentConfig.off(), INPUT, RESIZE)
    _, kept, labels = augment(lambda _: (image, boxes, np.array([0, 1], np.int32)), 0, 1, 0)
    assert labels.tolist() == [1]
    assert len(kept) == 1


def test_mosaic_of_pictures_of_several_sizes() -> None:
    torch.manual_seed(3)
    small = scene(0)
    large = (cv2.resize(small[0], (280, 200)), small[1] * 2, small[2])
    image, boxes, labels = mosaic([small, large, scene(0, 0), small], 114)
    assert image.shape == small[0].shape
    assert boxes.dtype == np.float32
    assert len(boxes) == len(labels) >= 1
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [140, 100]).all()


def test_the_sheet_shows_every_picture() -> None:
    pictures = [Augment(AugmentConfig(), INPUT, RESIZE)(scene, i, 4, i) for i in range(5)]
    assert sheet(pictures, "rgb", columns=4).shape == (128, 384, 3)


def test_a_probability_is_one() -> None:
    with pytest.raises(ConfigError, match=r"mosaic is a probability, wanted 0\.\.1, got 1\.5"):
        AugmentConfig(mosaic=1.5)
