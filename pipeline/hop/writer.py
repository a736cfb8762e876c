"""The output side of a process: its pool, its leases, and an edge with a channel for each consumer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.accounts.ledger import VIEW, Ledger
from pipeline.errors import FrameError, Full, MessageError
from pipeline.hop import codec
from pipeline.hop.codec import decode_done, encode_batch, message_front, pack_numbers
from pipeline.hop.edge import Edge, Parcel, fitting
from pipeline.hop.pool import PoolWriter
from pipeline.hop.slots import Slots
from pipeline.hop.transport import Context, Outbox
from pipeline.messages import (
    ArraySpec,
    FrameInfo,
    Message,
    SlotRef,
    arrays_of,
    copies,
    lay_out,
)
from pipeline.plan.graph import EdgeSpec, ProcessSpec


class _Place(NamedTuple):
    """The arrays that were made in a slot."""

    arrays: tuple[npt.NDArray[Any], ...]
    specs: tuple[ArraySpec, ...]


_NOTHING = _Place((), ())


@dataclass
class _Link:
    spec: EdgeSpec
    edge: Edge
    outbox: Outbox | None = None
    consumer_code: int = 0
    is_abandoned: bool = False

    @property
    def sinks(self) -> tuple[int, ...]:
        """The sinks behind it, as ways of the ledger."""
        return tuple(path for path in self.spec.paths if path > VIEW)

    def wants(self, camera: str, now_ns: int) -> bool:
        """Whether its consumer is to have a frame now."""
        return not self.is_abandoned and self.edge.wants(camera, now_ns)

    @property
    def is_after_end(self) -> bool:
        """What it carries has come to the end of its path."""
        return all(path > VIEW for path in self.spec.paths)


class Writer:
    """Publishes messages to every consumer of a process. One thread, but `empty` and `has_room`."""

    def __init__(
        self,
        spec: ProcessSpec,
        ledger: Ledger,
        context: Context,
        *,
        code: int,
        identity: bytes,
        pool: PoolWriter | None,
        pool_epoch: int,
        resend: bool,
    ) -> None:
        """code, identity: of this process in this incarnation, in the ledger and to its consumers.
        resend: give a consumer's successor again what was under way to it (policy `every`)."""
        self._spec, self._ledger, self._context = spec, ledger, context
        self._index = ledger.process_index[spec.name]
        self.code, self._identity = code, identity
        self._pool, self._pool_epoch = pool, pool_epoch
        self._slots = None if pool is None else Slots(pool.generations)
        self._open: dict[int, _Place] = {}  # slots that were given out and not yet published
        self._orphans: dict[int, list[Parcel]] = {}  # by consumer's code; see consumer_died
        self._resend = resend
        self._links = {
            edge.consumer: _Link(
                edge,
                Edge(
                    credits=edge.credits,
                    depth=edge.depth,
                    overflow=edge.overflow,
                    max_hz=edge.max_hz,
                ),
            )
            for edge in spec.outputs
        }
        self._serves = {
            camera: [link for link in self._links.values() if camera in link.spec.cameras]
            for camera in spec.cameras
        }

    # -- memory ------------------------------------------------------------------------------------

    @property
    def free_slots(self) -> int:
        """How many results can be written now."""
        return 1 << 30 if self._slots is None else self._slots.free

    def take(self) -> tuple[int, npt.NDArray[np.uint8]] | None:
        """A free slot and all its bytes, to be published or given back by `cancel`; None: none is free."""
        if self._slots is None or self._pool is None:
            raise FrameError(f"{self._spec.name}: this process has no pool; set slot_bytes()")
        slot = self._slots.take()
        if slot is None:
            return None
        self._open[slot] = _NOTHING
        return slot, self._pool.slot(slot)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """See stage.Runtime.empty."""
        kind = np.dtype(dtype)
        slot, buffer = self._take(int(np.prod(shape)) * kind.itemsize)
        array = buffer.view(kind).reshape(shape)
        self._open[slot] = _Place((array,), (ArraySpec(kind.str, array.shape, 0),))
        return array

    def pack(self, arrays: Sequence[npt.NDArray[Any]]) -> tuple[npt.NDArray[Any], ...]:
        """See stage.Runtime.pack."""
        specs = lay_out(arrays)
        slot, buffer = self._take(specs[-1].end)
        place = self._open[slot] = _Place(copies(arrays, specs, buffer), specs)
        return place.arrays

    def cancel(self) -> None:
        """Give back every slot that was taken and not published."""
        while self._open and self._slots is not None:
            self._slots.cancel(self._open.popitem()[0])

    def give_back(self, slot: int) -> None:
        """A slot that was taken and not published."""
        if self._slots is not None:
            del self._open[slot]
            self._slots.cancel(slot)

    # -- messages ----------------------------------------------------------------------------------

    def has_room(self, camera: str, n: int = 1) -> bool:
        """Whether every consumer of this camera can keep n more messages without dropping another."""
        return all(link.edge.has_room(camera, n) for link in self._serves[camera])

    def wanted(self, camera: str) -> bool:
        """Whether any consumer asked for a frame of this camera now (`max_hz`)."""
        now_ns = time.monotonic_ns()
        return any(link.edge.wants(camera, now_ns) for link in self._serves[camera])

    def publish(self, message: Message) -> None:
        """Offer a message to every consumer that wants it. Its arrays are copied unless `empty` or
        `pack` made them. Never waits; call `flush` afterwards.

        Raises FrameError or MessageError if it can't be sent; then `cancel` gives its slot back.
        """
        slot, specs = self._place(arrays_of(message))
        self.offer(message.info, slot, message_front(message, specs))

    def offer(self, info: FrameInfo, slot: int | None, front: bytes) -> None:
        """The same for a message that is encoded up to its numbers, and whose arrays lie in `slot`,
        from `take`."""
        now_ns = time.monotonic_ns()
        served = self._serves[info.camera]
        links = [link for link in served if link.wants(info.camera, now_ns)]
        ref = None
        if links and slot is not None and self._slots is not None:
            ref = SlotRef(self._pool_epoch, slot, self._slots.generation(slot) + 1)
        # first: what can't be sent must neither be leased nor accounted for
        data = front + pack_numbers(info, ref, now_ns)
        for link in served:
            self._offer_to_sinks(link, info)
            if link not in links:
                reason = "stage_died" if link.is_abandoned else "unwanted"
                self._end(link, info.camera, info.frame_id, reason)
        if ref is not None and self._slots is not None:
            del self._open[ref.slot]
            self._slots.ready(ref.slot, {link.spec.consumer for link in links})
        elif slot is not None:
            return self.give_back(slot)
        parcel = Parcel(info.camera, info.frame_id, data, slot, ref.generation if ref else 0)
        for link in links:
            if (oldest := link.edge.offer(parcel, now_ns)) is not None:
                # a picture that is overtaken is what a mailbox is for; a result is lost
                self._give_up(link, oldest, "superseded" if oldest.slot is not None else "overflow")
        return None

    def _offer_to_sinks(self, link: _Link, info: FrameInfo) -> None:
        for sink in link.sinks:
            camera = self._ledger.camera_index[info.camera]
            self._ledger.offer(camera, sink, info.frame_id, self.code)

    def flush(self) -> None:
        """Send whatever has a credit. Never waits."""
        for link in self._links.values():
            if link.outbox is None:
                continue
            parcels = link.edge.sendable()
            while parcels:
                messages = [parcel.data for parcel in parcels]
                n = fitting(messages)
                try:
                    link.outbox.send(encode_batch(messages[:n]))
                except Full:
                    for parcel in reversed(parcels):
                        link.edge.unsend(parcel)
                    break
                del parcels[:n]

    def receive(self) -> bool:
        """Take in all DONEs that are here: slots and credits come back. True: there were some."""
        came = False
        for link in self._links.values():
            for data in link.outbox.receive() if link.outbox else ():
                came = True
                try:
                    for camera, ref in decode_done(data):
                        self._done(link, camera, ref)
                except MessageError:
                    self._take_refused(link, data)
        return came

    def exchange(self) -> None:
        """Send and receive until nothing more can be done now, nor is `readable`; never waits."""
        while self._links:
            self.flush()
            if not self.receive():
                return

    def _done(self, link: _Link, camera: str, ref: SlotRef | None) -> None:
        if ref is not None and ref.pool_epoch != self._pool_epoch:
            return
        slot, generation = (None, 0) if ref is None else (ref.slot, ref.generation)
        parcel = link.edge.done(camera, slot, generation)
        if parcel is not None:
            self._release(link, parcel)

    def _take_refused(self, link: _Link, data: bytes) -> None:
        """Messages that the consumer can't read end here."""
        try:
            digests = set(codec.decode_refused(data))
        except MessageError:
            self._ledger.add("garbage", self._index)
            return
        for parcel in link.edge.take_back(lambda parcel: codec.digest_of(parcel.data) in digests):
            self._give_up(link, parcel, "error")

    # -- consumers ---------------------------------------------------------------------------------

    def connect(self, consumer: str, endpoint: str, code: int) -> None:
        """A consumer (in a new incarnation, `code`) is ready at `endpoint`."""
        link = self._links[consumer]
        if link.outbox is not None:
            self.consumer_died(consumer)
        link.outbox = Outbox(self._context, endpoint, self._identity)
        link.consumer_code = code

    def consumer_died(self, consumer: str, *, outlived: bool = False) -> None:
        """Its credits are back. What it had is lost, or waits for its successor. Its leases end, unless
        it was `outlived` by who reads the slots that it passed on: then they end when that is `settled`.
        """
        link = self._links[consumer]
        if link.outbox is None:
            return
        link.outbox.close()
        link.outbox = None
        if not outlived:  # it may have ended some without having said DONE
            for parcel in link.edge.take_back(lambda parcel: self._is_ended(link, parcel)):
                self._release(link, parcel)
        lost, again = link.edge.consumer_died(resend=self._resend or link.is_after_end)
        if outlived and self._slots is not None:
            orphans = self._orphans[link.consumer_code] = [*lost, *again]
            for parcel in orphans:
                if parcel.slot is not None:
                    self._slots.share(parcel.slot, parcel.generation, link.consumer_code)
        for parcel in lost:
            # not marked as dropped: its result may be on the way already. The supervisor buries it.
            self._hand_over(link, parcel, link.consumer_code)
            self._release(link, parcel)
        for parcel in again:
            self._hand_over(link, parcel, self.code)

    def settled(self, code: int) -> None:
        """Nobody looks any more at what this consumer had passed on when it died."""
        for parcel in self._orphans.pop(code, ()):
            if parcel.slot is not None and self._slots is not None:
                self._slots.release(parcel.slot, parcel.generation, code)

    def abandon(self, consumer: str) -> None:
        """A consumer will not come back: what waits for it is lost, and so is all that is to come."""
        self.consumer_died(consumer)
        link = self._links[consumer]
        link.is_abandoned = True
        for parcel in link.edge.clear():
            self._give_up(link, parcel, "stage_died")

    def oldest(self, camera: str) -> int | None:
        """The smallest id of a frame of this camera that waits or is under way; None: there is none."""
        return min(
            (i for link in self._serves[camera] if (i := link.edge.oldest(camera)) is not None),
            default=None,
        )

    def _is_ended(self, link: _Link, parcel: Parcel) -> bool:
        settled, paths = self._ledger.settled, link.spec.paths
        row = self._ledger.camera_index[parcel.camera]
        return bool(paths) and all(settled(row, path, parcel.frame_id) for path in paths)

    def _hand_over(self, link: _Link, parcel: Parcel, code: int) -> None:
        for path in link.spec.paths:
            camera = self._ledger.camera_index[parcel.camera]
            self._ledger.hold(camera, path, parcel.frame_id, code)

    @property
    def waiting(self) -> bool:
        """Something waits for a credit."""
        return any(link.edge.waiting for link in self._links.values())

    @property
    def idle(self) -> bool:
        """Everything was sent and is DONE."""
        return all(link.edge.idle for link in self._links.values())

    @property
    def readable(self) -> bool:
        """Whether a DONE is here that was not taken in."""
        return any(link.outbox.readable for link in self._links.values() if link.outbox)

    def descriptors(self) -> list[int]:
        """What to poll for DONEs; see transport.poller."""
        return [link.outbox.descriptor for link in self._links.values() if link.outbox is not None]

    def report(self) -> None:
        """Write the state of the slots into the ledger."""
        if self._slots is not None:
            self._ledger.put("slots", (self._index, 0), self._slots.free)
            self._ledger.put("slots", (self._index, 1), self._slots.leased)

    # -- inside ------------------------------------------------------------------------------------

    def _take(self, nbytes: int) -> tuple[int, npt.NDArray[np.uint8]]:
        """A slot and its first `nbytes`. Raises FrameError."""
        taken = self.take()
        if taken is None:
            raise FrameError(f"{self._spec.name}: no free slot for another result of this call")
        slot, buffer = taken
        if nbytes > len(buffer):
            raise FrameError(
                f"{self._spec.name}: a result of {nbytes} bytes does not fit a slot of {len(buffer)}; "
                "raise slot_bytes() or the camera's max_size"
            )
        return slot, buffer[:nbytes]

    def _place(
        self, arrays: Sequence[npt.NDArray[Any]]
    ) -> tuple[int | None, tuple[ArraySpec, ...]]:
        """The slot in which all arrays lie, copied there if need be, and where each lies."""
        if not arrays or self._pool is None:
            return None, ()
        for slot, place in self._open.items():
            if len(place.arrays) == len(arrays) and all(map(is_, place.arrays, arrays)):
                return slot, place.specs
        places = [self._pool.locate(array) for array in arrays]
        slots = {place[0] for place in places if place is not None}
        if None in places or len(slots) != 1 or not all(a.flags.c_contiguous for a in arrays):
            return self._place(self.pack(arrays))
        specs = tuple(
            ArraySpec(array.dtype.str, array.shape, place[1])
            for array, place in zip(arrays, places, strict=True)
            if place is not None
        )
        return slots.pop(), specs

    def _release(self, link: _Link, parcel: Parcel) -> None:
        if parcel.slot is not None and self._slots is not None:
            self._slots.release(parcel.slot, parcel.generation, link.spec.consumer)

    def _give_up(self, link: _Link, parcel: Parcel, reason: str) -> None:
        self._end(link, parcel.camera, parcel.frame_id, reason)
        self._release(link, parcel)

    def _end(self, link: _Link, camera: str, frame_id: int, reason: str) -> None:
        for path in link.spec.paths:
            self._ledger.drop(self._ledger.camera_index[camera], path, frame_id, reason)
        if not link.spec.paths:
            self._ledger.count(self._spec.name, f"undelivered:{link.spec.consumer}", camera)
