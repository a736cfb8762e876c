"""How alike a predicted and a found box are: by overlap, distance, height and class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.detections import Detections, Labels
from stages.track.stitching import Place

Array = npt.NDArray[np.float64]
Votes = Mapping[int, float]  # of an object: class → the sum of its scores; none: nobody knows

# Chosen on rendered scenes: by class on twelve with true boxes and ten with those of the demo model, by
# height on thirty with boxes of two kinds of noise. What benchmarks/tracking.py reports is of others.
_FROM_S = 0.05  # unseen: from then on it is where its filter has it, and as it was seen last
_HEIGHT = 2.0  # what boxes lose at most that share no height
_HEIGHT_A_SECOND = 8.0
_SHARED = 0.95  # of the height is all of it, but for the noise of a detector
_CLASS = 0.7  # what a box loses, of a sure score, whose class the track never had
_DOUBT = 1.0  # a vote that nobody gave: the first ones say little
_ALIKE = 1.2  # of who was seen once: at most so many times as high or as low
# Of who was seen once nobody knows the speed: at a low rate its next box is beside the first one.
_FRESH_DIOU = -0.3
_FRESH_A_SECOND = 2.0
_TINY = 1e-7  # px², as in the library
_BELOW = 1e-6  # so much less than the threshold is no pair


class Known(NamedTuple):
    """What is known of an object that is followed."""

    votes: Votes
    at: Place | None  # where it was last, and its size; None: it was seen once, nothing is known
    unseen_s: float


NOBODY = Known({}, None, 0.0)


class Likeness:
    """The library's DIoU, less what height and class say against it.

    Distance counts, so that small and fast objects whose boxes do not meet any more are still the same
    (Zheng et al.: Distance-IoU Loss, 2020), and for who was unseen shared height, since objects move
    along the ground (Yang et al.: Hybrid-SORT, 2024): a filter that goes on for a second knows how far
    they went, but neither how high they stand nor how large they are; so they are as they were seen
    last. Whoever comes out from behind another is often of another class: its box takes the other's
    track only if it overlaps it well, or if the votes of that are weak.
    """

    def __init__(self) -> None:
        self._next: tuple[Callable[[], Sequence[Known]], Detections, float] | None = None
        self.least = 0.0  # the tracker's threshold

    def expect(
        self, of_tracks: Callable[[], Sequence[Known]], found: Detections, interval_s: float
    ) -> None:
        """What is compared next; later comparisons are of boxes alone. interval_s: since the last one.

        of_tracks: called when it comes, since a tracker forgets who is lost for too long just before.
        """
        self._next = of_tracks, found, interval_s

    def compute(self, boxes_1: Array, boxes_2: Array) -> Array:
        """Likeness (N, M) of boxes (N, 4) of tracks and found ones (M, 4), at most 1.

        Pairs that can't be are all as unlike: else the best sum of all pairs would have a track take
        another's box to spare one pair a bad figure, which is none in the end.
        """
        given, self._next = self._next, None
        if not len(boxes_1) or not len(boxes_2):
            return np.zeros((len(boxes_1), len(boxes_2)))
        boxes_1, boxes_2 = boxes_1.astype(np.float64), boxes_2.astype(np.float64)
        if given is None:
            return _diou(boxes_1, boxes_2)
        of_tracks, found, interval_s = given
        known = of_tracks()
        votes = [one.votes for one in known]
        boxes_1 = _as_seen_last(boxes_1, known)
        diou = _diou(boxes_1, boxes_2)
        against = _CLASS * found.scores * _behind(votes, found.labels)
        late_s = max(0.0, interval_s - _FROM_S)
        unseen_s = np.array([late_s if one.at is None else one.unseen_s - _FROM_S for one in known])
        if (unseen_s > 0).any():
            height = np.clip(_HEIGHT_A_SECOND * unseen_s, 0, _HEIGHT)[:, None]
            against = against + height * np.maximum(0, _SHARED - _shared_height(boxes_1, boxes_2))
        alike = diou - against
        widest = max(_FRESH_DIOU, -_FRESH_A_SECOND * late_s)
        beside = (diou < self.least) & (diou >= widest)
        if beside.any():
            fresh = np.array([not one for one in votes])[:, None]
            first_px, found_px = (boxes[:, 3] - boxes[:, 1] for boxes in (boxes_1, boxes_2))
            high, low = (pick.outer(first_px, found_px) for pick in (np.maximum, np.minimum))
            barely = self.least + 0.01 * (1 + diou)  # so that it takes nobody's box who is known
            alike = np.where(beside & fresh & (high <= _ALIKE * low), barely, alike)
        return np.maximum(alike, self.least - _BELOW)


def _behind(votes: Sequence[Votes], labels: Labels) -> Array | float:
    """By how much of a track's votes the class of a box is behind the track's own: (N, M), 0..1."""
    classes = sorted({*labels.tolist(), *(label for one in votes for label in one)})
    if len(classes) < 2:  # as most often
        return 0.0
    table = np.array([[one.get(label, 0.0) for label in classes] for one in votes])  # (N, classes)
    most, total = table.max(axis=1, keepdims=True), table.sum(axis=1, keepdims=True)
    behind: Array = (most - table) / (total + _DOUBT)
    return behind[:, np.searchsorted(classes, labels)]


def _as_seen_last(boxes: Array, known: Sequence[Known]) -> Array:
    """The same, but of who was unseen only how far it went."""
    boxes = boxes.copy()
    for box, (_, at, unseen_s) in zip(boxes, known, strict=True):
        if at is not None and unseen_s > _FROM_S:
            x = (box[0] + box[2]) / 2
            half_width, half_height = at.width / 2, at.height / 2
            box[:] = x - half_width, at.y - half_height, x + half_width, at.y + half_height
    return boxes


def _shared_height(boxes_1: Array, boxes_2: Array) -> Array:
    """Of what both span from top to bottom: (N, M), 0..1."""
    (_, top_1, _, bottom_1), (_, top_2, _, bottom_2) = boxes_1.T, boxes_2.T
    shared = np.minimum.outer(bottom_1, bottom_2) - np.maximum.outer(top_1, top_2)
    spanned = np.maximum.outer(bottom_1, bottom_2) - np.minimum.outer(top_1, top_2)
    share: Array = np.maximum(shared, 0) / np.maximum(spanned, _TINY)
    return share


def _diou(boxes_1: Array, boxes_2: Array) -> Array:
    a, b = boxes_1[:, None], boxes_2[None]
    shared = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0)
    around = np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])
    overlap = shared.prod(axis=2)
    areas = (a[..., 2:] - a[..., :2]).prod(axis=2) + (b[..., 2:] - b[..., :2]).prod(axis=2)
    apart = (((a[..., :2] + a[..., 2:]) - (b[..., :2] + b[..., 2:])) ** 2).sum(axis=2) / 4
    diou: Array = overlap / np.maximum(areas - overlap, _TINY)
    diou -= apart / ((around**2).sum(axis=2) + _TINY)
    return diou
