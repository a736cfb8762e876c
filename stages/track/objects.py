"""What is known of the objects of one camera while they are followed: id of the run, class by vote."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pipeline.detections import Detections, TrackIds

_FORGET_NS = 2_000_000_000  # after a follower has given an object up
_CLASSES = 8  # of an object, that are saved
_OBJECT = np.dtype([
    ("key", "<i8"), ("id", "<i8"), ("seen_ns", "<i8"), ("classes", "<u4"),
    ("labels", "<i4", (_CLASSES,)), ("votes", "<f8", (_CLASSES,)),
])  # fmt: skip


@dataclass(slots=True)
class _Object:
    track_id: int  # of the run
    seen_ns: int = 0
    votes: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def label(self) -> int:
        """The class with the most votes, of several the one seen first."""
        return max(self.votes, key=self.votes.__getitem__)

    def best(self) -> tuple[int, list[int], list[float]]:
        """How many classes are saved, and padded to _CLASSES those with the most votes, and the votes."""
        kept = sorted(self.votes, key=self.votes.__getitem__)[-_CLASSES:]
        labels = [label for label in self.votes if label in kept]  # who was first, stays it
        pad = [0] * (_CLASSES - len(labels))
        return len(labels), labels + pad, [self.votes[label] for label in labels] + pad


class Objects:
    """Gives each object of a follower an id of the run, and a class that does not flicker. Pure.

    lost_s: how long an object may be unseen. new_id: called for each new one. What was not seen for so
    long, and some seconds more, is forgotten, so memory is bounded by what is in the picture.
    """

    def __init__(self, lost_s: float, new_id: Callable[[], int]) -> None:
        self._keep_ns = int(lost_s * 1e9) + _FORGET_NS
        self._new_id = new_id
        self._known: dict[int, _Object] = {}  # by the follower's id

    def __len__(self) -> int:
        return len(self._known)

    def save(self) -> bytes:
        """All that is known; of many classes those with the most votes."""
        rows = [(key, one.track_id, one.seen_ns, *one.best()) for key, one in self._known.items()]
        return len(rows).to_bytes(4, "little") + np.array(rows, _OBJECT).tobytes()

    def restore(self, state: bytes) -> int:
        """What `save` returned, perhaps with more behind it. Returns how long it is. Raises ValueError."""
        end = 4 + int.from_bytes(state[:4], "little") * _OBJECT.itemsize
        if len(state) < end:
            raise ValueError("a state that was cut")
        for row in np.frombuffer(state[4:end], _OBJECT):
            n = int(row["classes"])
            votes = zip(row["labels"][:n].tolist(), row["votes"][:n].tolist(), strict=True)
            self._known[int(row["key"])] = one = _Object(int(row["id"]), int(row["seen_ns"]))
            one.votes.update(votes)
        return end

    def update(self, found: Detections, ids: TrackIds, t_ns: int) -> Detections:
        """The same boxes with ids of the run (-1: of none) and the classes of their objects.

        ids: the follower's, int64 (N,). Each box votes with its score for its class.
        """
        labels, track_ids = found.labels.copy(), np.full(len(found), -1, np.int64)
        for i in np.flatnonzero(ids >= 0).tolist():
            one = self._known.get(int(ids[i]))
            if one is None:
                one = self._known[int(ids[i])] = _Object(self._new_id())
            one.seen_ns = t_ns
            one.votes[int(labels[i])] += float(found.scores[i])
            labels[i], track_ids[i] = one.label, one.track_id
        for key in [k for k, one in self._known.items() if t_ns - one.seen_ns > self._keep_ns]:
            del self._known[key]
        return Detections(found.xyxy, found.scores, labels, track_ids)
