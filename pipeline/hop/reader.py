"""The input side of a process: its inbox, the pools of its producers, what waits to be processed."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from pipeline.accounts.ledger import Ledger
from pipeline.errors import FrameError, MessageError, PoolGone
from pipeline.happenings import NO_FRAME
from pipeline.hop.codec import decode, encode_done, encode_refused, parts_of
from pipeline.hop.pool import PoolReader
from pipeline.hop.transport import Context, Inbox
from pipeline.messages import (
    Envelope,
    Frame,
    Image,
    Message,
    Result,
    SlotRef,
)
from pipeline.plan.graph import ProcessSpec

log = logging.getLogger("manyeyes")

_TOGETHER = 128  # answers in one message, each with the name of a camera


class Delivery(NamedTuple):
    """A message that arrived and is not DONE."""

    sender: bytes
    envelope: Envelope
    data: bytes = b""  # as it came, to be forwarded

    @property
    def camera(self) -> str:
        """Whose frame it is."""
        return self.envelope.info.camera

    @property
    def frame_id(self) -> int:
        """Which frame it is."""
        return self.envelope.info.frame_id

    def wait_s(self, now_s: float) -> float:
        """Time since its producer had it ready: in a mailbox, in the socket, here."""
        return max(0.0, now_s - self.envelope.t_offered_ns / 1e9)


class Reader:
    """Receives, sorts by camera, opens, and says DONE for every single descriptor."""

    def __init__(
        self,
        spec: ProcessSpec,
        ledger: Ledger,
        context: Context,
        *,
        endpoint: str,
        code: int,
        to_bgr: Callable[[Frame], Image] | None,
    ) -> None:
        self._ledger, self._code, self._to_bgr = ledger, code, to_bgr
        self._index = ledger.process_index[spec.name]
        self._takes_batches = spec.role in ("batch", "batcher")
        self._joins = spec.role == "join"
        self._takes_once = spec.in_order or spec.role == "sink"
        self._inbox = Inbox(context, endpoint)
        self._accepted: set[bytes] = set()
        self._here: dict[int, Delivery] = {}  # those that are not DONE, by their id()
        self.descriptor = self._inbox.descriptor  # to poll; see transport.poller
        self._pools: dict[int, PoolReader] = {}
        self._forgotten: set[int] = set()  # pools that go when nothing of them is here
        self._queues: dict[str, deque[Delivery]] = {}
        self.batches: deque[list[Delivery]] = deque()
        self.results: deque[Delivery] = deque()  # of a join: not frames, but what was found in them
        self._turns: dict[str, int] = {}  # when a camera was last served
        self._turn = 0
        self._done: dict[bytes, list[Delivery]] = {}
        self._refused: dict[bytes, list[bytes]] = {}
        self.adopt(spec)

    def adopt(self, spec: ProcessSpec) -> None:
        """These are our cameras and writers from now on. Of one that is left nothing may be here."""
        self._spec, self._maps_pools = spec, bool(spec.reads)
        self._queues = {camera: self._queues.get(camera, deque()) for camera in spec.cameras}
        self._turns = {camera: self._turns.get(camera, 0) for camera in spec.cameras}

    def attach(self, pool_epoch: int, fd: int, slots: int, slot_bytes: int) -> None:
        """A producer's pool; the descriptor may be closed afterwards."""
        self._pools[pool_epoch] = PoolReader(fd, slots, slot_bytes)

    def forget(self, pool_epoch: int) -> None:
        """Its writer is dead, and has another one: the memory goes when all that is here of it is DONE."""
        self._forgotten.add(pool_epoch)
        self._let_go(pool_epoch)

    def accept(self, sender: str) -> None:
        """A producer sends by this name, which it alone was told: what comes from others is garbage.

        Whoever may open our socket could else take the name of a producer that is to come, which
        ZeroMQ would then turn away for ever.
        """
        self._accepted.add(sender.encode())

    def refuse(self, sender: str) -> None:
        """A producer died, and what comes of it from now on is too late."""
        self._accepted.discard(sender.encode())

    def holds(self, sender: str) -> bool:
        """Whether a message of this producer is not DONE."""
        name = sender.encode()
        return any(delivery.sender == name for delivery in self._here.values())

    def holds_frames_of(self, camera: str) -> bool:
        """Whether a message of this camera is not DONE."""
        return any(delivery.camera == camera for delivery in self._here.values())

    def holds_of(self, pool_epoch: int) -> bool:
        """Whether a message with a slot of this pool is not DONE."""
        refs = (delivery.envelope.ref for delivery in self._here.values())
        return any(ref is not None and ref.pool_epoch == pool_epoch for ref in refs)

    def receive(self, expect: Callable[[], None]) -> None:
        """Take in all messages that are here; never waits.

        expect: called for an unknown sender, pool or camera, whose announcement is then waiting in the
        control channel, since it was sent before the producer could send anything.
        """
        for sender, data in self._inbox.receive():
            if sender not in self._accepted:
                expect()
                if sender not in self._accepted:
                    self._count_garbage("from a stranger")
                    continue
            batch = []
            for envelope, raw in self._decoded(sender, data):
                ref, info = envelope.ref, envelope.info
                camera = info.camera
                is_new = self._maps_pools and ref is not None and ref.pool_epoch not in self._pools
                if is_new or camera not in self._queues:
                    expect()
                if camera not in self._queues:
                    self._refuse(sender, raw, f"of camera {camera!r}, which is not ours")
                    continue
                delivery = Delivery(sender, envelope, raw)
                self._here[id(delivery)] = delivery
                if self._joins and envelope.kind is Result:
                    self.results.append(delivery)
                    continue
                row, hold = self._ledger.camera_index[camera], self._ledger.hold
                for path in self.paths(info.frame_id):
                    hold(row, path, info.frame_id, self._code)
                if self._takes_batches:
                    batch.append(delivery)
                    continue
                self._queues[camera].append(delivery)
                if self._spec.in_order and len(self._queues[camera]) > 1:
                    self._sort(camera)
            if batch:
                self.batches.append(batch)

    def _decoded(self, sender: bytes, data: bytes) -> list[tuple[Envelope, bytes]]:
        """What `data` holds; what is no message in it is refused, so that no credit is lost by it."""
        try:
            return decode(data)
        except MessageError:
            pass  # perhaps of one part alone
        good = []
        for part in parts_of(data):
            try:
                good += decode(part)
            except MessageError as error:
                self._refuse(sender, part, str(error))
        return good

    def _refuse(self, sender: bytes, message: bytes, why: str) -> None:
        self._refused.setdefault(sender, []).append(message)
        self._count_garbage(why)

    def _count_garbage(self, why: str) -> None:
        self._ledger.add("garbage", self._index)
        n = int(self._ledger["garbage"][self._index])
        if n & (n - 1) == 0:  # the 1st, the 2nd, the 4th, …: a flood stays readable
            log.warning("%s: garbage %s (%d so far)", self._spec.name, why, n)

    @property
    def readable(self) -> bool:
        """Whether a message is here that was not taken in."""
        return self._inbox.readable

    def next(self, may_take: Callable[[Delivery], bool]) -> Delivery | None:
        """The next item: of the camera served longest ago whose first item `may_take`."""
        full = [camera for camera, queue in self._queues.items() if queue]
        if len(full) > 1:
            full.sort(key=self._turns.__getitem__)
        for camera in full:
            queue = self._queues[camera]
            while queue and self._takes_once and self.is_settled(queue[0]):
                self.done(queue.popleft())  # sent twice, since its producer or this process died
            if (
                queue
                and (not self._spec.in_order or self._is_next(queue[0]))
                and may_take(queue[0])
            ):
                self._turn += 1
                self._turns[camera] = self._turn
                return queue.popleft()
        return None

    def open(self, delivery: Delivery) -> Message:
        """The message with views of its arrays. Raises TornFrame, PoolGone, FrameError."""
        envelope = delivery.envelope
        if envelope.ref is None:
            return envelope.open(())
        try:
            return envelope.open(
                self._pool(envelope.ref).arrays(envelope.ref, envelope.specs), self._to_bgr
            )
        except MessageError as error:
            raise FrameError(str(error)) from error

    def verify(self, delivery: Delivery) -> None:
        """To be called after the last look at its arrays. Raises TornFrame."""
        if (ref := delivery.envelope.ref) is not None:
            self._pool(ref).check(ref)

    def done(self, delivery: Delivery) -> None:
        """Its slot and credit go back with the next `flush`. Once for each."""
        del self._here[id(delivery)]
        if self._forgotten and (ref := delivery.envelope.ref) is not None:
            self._let_go(ref.pool_epoch)
        self._done.setdefault(delivery.sender, []).append(delivery)

    def flush(self) -> None:
        """Say DONE, one message for each producer."""
        for sender, deliveries in self._done.items():
            for some in _chunks(deliveries):
                refs = [delivery.envelope.ref for delivery in some]
                self._inbox.answer(sender, encode_done(refs, [d.camera for d in some]))
        self._done.clear()
        for sender, messages in self._refused.items():
            for few in _chunks(messages):
                self._inbox.answer(sender, encode_refused(few))
        self._refused.clear()

    @property
    def waiting(self) -> bool:
        """Whether any item waits."""
        return bool(self.batches or self.results) or any(self._queues.values())

    def queued(self, camera: str) -> int:
        """How many items of a camera wait."""
        return len(self._queues[camera])

    def paths(self, frame_id: int) -> tuple[int, ...]:
        """The ways of the ledger that a frame is on."""
        return () if frame_id == NO_FRAME else self._spec.paths

    def oldest(self, camera: str) -> int | None:
        """The smallest id of a frame of this camera that waits here; None: none does."""
        batched = (d for batch in self.batches for d in batch if d.camera == camera)
        return min((d.frame_id for d in (*self._queues[camera], *batched)), default=None)

    def is_settled(self, delivery: Delivery) -> bool:
        """Whether its frame has met its fate on all of its ways; never so for what is in no frame."""
        info, settled = delivery.envelope.info, self._ledger.settled
        camera, paths = self._ledger.camera_index[info.camera], self.paths(info.frame_id)
        for path in paths:  # no generator: this is asked for each frame
            if not settled(camera, path, info.frame_id):
                return False
        return bool(paths)

    def _pool(self, ref: SlotRef) -> PoolReader:
        pool = self._pools.get(ref.pool_epoch)
        if pool is None:
            raise PoolGone(f"pool {ref.pool_epoch} is gone with its writer")
        return pool

    def _let_go(self, pool_epoch: int) -> None:
        """If it is forgotten, and nothing of it is here."""
        if pool_epoch in self._forgotten and not self.holds_of(pool_epoch):
            self._forgotten.remove(pool_epoch)
            self._pools.pop(pool_epoch, None)

    def _sort(self, camera: str) -> None:
        queue = self._queues[camera]
        if queue[-2].frame_id > queue[-1].frame_id:
            self._queues[camera] = deque(sorted(queue, key=lambda d: d.frame_id))

    def _is_next(self, delivery: Delivery) -> bool:
        """Whether every earlier frame has met its fate, so that order is kept whatever died."""
        camera = self._ledger.camera_index[delivery.camera]
        return all(
            self._ledger.oldest_unsettled(camera, path, delivery.frame_id) == delivery.frame_id
            for path in self._spec.paths
        )


_T = TypeVar("_T")


def _chunks(things: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (things[i : i + _TOGETHER] for i in range(0, len(things), _TOGETHER))
