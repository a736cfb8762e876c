"""Who follows boxes from frame to frame: one interface, over the trackers of the library `trackers`.

Ids are the follower's own here, from 0; the stage makes ids of the run of them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from pipeline.detections import Detections, TrackIds

_LIBRARY_HZ = 30.0  # the rate that the library counts its buffers in
_RATE_INTERVALS = (
    31  # of which a quarter is shorter than the usual one, so that drops change nothing
)
_RATE_CHANGE = 1.5  # by more than this factor: another rate, and not a few frames that were dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowerConfig:
    """How objects are followed. What is None is the library's own."""

    type: Literal["bytetrack", "ocsort"] = "bytetrack"
    lost_s: float = 3.0  # how long an object may be unseen, > 0
    confirm_frames: int | None = None  # in a row that make an object of boxes, 1..
    new_score: float = 0.0  # 0..1, that begins an object


class Follower(Protocol):
    """Follows the objects of one camera."""

    def update(self, found: Detections, t_ns: int) -> TrackIds:
        """Of which object each box is: int64 (N,), in the order of `found`; -1: of none (yet).

        t_ns: when the picture was taken, larger than that of the last call; called for pictures without
        boxes, too. An id is never given to another object.
        """


class LibraryFollower:
    """A tracker of the library, told a time in which a usual step of this camera is one of its frames.

    Its motion models are tuned for steps of one frame and take longer ones for gaps. Told the time of
    capture and 30 Hz, it loses three times as many objects of a camera of 8 Hz.
    """

    def __init__(self, config: FollowerConfig) -> None:
        import supervision as sv

        self._sv, self._config = sv, config
        self._tracker = _library_tracker(config)
        self._intervals_ns: deque[int] = deque(maxlen=_RATE_INTERVALS)
        self._period_ns = 0.0
        self._last_ns: int | None = None
        self._time_s = 1.0  # of the library

    def update(self, found: Detections, t_ns: int) -> TrackIds:
        """See Follower."""
        if self._last_ns is not None:
            self._step(t_ns - self._last_ns)
        self._last_ns = t_ns
        order = np.arange(len(found))
        given = self._sv.Detections(
            xyxy=found.xyxy, confidence=found.scores, class_id=order
        )  # the class travels along unseen, so it can tell which box is which
        taken = self._tracker.update(given, timestamp=self._time_s)
        ids = np.full(len(found), -1, np.int64)
        if len(taken):
            ids[taken.class_id] = taken.tracker_id
        return ids

    def _step(self, interval_ns: int) -> None:
        self._intervals_ns.append(interval_ns)
        usual_ns = sorted(self._intervals_ns)[len(self._intervals_ns) // 4]
        if max(usual_ns, self._period_ns) > _RATE_CHANGE * min(usual_ns, self._period_ns):
            self._period_ns = usual_ns
            buffer_s = self._config.lost_s * 1e9 / usual_ns / _LIBRARY_HZ
            self._tracker.maximum_time_without_update = buffer_s
        self._time_s += interval_ns / self._period_ns / _LIBRARY_HZ


def _library_tracker(config: FollowerConfig) -> Any:
    # Distance counts beside overlap, so that small and fast objects whose boxes do not meet any more are
    # still the same, and sizes change by themselves: by benchmarks/tracking.py half of the switches.
    from trackers import ByteTrackTracker, DIoU, OCSORTTracker
    from trackers.utils.state_representations import XCYCSRStateEstimator

    options: dict[str, Any] = {"lost_track_buffer": round(config.lost_s * _LIBRARY_HZ)}
    if config.confirm_frames is not None:
        options["minimum_consecutive_frames"] = config.confirm_frames
    if config.type == "ocsort":
        return OCSORTTracker(high_conf_det_threshold=config.new_score, **options)
    return ByteTrackTracker(
        track_activation_threshold=config.new_score,
        high_conf_det_threshold=config.new_score,
        iou=DIoU(),
        minimum_iou_threshold=0.0,
        state_estimator_class=XCYCSRStateEstimator,
        **options,
    )
