"""What is known of the objects of one camera while they are followed: id of the run, class, course."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pipeline.detections import Detections, TrackIds
from stages.track.likeness import NOBODY, Known
from stages.track.stitching import Course, Place

_FORGET_NS = 2_000_000_000  # after a follower has given an object up
_CLASSES = 8  # of an object, that are saved
_OBJECT = np.dtype([
    ("key", "<i8"), ("id", "<i8"), ("seen_ns", "<i8"), ("classes", "<u4"),
    ("labels", "<i4", (_CLASSES,)), ("votes", "<f8", (_CLASSES,)),
    ("at", "<f8", (4,)), ("velocity", "<f8", (2,)), ("steps", "<u4"),
])  # fmt: skip


@dataclass(slots=True)
class _Object:
    track_id: int  # of the run
    course: Course
    votes: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def label(self) -> int:
        """The class with the most votes, of several the one seen first."""
        return max(self.votes, key=self.votes.__getitem__)

    def best(self) -> tuple[int, list[int], list[float]]:
        """How many classes are saved, and padded to _CLASSES those with the most votes, and the votes."""
        labels = list(self.votes)
        if len(labels) > _CLASSES:
            kept = sorted(self.votes, key=self.votes.__getitem__)[-_CLASSES:]
            labels = [label for label in self.votes if label in kept]  # who was first, stays it
        pad = [0] * (_CLASSES - len(labels))
        return len(labels), labels + pad, [self.votes[label] for label in labels] + pad


class Objects:
    """Gives each object of a follower an id of the run, and a class that does not flicker. Pure.

    Somebody new to the follower may be an object that was lost a moment ago, and then goes on as that.
    lost_s: how long an object may be unseen. new_id: called for each new one. What was not seen for so
    long, and some seconds more, is forgotten, so memory is bounded by what is in the picture.
    """

    def __init__(
        self, lost_s: float, size_wh_px: tuple[int, int], new_id: Callable[[], int]
    ) -> None:
        self._keep_ns = int(lost_s * 1e9) + _FORGET_NS
        self._size_wh_px = size_wh_px
        self._new_id = new_id
        self._known: dict[int, _Object] = {}  # by the follower's id

    def __len__(self) -> int:
        return len(self._known)

    def save(self) -> bytes:
        """All that is known; of many classes those with the most votes."""
        rows = [
            (key, one.track_id, one.course.seen_ns, *one.best(),
             one.course.at, (one.course.vx, one.course.vy), one.course.steps)
            for key, one in self._known.items()
        ]  # fmt: skip
        return len(rows).to_bytes(4, "little") + np.array(rows, _OBJECT).tobytes()

    def restore(self, state: bytes, *, lost: bool = False) -> int:
        """What `save` returned, perhaps with more behind it. Returns how long it is. Raises ValueError.

        lost: the follower is another one that knows none of them, so each is lost until it is met again.
        """
        end = 4 + int.from_bytes(state[:4], "little") * _OBJECT.itemsize
        if len(state) < end:
            raise ValueError("a state that was cut")
        for i, row in enumerate(np.frombuffer(state[4:end], _OBJECT)):
            n = int(row["classes"])
            votes = zip(row["labels"][:n].tolist(), row["votes"][:n].tolist(), strict=True)
            vx, vy = row["velocity"].tolist()
            at, seen_ns = Place(*row["at"].tolist()), int(row["seen_ns"])
            course = Course(at, seen_ns, vx, vy, int(row["steps"]))
            key = -2 - i if lost else int(row["key"])  # -1 is nobody
            self._known[key] = one = _Object(int(row["id"]), course)
            one.votes.update(votes)
        return end

    def update(self, found: Detections, ids: TrackIds, t_ns: int) -> Detections:
        """The same boxes with ids of the run (-1: of none) and the classes of their objects.

        ids: the follower's, int64 (N,). Each box votes with its score for its class.
        """
        self._forget(t_ns)
        labels, track_ids = found.labels.copy(), np.full(len(found), -1, np.int64)
        keys, given, scores = ids.tolist(), found.labels.tolist(), found.scores.tolist()
        at = [
            Place((x1 + x2) / 2, (y1 + y2) / 2, y2 - y1, x2 - x1)
            for x1, y1, x2, y2 in found.xyxy.tolist()
        ]
        # first who is known, so that nobody is taken for somebody who is here
        for i in sorted(
            np.flatnonzero(ids >= 0).tolist(), key=lambda i: keys[i] not in self._known
        ):
            one = self._known.get(keys[i])
            if one is None:
                one = self._lost(at[i], given[i], t_ns) or _Object(
                    self._new_id(), Course(at[i], t_ns)
                )
                self._known[keys[i]] = one
            one.course.see(at[i], t_ns)
            one.votes[given[i]] += scores[i]
            labels[i], track_ids[i] = one.label, one.track_id
        return Detections(found.xyxy, found.scores, labels, track_ids)

    def known(self, key: int, t_ns: int) -> Known:
        """What is known of an object of the follower at a time; NOBODY: nothing."""
        one = self._known.get(key)
        if one is None:
            return NOBODY
        return Known(one.votes, one.course.at, (t_ns - one.course.seen_ns) / 1e9)

    def _lost(self, at: Place, label: int, t_ns: int) -> _Object | None:
        """The object of this class that was lost a moment ago and would be here by now, under no key."""
        distances = {
            key: one.course.distance(at, t_ns, self._size_wh_px)
            for key, one in self._known.items()
            if one.course.seen_ns < t_ns and one.label == label
        }
        nearest = min(distances, key=distances.__getitem__, default=-1)
        return self._known.pop(nearest) if distances.get(nearest, 1.0) < 1 else None

    def _forget(self, t_ns: int) -> None:
        for key in [k for k, v in self._known.items() if t_ns - v.course.seen_ns > self._keep_ns]:
            del self._known[key]
