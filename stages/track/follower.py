"""Who follows boxes from frame to frame: one interface, over the trackers of the library `trackers`.

Ids are the follower's own here, from 0; the stage makes ids of the run of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.detections import Detections, TrackIds, iou_matrix
from stages.track.estimator import BoxEstimator
from stages.track.likeness import NOBODY, Known, Likeness

_Estimator: Any = BoxEstimator  # does what the library asks of one, without being of its class
_LIBRARY_HZ = 30.0  # the rate that the library counts its buffers in
_RATE_INTERVALS = (
    31  # of which a quarter is shorter than the usual one, so that drops change nothing
)
# After a gap of so many frames nobody is quite where it should be by now, and its neighbours are not
# either.
_GAP_FRAMES = 8
_GAP_DIOU = -0.2
_SAME_IOU = 0.8  # of two boxes that are one object; a rider and a bicycle have less
_RATE_CHANGE = 1.5  # by more than this factor: another rate, and not a few frames that were dropped

# What a follower and one of its tracks know, as they are saved: name there → attribute of the library's
_ATTRIBUTES = {
    "id": "tracker_id",
    "age": "age",
    "missed": "time_since_update",
    "missed_s": "time_since_update_seconds",
    "streak": "number_of_successful_consecutive_updates",
}
_TRACK = np.dtype([
    ("id", "<i8"), ("age", "<i8"), ("missed", "<i8"), ("missed_s", "<f8"), ("streak", "<i8"),
    ("estimate", "<f8", (11,)),
])  # fmt: skip
_HEAD = np.dtype([
    ("last_ns", "<i8"), ("time_s", "<f8"), ("period_ns", "<f8"), ("library_s", "<f8"),
    ("next_id", "<i8"), ("tracks", "<u4"), ("intervals", "<u4"),
    ("intervals_ns", "<i8", (_RATE_INTERVALS,)),
])  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowerConfig:
    """How objects are followed. What is None is the library's own."""

    type: Literal["bytetrack", "ocsort"] = "bytetrack"
    lost_s: float = 3.0  # how long an object may be unseen, > 0
    confirm_frames: int | None = None  # in a row that make an object of boxes, 1..
    new_score: float = 0.0  # 0..1, that begins an object


class Follower(Protocol):
    """Follows the objects of one camera."""

    remembers: bool  # whether `save` says what it knows; else it says nothing, b""

    def update(self, found: Detections, t_ns: int) -> TrackIds:
        """Of which object each box is: int64 (N,), in the order of `found`; -1: of none (yet).

        t_ns: when the picture was taken, larger than that of the last call; called for pictures without
        boxes, too. An id is never given to another object.
        """

    def save(self) -> bytes:
        """All that it knows."""

    def restore(self, state: bytes) -> int:
        """What `save` returned, perhaps with more behind it. Returns how long it is. Raises ValueError."""


