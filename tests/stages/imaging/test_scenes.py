from __future__ import annotations

import random

import numpy as np
import pytest

from stages.imaging.scenes import CLASSES, Scene, still
from stages.imaging.shapes import Look, Pen, box_of, paint


def test_a_moment_depends_on_seed_size_and_time_only():
    forward, backward = Scene(3, (160, 90), 5), Scene(3, (160, 90), 5)
    times = [0.0, 0.4, 7.0, 33.3, 120.0]
    first = [forward.render(t) for t in times]
    second = [backward.render(t) for t in reversed(times)][::-1]
    for (image, truth), (image2, truth2) in zip(first, second, strict=True):
        np.testing.assert_array_equal(image, image2)
        np.testing.assert_array_equal(truth.xyxy, truth2.xyxy)
        np.testing.assert_array_equal(truth.track_ids, truth2.track_ids)
    assert (first[0][0] != Scene(4, (160, 90), 5).render(0.0)[0]).any()
    assert (first[0][0] != first[1][0]).any()


def test_it_draws_into_the_memory_it_is_given():
    out = np.full((90, 160, 3), 99, np.uint8)
    image, _ = Scene(1, (160, 90)).render(1.0, out)
    assert image is out
    np.testing.assert_array_equal(out, Scene(1, (160, 90)).render(1.0)[0])


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("mirror", [False, True])
def test_a_box_is_what_is_painted(name, mirror):
    rng = random.Random(name)
    looks = [look for look in (Look.choose(rng) for _ in range(60)) if look.name == name]
    for look in looks:
        pen = Pen(90.3, 40.7, rng.uniform(15, 120), look.aspect, mirror)
        strokes = look.strokes(rng.uniform(0, 9))
        canvas = np.zeros((240, 520), np.uint8)
        paint(canvas, strokes, pen, level=255)
        ys, xs = np.nonzero(canvas)
        painted = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        np.testing.assert_allclose(box_of(strokes, pen), painted, atol=2.0)


@pytest.mark.parametrize("size_wh", [(640, 360), (320, 320), (90, 160), (101, 57), (16, 16)])
def test_truth_boxes_lie_inside_and_are_worth_finding(size_wh):
    width, height = size_wh
    scene = Scene(7, size_wh, 8)
    for t in np.arange(0, 30, 0.7):
        image, truth = scene.render(float(t))
        assert image.shape == (height, width, 3)
        assert (truth.xyxy >= 0).all()
        assert (truth.xyxy <= [width, height, width, height]).all()
        sides = truth.xyxy[:, 2:] - truth.xyxy[:, :2]
        assert (sides >= [4, 6]).all()
        assert len(set(truth.track_ids.tolist())) == len(truth)


def test_objects_enter_move_and_leave():
    scene = Scene(2, (320, 180), 4)
    seen: dict[int, list[tuple[float, float]]] = {}
    for k in range(450):
        truth = scene.render(k / 15)[1]
        for box, track in zip(truth.xyxy, truth.track_ids, strict=True):
            seen.setdefault(int(track), []).append((k / 15, float(box[0] + box[2]) / 2))
    assert len(seen) >= 10
    ended = [way for way in seen.values() if way[0][0] > 1 and way[-1][0] < 29]
    assert ended
    assert all(abs(way[-1][1] - way[0][1]) > 100 for way in ended)


def full_size_share_visible(scene: Scene, t_s: float) -> dict[int, tuple[float, float]]:
    """By track id: (share of the silhouette in the frame that is visible, share of the box inside)."""
    width, height = scene.size_wh_px
    levels, own, inside = np.zeros((height, width), np.uint8), {}, {}
    things = sorted(scene._things(t_s), key=lambda thing: thing.ground_y_px)
    for level, thing in enumerate(things, start=1):
        look, h = thing.walk.look, thing.walk.height_px
        pen = Pen(
            thing.x_px - h * look.aspect / 2, thing.ground_y_px - h, h, look.aspect,
            thing.walk.leftward,
        )  # fmt: skip
        strokes = look.strokes(thing.phase)
        paint(levels, strokes, pen, level=level)
        own[level] = (levels == level).sum()
        x1, y1, x2, y2 = box_of(strokes, pen)
        w, h = min(x2, width) - max(x1, 0), min(y2, height) - max(y1, 0)
        inside[level] = max(w, 0) * max(h, 0) / ((x2 - x1) * (y2 - y1))
    scene._background.front(levels.copy(), levels, 1.0)
    return {
        thing.walk.track_id: ((levels == level).sum() / max(1, own[level]), inside[level])
        for level, thing in enumerate(things, start=1)
    }


def test_what_is_hidden_or_outside_has_no_box_and_the_rest_has():
    without = with_box = 0
    for seed in range(12):
        scene = Scene(seed, (640, 360), 12)
        for t in range(6):
            tracks = scene.render(t)[1].track_ids.tolist()
            for track, (visible, inside) in full_size_share_visible(scene, t).items():
                if visible < 0.33 or inside < 0.39:
                    assert track not in tracks
                    without += 1
                elif visible > 0.52 and inside > 0.41:
                    assert track in tracks
                    with_box += 1
    assert without > 30
    assert with_box > 200


def test_an_empty_scene_has_a_background_and_no_truth():
    image, truth = Scene(1, (64, 48), 0).render(0)
    assert len(truth) == 0
    assert truth.track_ids is not None
    assert image.std() > 1
    assert len(still(1, 1, (64, 48), objects=0)[1]) == 0


def test_stills_differ_and_show_every_class_about_as_often():
    labels: list[int] = []
    pictures = set()
    for index in range(150):
        image, truth = still(5, index, (160, 120))
        pictures.add(image.tobytes())
        labels += truth.labels.tolist()
    assert len(pictures) == 150
    shares = np.bincount(labels, minlength=3) / len(labels)
    assert (shares > 0.2).all()
    again = still(5, 149, (160, 120))[0]
    np.testing.assert_array_equal(image, again)
