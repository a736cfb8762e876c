"""The writer's side of one edge: what waits for a consumer, what is under way to it. No I/O.

Credits are per camera: so many messages may be under way (sent and not DONE). What finds no credit
waits here, at the source, in a queue of `depth`; when that is full, either the oldest is dropped
(depth 1 is the newest-frame mailbox) or the writer has to wait. ZeroMQ never is the one that drops.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipeline.messages import MAX_MESSAGE_BYTES, SlotRef
from pipeline.plan.graph import EdgeSpec, Overflow

_TOGETHER_BYTES = MAX_MESSAGE_BYTES // 2  # of several messages that travel as one


class Parcel(NamedTuple):
    """An encoded message on its way, with what its writer has to remember of it."""

    camera: str
    frame_id: int
    data: bytes
    ref: SlotRef | None = None  # None: the message carries no pixels
    retries: int = 0


def fitting(messages: Sequence[bytes]) -> int:
    """How many of them, from the first on, travel as one: at least one."""
    nbytes = 0
    for n, message in enumerate(messages):
        nbytes += len(message)
        if n and nbytes > _TOGETHER_BYTES:
            return n
    return len(messages)


class Edge:
    """The accounts of one edge."""

    def __init__(
        self, *, credits: int, depth: int, overflow: Overflow, max_hz: float | None = None
    ) -> None:
        self._credits = credits
        self._depth = depth
        self._overflow = overflow
        self.set_rate(max_hz)
        self._due_ns: dict[str, int] = {}
        self._full: set[str] = set()  # cameras whose queue was full, and not empty since
        self._waiting: defaultdict[str, deque[Parcel]] = defaultdict(deque)
        self._sent: defaultdict[str, list[Parcel]] = defaultdict(list)

    @classmethod
    def of(cls, spec: EdgeSpec) -> Edge:
        """As the plan has it."""
        return cls(
            credits=spec.credits, depth=spec.depth, overflow=spec.overflow, max_hz=spec.max_hz
        )

    def set_rate(self, max_hz: float | None) -> None:
        """The consumer wants so many frames a second and camera at most from now on; None: all."""
        self._period_ns = 0 if max_hz is None else int(1e9 / max_hz)

    def wants(self, camera: str, now_ns: int) -> bool:
        """Whether the consumer asked for a frame at this time at all (`max_hz`)."""
        return now_ns >= self._due_ns.get(camera, 0)

    def has_room(self, camera: str, n: int = 1) -> bool:
        """Whether `n` offers keep what they are given without dropping something that waits.

        A queue that was full has no room before all of it has gone: who works in bursts wakes up once
        for several frames, and finds its caches warm for all but the first.
        """
        if self._overflow == "drop":
            return True
        return camera not in self._full and len(self._waiting.get(camera, ())) + n <= self._depth

    def offer(self, parcel: Parcel, now_ns: int) -> Parcel | None:
        """Put a parcel at the end of its camera's queue; returns the one that had to go for it."""
        if self._period_ns:
            # from the last due time and not from now, so that the rate does not sag by the jitter
            due = self._due_ns.get(parcel.camera, 0) + self._period_ns
            self._due_ns[parcel.camera] = max(due, now_ns - self._period_ns)
        queue = self._waiting[parcel.camera]
        # "wait": never drops, not even when what a dead consumer had came back into the queue
        full = self._overflow == "drop" and len(queue) >= self._depth
        oldest = queue.popleft() if full else None
        queue.append(parcel)
        if len(queue) >= self._depth:
            self._full.add(parcel.camera)
        return oldest

    def sendable(self) -> list[Parcel]:
        """Take out, camera by camera, what has a credit; it counts as sent from then on."""
        parcels = []
        for camera, queue in self._waiting.items():
            sent = self._sent[camera]
            while queue and len(sent) < self._credits:
                parcel = queue.popleft()
                sent.append(parcel)
                parcels.append(parcel)
            if not queue:
                self._full.discard(camera)
        return parcels

    def unsend(self, parcel: Parcel) -> None:
        """The channel did not take it: first in the queue again."""
        self._sent[parcel.camera].remove(parcel)
        self._waiting[parcel.camera].appendleft(parcel)

    def done(self, camera: str, ref: SlotRef | None) -> Parcel | None:
        """The consumer is through with a parcel: its credit is back. None: it was not under way."""
        for parcel in self._sent.get(camera, ()):
            if parcel.ref == ref:
                self._sent[camera].remove(parcel)
                return parcel
        return None

    def take_back(self, is_it: Callable[[Parcel], bool]) -> list[Parcel]:
        """Those under way of which this is true: their credits are back."""
        found = []
        for camera, sent in self._sent.items():
            mine = [parcel for parcel in sent if is_it(parcel)]
            if mine:
                self._sent[camera] = [parcel for parcel in sent if parcel not in mine]
                found += mine
        return found

    def consumer_died(self, *, resend: bool) -> tuple[list[Parcel], list[Parcel]]:
        """All credits are back. Returns what was under way: (lost, queued again).

        With `resend` a parcel is queued again once: one that was under way at two deaths may have
        been their cause.
        """
        lost, again = [], []
        for camera, sent in self._sent.items():
            retried = [p._replace(retries=p.retries + 1) for p in sent if resend and p.retries == 0]
            lost += [p for p in sent if not resend or p.retries]
            again += retried
            self._waiting[camera].extendleft(reversed(retried))
            sent.clear()
        return lost, again

    def leave(self, camera: str) -> None:
        """Nothing more of this camera comes, and nothing of it is here."""
        self._waiting.pop(camera, None)
        self._sent.pop(camera, None)
        self._due_ns.pop(camera, None)
        self._full.discard(camera)

    def clear(self) -> list[Parcel]:
        """Take out everything that waits."""
        parcels = [parcel for queue in self._waiting.values() for parcel in queue]
        self._waiting.clear()
        self._full.clear()
        return parcels

    def oldest(self, camera: str) -> int | None:
        """The smallest frame id of a camera that waits or is under way; None: there is none."""
        mine = (*self._waiting.get(camera, ()), *self._sent.get(camera, ()))
        return min((parcel.frame_id for parcel in mine), default=None)

    @property
    def under_way(self) -> bool:
        """Something was sent and is not DONE."""
        return any(self._sent.values())

    @property
    def waiting(self) -> bool:
        """Something waits for a credit."""
        return any(self._waiting.values())

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is under way."""
        return not any(self._sent.values()) and not any(self._waiting.values())