class LibraryFollower:
    """A tracker of the library, told a time in which a usual step of this camera is one of its frames.

    Its motion models are tuned for steps of one frame and take longer ones for gaps. Told the time of
    capture and 30 Hz, it loses three times as many objects of a camera of 8 Hz.
    """

    def __init__(
        self, config: FollowerConfig, known: Callable[[int, int], Known] = lambda *_: NOBODY
    ) -> None:
        """known: what is known of an object, by its id here, at a time."""
        import supervision as sv

        self._sv, self._config, self._known = sv, config, known
        self.remembers = config.type == "bytetrack"
        self._likeness = Likeness()
        self._tracker = _library_tracker(config, self._likeness)
        self._intervals_ns: deque[int] = deque(maxlen=_RATE_INTERVALS)
        self._period_ns = 0.0
        self._last_ns: int | None = None
        self._time_s = 1.0  # of the library

    def update(self, found: Detections, t_ns: int) -> TrackIds:
        """See Follower."""
        interval_ns = 0 if self._last_ns is None else t_ns - self._last_ns
        if interval_ns:
            self._step(interval_ns)
        self._last_ns = t_ns
        order = np.flatnonzero(~_doubled(found))
        followed = found[order]
        given = self._sv.Detections(
            xyxy=followed.xyxy, confidence=followed.scores, class_id=order
        )  # the class travels along unseen, so it can tell which box is which
        sure = followed.scores >= self._config.new_score  # the library compares these first
        self._likeness.expect(self._followed, followed[sure], interval_ns / 1e9)
        taken = self._tracker.update(given, timestamp=self._time_s)
        ids = np.full(len(found), -1, np.int64)
        if len(taken):
            ids[taken.class_id] = taken.tracker_id
        return ids

    def save(self) -> bytes:
        """All that ByteTrack knows; nothing of OC-SORT, whose tracks remember more than their state."""
        if not self.remembers:
            return b""
        tracks, intervals = self._tracker.tracks, list(self._intervals_ns)
        head = np.zeros((), _HEAD)
        head["last_ns"] = -1 if self._last_ns is None else self._last_ns
        head["time_s"], head["period_ns"] = self._time_s, self._period_ns
        head["library_s"] = self._tracker._last_timestamp or 0.0
        head["next_id"], head["tracks"] = self._tracker._next_track_id, len(tracks)
        head["intervals"], head["intervals_ns"][: len(intervals)] = len(intervals), intervals
        facts = attrgetter(*_ATTRIBUTES.values())
        rows = [(*facts(track), track.state_estimator.numbers()) for track in tracks]
        return head.tobytes() + np.array(rows, _TRACK).tobytes()

    def restore(self, state: bytes) -> int:
        """What `save` returned, perhaps with more behind it. Returns how long it is. Raises ValueError."""
        head = np.frombuffer(state, _HEAD, 1)[0]
        end = _HEAD.itemsize + int(head["tracks"]) * _TRACK.itemsize
        rows = np.frombuffer(state[_HEAD.itemsize : end], _TRACK)
        if len(rows) != head["tracks"] or not 0 <= head["intervals"] <= _RATE_INTERVALS:
            raise ValueError("a state that was cut")
        self._last_ns = None if head["last_ns"] < 0 else int(head["last_ns"])
        self._time_s = float(head["time_s"])
        self._intervals_ns.extend(head["intervals_ns"][: head["intervals"]].tolist())
        if head["period_ns"] > 0:
            self._set_period(float(head["period_ns"]))
        self._tracker._last_timestamp = float(head["library_s"]) or None
        self._tracker._next_track_id = int(head["next_id"])
        self._tracker.tracks = [self._track(row) for row in rows]
        return end

    def _followed(self) -> list[Known]:
        now_ns = self._last_ns or 0
        return [self._known(one.tracker_id, now_ns) for one in self._tracker.tracks]

    def _track(self, row: Any) -> Any:
        from trackers.core.bytetrack.tracklet import ByteTrackTracklet

        track: Any = ByteTrackTracklet(
            initial_bbox=np.array([0.0, 0.0, 1.0, 1.0]),
            state_estimator_class=_Estimator,
        )
        for name, attribute in _ATTRIBUTES.items():
            setattr(track, attribute, row[name].item())
        track.state_estimator.set_numbers(row["estimate"].tolist())
        return track

    def _step(self, interval_ns: int) -> None:
        self._intervals_ns.append(interval_ns)
        usual_ns = sorted(self._intervals_ns)[len(self._intervals_ns) // 4]
        if max(usual_ns, self._period_ns) > _RATE_CHANGE * min(usual_ns, self._period_ns):
            self._set_period(usual_ns)
        frames = interval_ns / self._period_ns
        self._time_s += frames / _LIBRARY_HZ
        if self._config.type == "bytetrack":
            least = _GAP_DIOU if frames >= _GAP_FRAMES else 0.0
            self._tracker.minimum_iou_threshold = self._likeness.least = least

    def _set_period(self, period_ns: float) -> None:
        self._period_ns = period_ns
        buffer_s = self._config.lost_s * 1e9 / period_ns / _LIBRARY_HZ
        self._tracker.maximum_time_without_update = buffer_s


def _doubled(found: Detections) -> npt.NDArray[np.bool_]:
    """Which boxes (N,) are of what a surer one in the same place is, too: one object, of two classes.

    Followed, it would be a second object that goes along with the first and takes its boxes later on.
    """
    labels, scores = found.labels, found.scores
    if len(found) < 2 or (labels == labels[0]).all():
        return np.zeros(len(found), np.bool_)
    behind = np.arange(len(found))[:, None] > np.arange(
        len(found)
    )  # of equal ones the first is followed
    surer = (scores > scores[:, None]) | ((scores == scores[:, None]) & behind)
    same = (iou_matrix(found.xyxy, found.xyxy) >= _SAME_IOU) & (labels != labels[:, None])
    doubled: npt.NDArray[np.bool_] = (same & surer).any(axis=1)
    return doubled


def _library_tracker(config: FollowerConfig, likeness: Any) -> Any:
    from trackers import ByteTrackTracker, OCSORTTracker

    options: dict[str, Any] = {"lost_track_buffer": round(config.lost_s * _LIBRARY_HZ)}
    if config.confirm_frames is not None:
        options["minimum_consecutive_frames"] = config.confirm_frames
    if config.type == "ocsort":
        return OCSORTTracker(high_conf_det_threshold=config.new_score, **options)
    return ByteTrackTracker(
        track_activation_threshold=config.new_score,
        high_conf_det_threshold=config.new_score,
        iou=likeness,
        minimum_iou_threshold=0.0,
        state_estimator_class=_Estimator,
        **options,
    )
