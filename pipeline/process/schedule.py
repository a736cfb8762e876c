"""Which frames go to the model next: newest-frame mailboxes and the batch policy. Pure, no I/O.

There is no timer and no barrier. Whenever a worker is free it takes what waits, the camera served
longest ago first. With service time S(b) = α + βb for a batch of b, n cameras of period T, one
worker and S = ⌈n / max_batch⌉ · S(min(n, max_batch)):

* S ≤ T: nothing is dropped, and a result is at most 2S old.
* S > T: every camera gets at least 1/S results a second, and a result is at most T + 2S old. Where
  one batch holds all cameras (max_batch ≥ n), the rate n/S is the most that the worker can do.

So a fast camera can't slow a slow one, and a stopped camera slows nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import count
from typing import Generic, Literal, TypeVar

from pipeline.errors import Full

Item = TypeVar("Item")
Policy = Literal["newest", "every"]


class Batcher(Generic[Item]):
    """What waits for one model, and what its workers hold.

    newest: one waiting item per camera, replaced by a newer one. A camera in service is not served
        again before that batch is finished, so results keep their order but for the moment that they
        are in the sockets of two workers; a stage that remembers ends what was overtaken there.
    every: up to `depth` waiting items per camera, nothing is replaced. A camera may have items in
        several workers at once and several in one batch; postprocess restores their order.

    Workers make themselves known by their first `take` and are forgotten by `lost`.
    """

    def __init__(
        self, cameras: Sequence[str], *, max_batch: int, policy: Policy, depth: int = 4
    ) -> None:
        """cameras: those of the start, each once; max_batch >= 1; depth >= 1, used by `every` alone."""
        if max_batch < 1 or depth < 1:
            raise ValueError(f"Batcher: max_batch and depth must be >= 1, got {max_batch}, {depth}")
        self._max_batch = max_batch
        self._every = policy == "every"
        self._depth = depth
        self._waiting: dict[str, deque[Item]] = {}
        self._held: dict[str, list[tuple[str, Item]]] = {}  # worker: its batch, [] if it is free
        self._began: dict[str, int] = {}  # worker: when its last batch began
        self._clock = count(1)  # counts services; nothing here needs seconds
        # camera: when its last service began or ended
        self._served: dict[str, int] = {}
        for camera in cameras:
            self.add(camera)

    def add(self, camera: str) -> None:
        """A camera joins, and is served next."""
        self._waiting[camera] = deque()
        self._served[camera] = 0

    def remove(self, camera: str) -> None:
        """A camera leaves, of which nothing waits and nobody holds anything."""
        del self._waiting[camera], self._served[camera]

    def offer(self, camera: str, item: Item) -> Item | None:
        """Let an item of a camera wait; the caller ends the item that is returned (superseded).

        newest: returns the item whose place this one took, or None. every: returns None; raises
        Full, and keeps nothing, where `depth` items wait already. An unknown camera is a KeyError.
        """
        mailbox = self._waiting[camera]
        superseded = None
        if self._every:
            if len(mailbox) >= self._depth:
                raise Full(f"camera {camera!r}: {self._depth} frames wait already; offer it later")
        elif mailbox:
            superseded = mailbox.popleft()
        mailbox.append(item)
        return superseded

    def take(self, worker: str) -> list[tuple[str, Item]]:
        """The batch for a worker that is free now, as (camera, item); [] if nothing may be taken.

        One item of each camera, the camera served longest ago first (ties: order of configuration),
        up to `max_batch` or the worker's share. `every` goes round again while there is room, so
        frames of one camera lie in the batch in the order of their offers.
        Raises ValueError if the worker has not finished its last batch.
        """
        if self._held.setdefault(worker, []):
            raise ValueError(f"worker {worker!r} asked for a batch before it finished its last one")
        held = {camera for batch in self._held.values() for camera, _ in batch}
        ready = (camera for camera, mailbox in self._waiting.items() if mailbox)
        line = [camera for camera in ready if self._every or camera not in held]
        line.sort(key=self._served.__getitem__)  # stable: ties keep the order of configuration
        ready_items = sum(len(self._waiting[camera]) for camera in line)
        room = min(self._max_batch, self._share(worker, ready_items))
        batch = self._held[worker]
        while line and len(batch) < room:
            line = line[: room - len(batch)]
            batch += [(camera, self._waiting[camera].popleft()) for camera in line]
            line = [camera for camera in line if self._waiting[camera]]
        if batch:
            self._began[worker] = next(self._clock)
        self._stamp(batch)
        return list(batch)

    def finished(self, worker: str) -> None:
        """The worker is through with its batch: its cameras go to the end of the line."""
        self._stamp(self._held.get(worker, []))
        if worker in self._held:
            self._held[worker] = []

    def lost(self, worker: str) -> list[tuple[str, Item]]:
        """The worker is gone: what it held, now the caller's. Its cameras may be served again."""
        self._began.pop(worker, None)
        return self._held.pop(worker, [])

    def clear(self, camera: str) -> list[Item]:
        """Take out what waits of a camera; the caller ends it."""
        mailbox = self._waiting[camera]
        items = list(mailbox)
        mailbox.clear()
        return items

    def waiting_of(self, camera: str) -> Sequence[Item]:
        """What waits of a camera, the oldest first."""
        return tuple(self._waiting[camera])

    @property
    def waiting(self) -> int:
        """Items that wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def in_service(self) -> int:
        """Items that workers hold."""
        return sum(map(len, self._held.values()))

    @property
    def idle(self) -> bool:
        """Nothing waits and nobody holds anything: a drain is complete."""
        return not self.waiting and not self.in_service

    def _share(self, worker: str, ready: int) -> int:
        """Most items of one batch, so that every worker gets some.

        A lone worker takes all. In `newest`, shares of several workers are equal, and what is left
        over waits: five cameras in threes and twos would for ever give the two up to half as much
        again as the three; with 2 + 2 and one that waits, workers meet different cameras each time.
        Where nothing is left over, each finds its own cameras again. That is fair while all are as
        fast; a worker that began and finished a batch while another had one in hand is faster, so
        it leaves a camera to the slower one, and both mix again.
        """
        total, workers = ready + self.in_service, len(self._held)
        if self._every or workers == 1:
            return -(-total // workers)
        before = self._began.get(worker, 0)
        is_faster = any(held and self._began[other] < before for other, held in self._held.items())
        return max(1, (total - is_faster) // workers)

    def _stamp(self, batch: Sequence[tuple[str, Item]]) -> None:
        # When service begins and again when it ends. The end alone would let all workers take the
        # same camera in `every`; the beginning alone would give a slow worker its own camera again.
        for camera, _ in batch:
            self._served[camera] = next(self._clock)
