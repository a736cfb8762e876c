"""Who is in the scene, until it is gone. Pure.

A tracker that loses somebody behind another often takes whoever comes out again for somebody new. Two ids
are no great harm, but a crossing in between would be lost with the first one. So somebody new, in the midst
of the picture, takes over beside which lines the one was that was lost there: by class, height, place and
time, and more generously than a tracker may join two objects, since only a count is at stake.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.detections import Detections

# benchmarks/counting.py: 12 crossings of 1,117 are missed at 5 a second instead of 19, and on other scenes
# 28 of 1,494 instead of 41; half or twice the reach changes those by two or three.
_REACH = 0.5  # of a box's height: how far from where somebody was lost
_REACH_A_SECOND = 1.0  # and so much more
_ALIKE = 1.1  # at most so many times as high or as low
_BORDER = 0.01  # of the picture: whose box is as near to its border comes in there, or has left


@dataclass(slots=True, eq=False)
class Object:
    """One object, with what the places of the scene remember of it."""

    id: int  # of the tracker
    label: int
    first_ns: int
    seen_ns: int
    score: float
    xyxy: Any  # float64 (4,), px
    inside: dict[str, Inside] = field(default_factory=dict)  # by zone
    beside: dict[str, Beside] = field(default_factory=dict)  # by line

    @property
    def height_px(self) -> float:
        """Of its box, at least a pixel."""
        return max(1.0, float(self.xyxy[3] - self.xyxy[1]))


@dataclass(slots=True)
class Inside:
    """A stay in a zone."""

    since_ns: int
    loitered: bool = False


@dataclass(slots=True)
class Beside:
    """Where an object is as seen from a line."""

    side: int  # of which it was last for sure; +1: right, -1: left, 0: it began on the line
    to_right_px: float  # of its last point
    along: float
    met_along: float = 0.5  # where its way last met the line's


class Objects:
    """The objects of one camera.

    gone_s: who is not seen for longer is gone; longer than a tracker looks for whoever it lost.
    sure: ids are the truth, so nobody is anybody else.
    """

    def __init__(self, gone_s: float, size_wh_px: tuple[int, int], *, sure: bool = False) -> None:
        self._gone_ns = int(gone_s * 1e9)
        self._size_wh_px = size_wh_px
        self._sure = sure
        self.by_id: dict[int, Object] = {}

    def __len__(self) -> int:
        return len(self.by_id)

    def update(
        self, tracked: Detections, t_ns: int
    ) -> tuple[list[Object], list[Object], list[Object]]:
        """Who is here, in the order of the boxes that have an id; who of them is new; who is gone."""
        known = tracked[np.asarray(tracked.track_ids) >= 0]
        boxes, scores = known.xyxy.astype(np.float64), known.scores.tolist()
        here, new = [], []
        for i, track in enumerate(np.asarray(known.track_ids).tolist()):
            one = self.by_id.get(track)
            if one is None:
                label = int(known.labels[i])
                one = self.by_id[track] = Object(track, label, t_ns, t_ns, scores[i], boxes[i])
                new.append(one)
            one.xyxy, one.label = boxes[i], int(known.labels[i])
            one.score, one.seen_ns = scores[i], t_ns
            here.append(one)
        gone = self._take_gone(t_ns)
        for one in () if self._sure else new:  # only now is known who is lost, and not gone
            self._take_over(one)
        return here, new, gone

    def take_all(self) -> list[Object]:
        """Everybody is gone: the picture is another one."""
        everybody = list(self.by_id.values())
        self.by_id.clear()
        return everybody

    def _take_over(self, new: Object) -> None:
        """What was known of whoever was lost nearest to where somebody new is, if anybody was."""
        if self._is_at_border(new):
            return
        lost = [one for one in self.by_id.values() if one.beside and one.seen_ns < new.first_ns]
        near = {one.id: _distance(one, new) for one in lost if not self._is_at_border(one)}
        nearest = min(near, key=near.__getitem__, default=-1)
        if near.get(nearest, 1.0) < 1:
            old = self.by_id[nearest]
            new.beside, old.beside = old.beside, {}

    def _is_at_border(self, one: Object) -> bool:
        width, height = self._size_wh_px
        x1, y1, x2, y2 = one.xyxy / (width, height, width, height)
        return bool(min(x1, y1) < _BORDER or max(x2, y2) > 1 - _BORDER)

    def _take_gone(self, t_ns: int) -> list[Object]:
        gone = [k for k, one in self.by_id.items() if t_ns - one.seen_ns > self._gone_ns]
        return [self.by_id.pop(track) for track in gone]


def _distance(lost: Object, new: Object) -> float:
    """How far somebody new is from where another was lost; 1: as far as it may be, inf: it is not that."""
    low, high = sorted((lost.height_px, new.height_px))
    if lost.label != new.label or high > _ALIKE * low:
        return math.inf
    (x1, y1, x2, y2), lost_s = (new.xyxy - lost.xyxy).tolist(), (new.first_ns - lost.seen_ns) / 1e9
    return math.hypot(x1 + x2, y1 + y2) / 2 / ((_REACH + _REACH_A_SECOND * lost_s) * high)
