"""The batcher: a small process between preprocess and the workers of one model.

It holds one descriptor a camera (schedule.py says which go next), touches no pixels, and has no timer:
it acts when a frame arrives or a worker is free.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from pipeline.errors import Full, MessageError
from pipeline.hop.codec import decode_done, decode_refused, digest_of, encode_batch
from pipeline.hop.control import Control
from pipeline.hop.edge import fitting
from pipeline.hop.reader import Delivery
from pipeline.hop.transport import Outbox
from pipeline.process.base import IDLE_MS, Process
from pipeline.process.schedule import Batcher

Batch = list[tuple[str, Delivery]]


class _Worker:
    def __init__(self, outbox: Outbox, code: int) -> None:
        self.outbox = outbox
        self.code = code
        self.batch: Batch = []
        self.under_way = 0  # items of the batch that are not DONE


class BatcherProcess(Process):
    """Feeds every worker that is free."""

    def __init__(self, control: Control, start: dict[str, Any], fds: list[int]) -> None:
        self._workers: dict[str, _Worker] = {}
        self._abandoned: set[str] = set()
        super().__init__(control, start, fds)
        options = self.spec.options
        self._batcher: Batcher[Delivery] = Batcher(
            self.spec.cameras,
            max_batch=options["max_batch"],
            policy=options["policy"],
            depth=options["depth"],
        )
        # Batches of dead workers (`every`), for their successors alone: another worker may have later
        # frames of these cameras under way to postprocess, which waits for the earlier ones, and no
        # room for more before they are gone.
        self._again: dict[str, Batch] = {}
        self._tried: set[tuple[str, int]] = set()  # (camera, frame_id) that a worker died with
        self._forgetting: list[list[Any]] = []  # pools of dead producers of which we hold something

    def run(self) -> None:
        """Until drained."""
        self.ready(turn_s=1.0)
        while True:
            self.turn(IDLE_MS)
            self._take_in()
            if self._abandoned.issuperset(edge.consumer for edge in self.spec.outputs):
                self._give_up()
            self._feed()
            if self._take_back():
                self._feed()
            self.reader.flush()
            self.tell_held()
            if self._forgetting:
                self._say_forgotten()
            held = self._again or any(worker.batch for worker in self._workers.values())
            if self.draining and not held and not self.reader.waiting and self._batcher.idle:
                return

    def joined(self, camera: str) -> None:
        """See Process.joined."""
        self._batcher.add(camera)

    def left(self, camera: str) -> None:
        """See Process.left."""
        self._batcher.remove(camera)

    def on_connect(self, consumer: str, endpoint: str, code: int) -> None:
        """A worker is ready."""
        if consumer in self._workers:
            self.on_gone(consumer)
        outbox = Outbox(self.context, endpoint, self.identity)
        self._workers[consumer] = _Worker(outbox, code)
        self._new_pollers()

    def on_gone(self, consumer: str, outlived: bool = False) -> None:
        """A worker died. Its frames are lost (newest) or go to its successor, once (every)."""
        worker = self._workers.pop(consumer, None)
        if worker is None:
            return
        worker.outbox.close()
        self._new_pollers()
        again: Batch = []
        self._batcher.lost(consumer)
        for camera, delivery in worker.batch:
            key = (camera, delivery.frame_id)
            if self.policy == "every" and key not in self._tried:
                self._tried.add(key)
                self.ledger.send_again(self.ledger.camera_index[camera], delivery.frame_id)
                self._hold(delivery, self.code)
                again.append((camera, delivery))
            else:
                self._hold(delivery, worker.code)  # the supervisor buries it with its worker
                self.reader.done(delivery)
        if again:
            self._again[consumer] = again

    def on_forget(self, pool: list[Any]) -> None:
        """See Process.on_forget; the workers keep the pool until nothing of it can come from here."""
        self._forgetting.append(pool)

    def _say_forgotten(self) -> None:
        for pool in self._forgetting[:]:
            if not self.reader.holds_of(pool[1]):
                self._forgetting.remove(pool)
                self.control.send("forgot", pool=pool)

    def on_abandon(self, consumer: str) -> None:
        """A worker will not come back before the run ends."""
        self.on_gone(consumer)
        self._abandoned.add(consumer)
        for _, delivery in self._again.pop(consumer, ()):
            self._lose(delivery)

    def held(self, camera: str) -> Iterable[int | None]:
        """As Process.held; and what waits for a worker or is at one."""
        batches = [*self._again.values(), *(worker.batch for worker in self._workers.values())]
        yield from super().held(camera)
        yield from (d.frame_id for batch in batches for name, d in batch if name == camera)
        yield from (delivery.frame_id for delivery in self._batcher.waiting_of(camera))

    def _give_up(self) -> None:
        """No worker will come back: what waits is lost."""
        waiting = [d for camera in self.spec.cameras for d in self._batcher.clear(camera)]
        for delivery in waiting:
            self._lose(delivery)

    def _lose(self, delivery: Delivery) -> None:
        self._drop(delivery, "stage_died")
        self.reader.done(delivery)

    def _drop(self, delivery: Delivery, reason: str) -> None:
        camera = self.ledger.camera_index[delivery.camera]
        for path in self.spec.paths:
            self.ledger.drop(camera, path, delivery.frame_id, reason)

    def answer_descriptors(self) -> list[int]:
        """Of the workers' channels."""
        return [worker.outbox.descriptor for worker in self._workers.values()]

    def _nothing_waits(self) -> bool:
        return not self._workers

    def _is_answered(self) -> bool:
        return any(worker.outbox.readable for worker in self._workers.values())

    def _take_in(self) -> None:
        for _ in range(len(self.reader.batches)):
            waiting: list[Delivery] = []
            for delivery in self.reader.batches.popleft():
                try:
                    superseded = self._batcher.offer(delivery.camera, delivery)
                except Full:  # every: it keeps its place here, and its credit
                    waiting.append(delivery)
                    continue
                if superseded is not None:
                    self._drop(superseded, "superseded")
                    self.reader.done(superseded)
            if waiting:
                self.reader.batches.append(waiting)

    def _take_back(self) -> bool:
        """True: a worker is free that was not."""
        freed = False
        for name, worker in self._workers.items():
            for data in worker.outbox.receive():
                worker.under_way -= self._answered(worker, data)
            if worker.batch and worker.under_way == 0:
                for camera, delivery in worker.batch:
                    self.reader.done(delivery)
                    self.ledger.add("processed", (self.index, self.ledger.camera_index[camera]))
                worker.batch = []
                self._batcher.finished(name)
                freed = True
        return freed

    def _answered(self, worker: _Worker, data: bytes) -> int:
        """How many items of its batch the worker is through with."""
        with contextlib.suppress(MessageError):
            return len(decode_done(data))
        try:
            refused = set(decode_refused(data))
        except MessageError:
            self.ledger.add("garbage", self.index)
            return 0
        for _, delivery in worker.batch:
            if digest_of(delivery.data) in refused:
                self._drop(delivery, "error")
        return len(refused)

    def _feed(self) -> None:
        for name, worker in self._workers.items():
            if worker.batch:
                continue
            worker.batch = self._again.pop(name, []) or self._batcher.take(name)
            if worker.batch:
                worker.under_way = len(worker.batch)
                messages = [delivery.data for _, delivery in worker.batch]
                while messages:  # as a rule once; truth of crowds takes several
                    n = fitting(messages)
                    worker.outbox.send(encode_batch(messages[:n]))
                    del messages[:n]

    def _hold(self, delivery: Delivery, code: int) -> None:
        camera = self.ledger.camera_index[delivery.camera]
        for path in self.spec.paths:
            self.ledger.hold(camera, path, delivery.frame_id, code)
