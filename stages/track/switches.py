"""How often an object whose identity is known got another id; for rendered scenes."""

from __future__ import annotations

import numpy as np

from pipeline.detections import Detections
from stages.detector.matching import match

_IOU = 0.5
_REMEMBERED = 256  # objects of one camera; rendered scenes never show one again


class Switches:
    """Counts identity switches as MOTA does: an object is matched to another id than the last time.

    Bernardin, Stiefelhagen: Evaluating multiple object tracking performance, 2008.
    """

    def __init__(self) -> None:
        self._last: dict[int, int] = {}  # true id → ours

    def update(self, tracked: Detections, truth: Detections) -> int:
        """Switches in this frame. Both have track ids; boxes of `tracked` with -1 count for nothing."""
        if tracked.track_ids is None or truth.track_ids is None:
            return 0
        boxes = tracked[tracked.track_ids >= 0]
        ids = np.asarray(boxes.track_ids).tolist()
        n = 0
        for i, j in match(boxes, truth, _IOU):
            true_id = int(truth.track_ids[j])
            n += self._last.pop(true_id, ids[i]) != ids[i]
            self._last[true_id] = ids[i]
        while len(self._last) > _REMEMBERED:
            del self._last[next(iter(self._last))]
        return n
