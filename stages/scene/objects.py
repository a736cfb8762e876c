"""Who is in the scene, until it is gone. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.detections import Detections


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
    """

    def __init__(self, gone_s: float) -> None:
        self._gone_ns = int(gone_s * 1e9)
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
        return here, new, self._take_gone(t_ns)

    def take_all(self) -> list[Object]:
        """Everybody is gone: the picture is another one."""
        everybody = list(self.by_id.values())
        self.by_id.clear()
        return everybody

    def _take_gone(self, t_ns: int) -> list[Object]:
        gone = [k for k, one in self.by_id.items() if t_ns - one.seen_ns > self._gone_ns]
        return [self.by_id.pop(track) for track in gone]
