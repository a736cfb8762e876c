"""Pictures and what was found in them: which detections go with a frame of the view path.

A frame is drawn with its own result. It waits until its fate on the detect path is known: its result is
here, or that of a later frame is (results of a camera keep their order, so its own was lost), or the
ledger says that it was dropped.

newest: it waits no longer than results of its camera took of late, and not when the frames behind it
    have taken the last credit of the view path: no picture is lost for a box. A frame that has no result
    of its own gets the boxes of the results around it, moved on to its time (`motion.py`).
every: it waits for as long as that takes, and has its own result or none. A result is DONE when its frame
    was drawn, so that a restarted render gets it again, or when the frame met another fate on its way:
    it will not come.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable

from pipeline.accounts.layout import DETECT, VIEW
from pipeline.accounts.ledger import Ledger
from pipeline.detections import Detections
from pipeline.hop.reader import Delivery
from pipeline.messages import FrameInfo, Message
from pipeline.plan.graph import Policy
from pipeline.process.motion import moved

_KEPT = 16  # results of a camera; more than can come while as many frames wait as may (newest)
_LATENESSES = 64  # results of a camera by which its lateness is known
_FIRST_WAIT_S = 1.0  # for the first result of a camera
# A result that the ledger knows of is sent in the same turn, and a process that does not turn is killed
# within seconds; after them it went with its process. A later result of its camera says so at once: this
# is for the last frames of a stream alone.
_LOST_AFTER_S = 5.0


class Join:
    """What a render process knows about results."""

    def __init__(
        self,
        policy: Policy,
        max_age_ms: float,
        max_waiting: int,
        ledger: Ledger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """max_age_ms: how far boxes are moved on; max_waiting: frames of a camera that can be here."""
        self._every = policy == "every"
        self._max_age_ns = int(max_age_ms * 1e6)
        self._max_waiting = max_waiting
        self._ledger = ledger
        self._clock = clock
        kept = None if self._every else _KEPT
        self._results: defaultdict[str, deque[Delivery]] = defaultdict(lambda: deque(maxlen=kept))
        self._lateness_s: defaultdict[str, deque[float]] = defaultdict(
            lambda: deque(maxlen=_LATENESSES)
        )
        self._overdue: dict[
            str, tuple[int, float]
        ] = {}  # camera: frame, known to be lost from when

    def take_results(self, arrived: deque[Delivery]) -> list[Delivery]:
        """Sort in what arrived (emptied); returns the results that are DONE by now."""
        done = []
        while arrived:
            result = arrived.popleft()
            self._results[result.camera].append(result)
            if not self._every:
                done.append(result)
                age_s = self._clock() - result.envelope.info.t_capture_ns / 1e9
                self._lateness_s[result.camera].append(age_s)
        if self._every:
            for camera, known in self._results.items():
                row = self._ledger.camera_index[camera]
                while known and self._ledger.settled(row, VIEW, known[0].frame_id):
                    done.append(known.popleft())
        return done

    def leave(self, camera: str) -> None:
        """Nothing more of this camera comes, and nothing of it is here that is not DONE."""
        self._results.pop(camera, None)
        self._lateness_s.pop(camera, None)
        self._overdue.pop(camera, None)

    @property
    def waiting(self) -> bool:
        """Results are here that are not DONE; the fate of their frames is not announced by a message."""
        return self._every and any(self._results.values())

    def is_complete(self, frame: Delivery, waiting: int) -> bool:
        """Whether to draw this frame now; waiting: frames of its camera that are here, it among them."""
        known = self._results[frame.camera]
        if known and known[-1].frame_id >= frame.frame_id:
            return True
        row = self._ledger.camera_index[frame.camera]
        if self._ledger.dropped(row, DETECT, frame.frame_id):
            return True
        if self._every:
            return self._is_lost(row, frame)
        wait_s = max(self._lateness_s[frame.camera], default=_FIRST_WAIT_S)
        due_s = frame.envelope.info.t_capture_ns / 1e9 + wait_s
        return waiting >= self._max_waiting or self._clock() > due_s

    def match(self, item: Message) -> tuple[Detections | None, list[Delivery]]:
        """The detections for a frame, None if nothing is known; and the results that are DONE by that."""
        known = self._results[item.info.camera]
        if not self._every:
            return self._near(known, item.info), []
        done = []
        while known and known[0].frame_id <= item.info.frame_id:
            done.append(known.popleft())
        if not done or done[-1].frame_id != item.info.frame_id:
            return None, done
        return _found(done[-1]), done

    def _near(self, known: deque[Delivery], frame: FrameInfo) -> Detections | None:
        """What was found in the frame itself, or where that of the results around it is by now."""
        n = sum(result.frame_id <= frame.frame_id for result in known)
        if n and known[n - 1].frame_id == frame.frame_id:
            return _found(known[n - 1])
        if n == 0 or len(known) == 1:
            return None
        start = min(n - 1, len(known) - 2)
        return self._moved(known[start], known[start + 1], frame)

    def _moved(self, first: Delivery, last: Delivery, frame: FrameInfo) -> Detections | None:
        infos = first.envelope.info, last.envelope.info
        start_ns, end_ns = (info.t_capture_ns for info in infos)
        if frame.t_capture_ns - end_ns > self._max_age_ns or end_ns <= start_ns:
            return None
        if any(info.stream_epoch != frame.stream_epoch for info in infos):  # another picture
            return None
        share = (frame.t_capture_ns - start_ns) / (end_ns - start_ns)
        return moved(_found(first), _found(last), share)

    def _is_lost(self, row: int, frame: Delivery) -> bool:
        """Whether the result of this frame was delivered and did not come here."""
        if not self._ledger.settled(row, DETECT, frame.frame_id):
            return False
        frame_id, since_s = self._overdue.get(frame.camera, (-1, 0.0))
        if frame_id != frame.frame_id:
            self._overdue[frame.camera] = frame.frame_id, self._clock()
            return False
        return self._clock() - since_s > _LOST_AFTER_S


def _found(result: Delivery) -> Detections:
    detections: Detections = result.envelope.facts["detections"]
    return detections
