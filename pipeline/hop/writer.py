"""The output side of a process: its leases, and an edge with a channel for each consumer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.accounts.layout import VIEW
from pipeline.accounts.ledger import Ledger
from pipeline.errors import Full, MessageError
from pipeline.happenings import NO_FRAME
from pipeline.hop import codec
from pipeline.hop.codec import decode_done, encode_batch, message_front, pack_numbers
from pipeline.hop.edge import Edge, Parcel, fitting
from pipeline.hop.storage import Slot, Storage
from pipeline.hop.transport import Context, Outbox
from pipeline.messages import (
    FrameInfo,
    Message,
    SlotRef,
    arrays_of,
)
from pipeline.plan.graph import UNDELIVERED, EdgeSpec, ProcessSpec


@dataclass
class _Link:
    spec: EdgeSpec
    edge: Edge
    outbox: Outbox | None = None
    consumer_code: int = 0
    is_abandoned: bool = False
    is_held: bool = False  # nothing is sent to it: it is to end, and another one comes in its place
    sinks: tuple[int, ...] = ()  # behind it, as ways of the ledger

    def __post_init__(self) -> None:
        self.adopt(self.spec)

    def wants(self, camera: str, now_ns: int) -> bool:
        """Whether its consumer is to have a frame now."""
        return not self.is_abandoned and self.edge.wants(camera, now_ns)

    def adopt(self, spec: EdgeSpec) -> None:
        """As the plan has it by now."""
        self.spec = spec
        self.sinks = tuple(path for path in spec.paths if path > VIEW)
        self.edge.set_rate(spec.max_hz)

    @property
    def is_after_end(self) -> bool:
        """What it carries has come to the end of its path."""
        return all(path > VIEW for path in self.spec.paths)


class Writer:
    """Publishes messages to every consumer of a process. One thread, but `has_room`."""

    def __init__(
        self,
        spec: ProcessSpec,
        ledger: Ledger,
        context: Context,
        *,
        code: int,
        identity: bytes,
        storage: Storage,
        resend: bool,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """code, identity: of this process in this incarnation, in the ledger and to its consumers.
        storage: where what is published lies.
        resend: give a consumer's successor again what was under way to it (policy `every`).
        clock: monotonic, in ns."""
        self._offers = spec.delivers  # else somebody before us has ended the path
        self._name, self._ledger, self._context = spec.name, ledger, context
        self._index = ledger.process_index[spec.name]
        self.code, self._identity = code, identity
        self._storage = storage
        self._orphans: dict[int, list[Parcel]] = {}  # by consumer's code; see consumer_died
        self._resend, self._clock = resend, clock
        self._links: dict[str, _Link] = {}  # by consumer
        self._serves: dict[str, list[_Link]] = {}  # by camera
        self.adopt(spec)

    def adopt(self, spec: ProcessSpec) -> None:
        """These are our cameras and edges from now on. Of cameras that are left nothing may be here; what
        an edge has of one that it serves no more is sent."""
        for edge in spec.outputs:
            if edge.consumer in self._links:
                self._links[edge.consumer].adopt(edge)
            else:
                self._links[edge.consumer] = _Link(edge, Edge.of(edge))
        for camera in self._serves.keys() - set(spec.cameras):
            for link in self._serves[camera]:
                link.edge.leave(camera)
        consumers = {edge.consumer for edge in spec.outputs}
        for name in self._links.keys() - consumers:
            self.consumer_died(name)
            del self._links[name]
        self._serves = {
            camera: [link for link in self._links.values() if camera in link.spec.cameras]
            for camera in spec.cameras
        }
        self._has_sinks = any(link.sinks for link in self._links.values())

    # -- messages ----------------------------------------------------------------------------------

    def has_room(self, camera: str, n: int = 1) -> bool:
        """Whether every consumer of this camera can keep n more messages without dropping another."""
        for link in self._serves[camera]:  # noqa: SIM110 - a generator costs more than it asks
            if not link.edge.has_room(camera, n):
                return False
        return True

    def wanted(self, camera: str) -> bool:
        """Whether any consumer asked for a frame of this camera now (`max_hz`)."""
        now_ns = self._clock()
        return any(link.edge.wants(camera, now_ns) for link in self._serves[camera])

    def publish(self, message: Message) -> None:
        """Offer a message to every consumer that wants it. Its arrays are copied unless `empty` or
        `pack` of the storage made them. Never waits; call `flush` afterwards.

        Raises FrameError or MessageError if it can't be sent; then `cancel` gives its slot back.
        """
        slot, specs = self._storage.place(arrays_of(message))
        self.offer(message.info, slot, message_front(message, specs))

    def offer(self, info: FrameInfo, slot: Slot | None, front: bytes) -> None:
        """The same for a message that is encoded up to its numbers, and whose arrays lie in `slot`,
        from `Storage.take`."""
        now_ns = self._clock()
        served = self._to_serve(info)
        links = [link for link in served if link.wants(info.camera, now_ns)]
        ref = self._storage.ref(slot) if links and slot is not None else None
        # first: what can't be sent must neither be leased nor accounted for
        data = front + pack_numbers(info, ref, now_ns)
        if self._offers and self._has_sinks:
            for link in served:
                self._offer_to_sinks(link, info)
        if len(links) < len(served):
            for link in served:
                if link not in links:
                    reason = "stage_died" if link.is_abandoned else "unwanted"
                    self._end(link, info.camera, info.frame_id, reason)
        if ref is not None:
            self._storage.publish(ref, {link.spec.consumer for link in links})
        elif slot is not None:
            self._storage.give_back(slot)
            return
        parcel = Parcel(info.camera, info.frame_id, data, ref)
        for link in links:
            if (oldest := link.edge.offer(parcel, now_ns)) is not None:
                # a picture that is overtaken is what a mailbox is for; a result is lost
                self._give_up(link, oldest, "superseded" if oldest.ref is not None else "overflow")

    def _to_serve(self, info: FrameInfo) -> list[_Link]:
        """Who ends a path says which sinks a frame is for, and all behind it obey."""
        served = self._serves[info.camera]
        if self._offers or not self._has_sinks or info.frame_id == NO_FRAME:
            return served
        row, is_on = self._ledger.camera_index[info.camera], self._ledger.is_on
        return [
            link
            for link in served
            if not link.sinks or any(is_on(row, way, info.frame_id) for way in link.sinks)
        ]

    def _offer_to_sinks(self, link: _Link, info: FrameInfo) -> None:
        for sink in link.sinks:
            camera = self._ledger.camera_index[info.camera]
            self._ledger.offer(camera, sink, info.frame_id, self.code)

    def flush(self) -> None:
        """Send whatever has a credit. Never waits."""
        for link in self._links.values():
            if link.outbox is None or link.is_held:
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
        parcel = link.edge.done(camera, ref)
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
        link.is_held = False  # who held for the one before may never have been connected to it

    def consumer_died(self, consumer: str, *, outlived: bool = False) -> None:
        """Its credits are back. What it had is lost, or waits for its successor. Its leases end, unless
        it was `outlived` by who reads the slots that it passed on: then they end when that is `settled`.
        """
        link = self._links[consumer]
        if link.outbox is None:
            return
        link.outbox.close()
        link.outbox, link.is_held = None, False
        if not outlived:  # it may have ended some without having said DONE
            for parcel in link.edge.take_back(lambda parcel: self._is_ended(link, parcel)):
                self._release(link, parcel)
        lost, again = link.edge.consumer_died(resend=self._resend or link.is_after_end)
        if outlived:
            orphans = self._orphans[link.consumer_code] = [*lost, *again]
            for parcel in orphans:
                if parcel.ref is not None:
                    self._storage.share(parcel.ref, link.consumer_code)
        for parcel in lost:
            # not marked as dropped: its result may be on the way already. The supervisor buries it.
            self._hand_over(link, parcel, link.consumer_code)
            self._release(link, parcel)
        for parcel in again:
            self._ledger.send_again(self._ledger.camera_index[parcel.camera], parcel.frame_id)
            self._hand_over(link, parcel, self.code)

    def hold(self, consumer: str) -> None:
        """Send nothing to it until its successor connects, or all is `let_go`."""
        self._links[consumer].is_held = True

    def has_nothing(self, consumer: str) -> bool:
        """Whether all is DONE that was sent to it."""
        return not self._links[consumer].edge.under_way

    def let_go(self) -> None:
        """Hold nothing any more."""
        for link in self._links.values():
            link.is_held = False

    def settled(self, code: int) -> None:
        """Nobody looks any more at what this consumer had passed on when it died."""
        for parcel in self._orphans.pop(code, ()):
            if parcel.ref is not None:
                self._storage.release(parcel.ref, code)

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
            (i for link in self._links.values() if (i := link.edge.oldest(camera)) is not None),
            default=None,
        )

    def lags(self, camera: str) -> bool:
        """Whether something of a camera waits for a consumer, or is at one, that gets no more of it."""
        served = self._serves[camera]
        others = (link for link in self._links.values() if link not in served)
        return any(link.edge.oldest(camera) is not None for link in others)

    def _is_ended(self, link: _Link, parcel: Parcel) -> bool:
        settled, paths = self._ledger.settled, link.spec.paths
        row = self._ledger.camera_index[parcel.camera]
        of_frame = bool(paths) and parcel.frame_id != NO_FRAME
        return of_frame and all(settled(row, path, parcel.frame_id) for path in paths)

    def _hand_over(self, link: _Link, parcel: Parcel, code: int) -> None:
        for path in link.spec.paths:
            camera = self._ledger.camera_index[parcel.camera]
            self._ledger.hold(camera, path, parcel.frame_id, code)

    @property
    def waiting(self) -> bool:
        """Something waits for a credit."""
        for link in self._links.values():  # noqa: SIM110 - as in `has_room`
            if link.edge.waiting:
                return True
        return False

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
        if not self._storage.has_memory:
            return
        self._ledger.put("slots", (self._index, 0), self._storage.free_slots)
        self._ledger.put("slots", (self._index, 1), self._storage.leased)

    # -- inside ------------------------------------------------------------------------------------

    def _release(self, link: _Link, parcel: Parcel) -> None:
        if parcel.ref is not None:
            self._storage.release(parcel.ref, link.spec.consumer)

    def _give_up(self, link: _Link, parcel: Parcel, reason: str) -> None:
        self._end(link, parcel.camera, parcel.frame_id, reason)
        self._release(link, parcel)

    def _end(self, link: _Link, camera: str, frame_id: int, reason: str) -> None:
        for path in link.spec.paths:
            self._ledger.drop(self._ledger.camera_index[camera], path, frame_id, reason)
        counter = f"{UNDELIVERED}{link.spec.consumer}"
        if not link.spec.paths and counter in self._ledger.layout.counters[self._name]:
            self._ledger.count(self._name, counter, camera)
