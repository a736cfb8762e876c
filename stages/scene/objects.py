"""Who is in the scene: objects over the switches of their tracks, until they are gone. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipeline.detections import Detections

# Chosen by benchmarks/counting.py. Most crossings that are missed happen behind somebody else: with a
# second of patience instead of five, a reach that does not grow and a velocity of the last steps alone,
# 22 of 563 are missed instead of 11.
STITCH_NS = 5_000_000_000  # a track that begins so soon after another was lost may be its heir
_REACH = 1.0  # of the box's height: how far from where the other would be by now
_REACH_A_SECOND = 0.75  # and so much more, since who is hidden may halt or hurry
_ALIKE = 1.5  # at most so many times as high or as low
_SMOOTH = 0.2  # weight of the newest step in the velocity


@dataclass(slots=True, eq=False)
class Object:
    """One object, with what the places of the scene remember of it."""

    id: int  # the track that it was first
    label: int
    first_ns: int
    seen_ns: int
    score: float
    xyxy: Any  # float64 (4,), px
    velocity: Any  # float64 (2,), px a second
    inside: dict[str, Inside] = field(default_factory=dict)  # by zone
    beside: dict[str, Beside] = field(default_factory=dict)  # by line

    @property
    def height_px(self) -> float:
        """Of its box, at least a pixel."""
        return max(1.0, float(self.xyxy[3] - self.xyxy[1]))

    def see(self, xyxy: Any, label: int, score: float, t_ns: int) -> None:
        """It is here now."""
        seconds = (t_ns - self.seen_ns) / 1e9
        moved = (xyxy[:2] + xyxy[2:] - self.xyxy[:2] - self.xyxy[2:]) / 2
        self.velocity = (1 - _SMOOTH) * self.velocity + _SMOOTH * moved / seconds
        self.xyxy, self.label, self.score, self.seen_ns = xyxy, label, score, t_ns


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

    gone_s: who is not seen for longer is gone. stitches: whether tracks may break.
    """

    def __init__(self, gone_s: float, *, stitches: bool = True) -> None:
        self._gone_ns = int(gone_s * 1e9)
        self._stitches = stitches
        self.by_track: dict[int, Object] = {}

    def __len__(self) -> int:
        return len(self.by_track)

    def update(
        self, tracked: Detections, t_ns: int
    ) -> tuple[list[Object], list[Object], list[Object]]:
        """Who is here, in the order of the boxes that have an id; who of them is new; who is gone.

        A new track may be an object that is known: its tracker lost it a moment ago, here, and took it
        for another. Then the object goes on, with all that is remembered of it.
        """
        ids = np.asarray(tracked.track_ids)
        boxes, labels = tracked.xyxy.astype(np.float64), tracked.labels.tolist()
        places = np.flatnonzero(ids >= 0).tolist()
        known = [i for i in places if int(ids[i]) in self.by_track]
        for i in known:
            one = self.by_track[int(ids[i])]
            one.see(boxes[i], labels[i], float(tracked.scores[i]), t_ns)
        new = []
        for i in places:
            track = int(ids[i])
            if track in self.by_track:
                continue
            heir_of = self._lost(boxes[i], labels[i], t_ns) if self._stitches else None
            if heir_of is None:
                one = Object(
                    track, labels[i], t_ns, t_ns, float(tracked.scores[i]), boxes[i], np.zeros(2)
                )
                new.append(one)
            else:
                one = self.by_track.pop(heir_of)
                one.see(boxes[i], labels[i], float(tracked.scores[i]), t_ns)
            self.by_track[track] = one
        here = [self.by_track[int(ids[i])] for i in places]
        return here, new, self._take_gone(t_ns)

    def named(self, tracked: Detections) -> Detections:
        """The boxes of the last frame with the ids of their objects in place of those of their tracks."""
        if tracked.track_ids is None:
            return tracked
        tracks = tracked.track_ids.tolist()
        ids = [self.by_track[track].id if track in self.by_track else track for track in tracks]
        return tracked if ids == tracks else replace(tracked, track_ids=np.array(ids, np.int64))

    def take_all(self) -> list[Object]:
        """Everybody is gone: the picture is another one."""
        everybody = list(self.by_track.values())
        self.by_track.clear()
        return everybody

    def _lost(self, box: Any, label: int, t_ns: int) -> int | None:
        """The track of the object that was lost a moment ago and would be here by now."""
        best, nearest = None, 1.0
        for track, one in self.by_track.items():
            lost_s = (t_ns - one.seen_ns) / 1e9
            if not 0 < lost_s <= STITCH_NS / 1e9 or one.label != label:
                continue
            height = max(1.0, float(box[3] - box[1]))
            if max(height, one.height_px) > _ALIKE * min(height, one.height_px):
                continue
            middle = (one.xyxy[:2] + one.xyxy[2:]) / 2 + one.velocity * lost_s
            reach_px = (_REACH + _REACH_A_SECOND * lost_s) * max(height, one.height_px)
            away = float(np.hypot(*((box[:2] + box[2:]) / 2 - middle))) / reach_px
            if away < nearest:
                best, nearest = track, away
        return best

    def _take_gone(self, t_ns: int) -> list[Object]:
        gone = [k for k, one in self.by_track.items() if t_ns - one.seen_ns > self._gone_ns]
        return [self.by_track.pop(track) for track in gone]
