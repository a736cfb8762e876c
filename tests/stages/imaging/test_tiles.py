"""Parts of a picture: they cover it, what is small is whole in one, and each object is found once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.detections import Detections, Fit
from stages.imaging.tiles import EDGE_PX, OVERLAP, merged, of_part, parts_of

SIZE, TILES = (1000, 600), (2, 2)
PARTS = parts_of(SIZE, TILES)


def found(*rows: tuple[float, ...]) -> Detections:
    """x1, y1, x2, y2, score, label each."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int32))


def boxes_of(*per_picture: Detections) -> list[list[float]]:
    return merged(per_picture, PARTS, SIZE, 0.5, 100).xyxy.tolist()


def seen_from(part: tuple[int, int, int, int], box: tuple[float, ...], score: float) -> Detections:
    """A box as a part shows it: cut by its edges, or not at all."""
    x1, y1 = max(box[0], part[0]), max(box[1], part[1])
    x2, y2 = min(box[2], part[2]), min(box[3], part[3])
    return found((x1, y1, x2, y2, score, 0)) if x1 < x2 and y1 < y2 else found()


@given(
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    tiles=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
@example(size=(1, 1), tiles=(8, 8), place=(0.0, 0.0))
def test_parts_cover_the_picture_and_what_is_small_is_whole_in_one(
    size: tuple[int, int], tiles: tuple[int, int], place: tuple[float, float]
) -> None:
    parts = parts_of(size, tiles)
    assert len(parts) == tiles[0] * tiles[1]
    covered = np.zeros((size[1], size[0]) if size[0] * size[1] < 10_000 else (0, 0), bool)
    for x1, y1, x2, y2 in parts:
        assert 0 <= x1 < x2 <= size[0]
        assert 0 <= y1 < y2 <= size[1]
        assert x1 % 2 == y1 % 2 == 0  # chroma has half the pixels
        covered[y1:y2, x1:x2] = True
    assert covered.all()
    # an object a little smaller than the overlap, anywhere
    wh = [
        side if n == 1 else max(0.0, OVERLAP * side / (n - (n - 1) * OVERLAP) - 2 * EDGE_PX - 2)
        for side, n in zip(size, tiles, strict=True)
    ]
    x, y = ((side - length) * share for side, length, share in zip(size, wh, place, strict=True))
    within = [
        all(
            (start == 0 or at - start >= EDGE_PX)
            and (end == side or end - at - length >= EDGE_PX)
            and start <= at
            and at + length <= end
            for at, length, start, end, side in (
                (x, wh[0], x1, x2, size[0]),
                (y, wh[1], y1, y2, size[1]),
            )
        )
        for x1, y1, x2, y2 in parts
    ]
    assert any(within) or min(size) < 100


def test_a_part_lies_in_the_input_where_its_picture_says() -> None:
    fit = of_part(Fit(scale_x=0.5, scale_y=0.25, offset_y_px=8), (100, 40, 300, 140))
    np.testing.assert_array_equal(
        fit.to_input(np.float32([[100, 40, 300, 140]])), [[0, 8, 100, 33]]
    )


@pytest.mark.parametrize("scores", [(0.9, 0.6), (0.6, 0.9)])
def test_an_object_on_the_seam_is_found_once_and_whole(scores: tuple[float, float]) -> None:
    edge = PARTS[0][2]
    box = (edge - 30.0, 100.0, edge + 20.0, 150.0)  # whole in the second part alone
    views = [seen_from(part, box, score) for part, score in zip(PARTS[:2], scores, strict=True)]
    assert boxes_of(found(), *views, found(), found()) == [list(box)]


def test_one_as_large_as_parts_is_taken_from_the_whole_picture() -> None:
    box = (200.0, 100.0, 800.0, 500.0)
    views = [seen_from(part, box, 0.8) for part in PARTS]
    assert boxes_of(found((*box, 0.7, 0)), *views) == [list(box)]


def test_what_is_small_counts_where_it_is_seen_largest() -> None:
    rough, exact = (50, 50, 60, 60, 0.9, 0), (54, 52, 66, 64, 0.5, 0)
    assert boxes_of(found(rough), found(exact), found(), found(), found()) == [list(exact[:4])]


def test_neighbours_and_other_classes_stay() -> None:
    edge = PARTS[0][2]
    left = found((edge - 40, 100, edge, 150, 0.9, 0))  # cut off, and nothing else shows it
    right = found(
        (edge - 40, 100, edge + 30, 150, 0.9, 1), (edge + 40, 100, edge + 90, 150, 0.9, 0)
    )
    assert len(boxes_of(found(), left, right, found(), found())) == 3


def test_a_guess_does_not_take_the_place_of_what_is_sure() -> None:
    edge = PARTS[0][2]
    sure, guess = (edge - 40, 100, edge, 150, 0.9, 0), (edge - 45, 90, edge + 60, 160, 0.01, 0)
    kept = merged((found(), found(sure), found(guess), found(), found()), PARTS, SIZE, 0.5, 100)
    assert kept.scores[0] == pytest.approx(0.9)


def test_nothing_is_nothing() -> None:
    assert boxes_of(*[found()] * 5) == []
