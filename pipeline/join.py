"""Pictures and what was found in them: which detections go with a frame of the view path. Pure.

newest: the last result of the camera, unless it is older than `max_age_ms`. Nothing waits.
every: the result of this very frame. A frame waits until its fate on the detect path is known; a
    result is DONE only when its frame was drawn, so that a restarted render gets it again.
"""

from __future__ import annotations

import time
from collections import deque

from pipeline.detections import Detections
from pipeline.ledger import DETECT, Ledger
from pipeline.messages import Message
from pipeline.reader import Delivery
from pipeline.wiring import Policy

_LOST_AFTER_S = (
    10.0  # a result that was delivered and has not come by then went with a dead process
)


class Join:
    """What a render process knows about results."""

    def __init__(self, policy: Policy, max_age_ms: float, ledger: Ledger) -> None:
        self._every = policy == "every"
        self._max_age_ns = int(max_age_ms * 1e6)
        self._ledger = ledger
        self._results: dict[str, deque[Delivery]] = {}

    def take_results(self, arrived: deque[Delivery]) -> list[Delivery]:
        """Sort in what arrived (emptied); returns the results that are DONE by that."""
        done = []
        while arrived:
            result = arrived.popleft()
            known = self._results.setdefault(result.camera, deque())
            known.append(result)
            if not self._every:
                done.append(result)
                if len(known) > 1:
                    known.popleft()
        return done

    def is_complete(self, frame: Delivery) -> bool:
        """Whether nothing more is to be known about this frame."""
        if not self._every:
            return True
        known = self._results.get(frame.camera, ())
        if any(result.frame_id >= frame.frame_id for result in known):
            return True
        camera = self._ledger.camera_index[frame.camera]
        if self._ledger.dropped(camera, DETECT, frame.frame_id):
            return True
        return frame.wait_s(time.monotonic()) > _LOST_AFTER_S

    def match(self, item: Message) -> tuple[Detections | None, list[Delivery]]:
        """The detections for a frame, None if there are none; and the results that are DONE by that."""
        known = self._results.get(item.info.camera, deque())
        if self._every:
            done = []
            while known and known[0].frame_id <= item.info.frame_id:
                done.append(known.popleft())
            hit = done[-1] if done and done[-1].frame_id == item.info.frame_id else None
        else:
            done, hit = [], known[-1] if known else None
            if hit and item.info.t_capture_ns - hit.envelope.info.t_capture_ns > self._max_age_ns:
                hit = None
        if hit is None:
            return None, done
        detections: Detections = hit.envelope.facts["detections"]
        return detections, done
