"""A stage in a process of its own: takes items in, calls the stage, passes on what it gives."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from pipeline.accounts.layout import DETECT, MAX_BATCH
from pipeline.errors import (
    ConfigError,
    FrameError,
    ManyeyesError,
    MessageError,
    PoolGone,
    TornFrame,
)
from pipeline.happenings import NO_FRAME
from pipeline.hop.codec import message_front
from pipeline.hop.reader import Delivery
from pipeline.messages import Message, Result
from pipeline.plan.loading import build
from pipeline.process.base import IDLE_MS, Process
from pipeline.process.join import Join
from pipeline.process.memory import Memory
from pipeline.process.stage_runtime import StageRuntime
from pipeline.stage import BatchStage, Stage

log = logging.getLogger("manyeyes")

_SHARED_TURN_S = {"newest": 0.0005, "every": 0.005}
_CALL_IDLE_MS = 100  # stages that have something to do between items
_BEHIND_S = (
    10.0  # newest: a sink that stalls, or a model that keeps dying, does not hold the next one up
)


class StageProcess(Process):
    """Runs a Stage, JoinStage, Sink or BatchStage."""

    stage: Any = None  # until `run`
    join: Join | None = None

    def run(self) -> None:
        """Until drained; then the stage is closed."""
        # what was worked at and not accounted for: items, begin and end in monotonic seconds
        self._worked: list[tuple[Sequence[Delivery], float, float]] = []
        # what was worked at, by camera, and is DONE when all that came of it is: under `every` nothing
        # of a stage that remembers is lost with it, since it comes again and needs no work
        self._kept: defaultdict[str, deque[Delivery]] = defaultdict(deque)
        self._keeps = self.spec.remembers and self.policy == "every"
        # frames that a sink has in hand and did not settle, by camera, the oldest first
        self._owed: defaultdict[str, deque[int]] = defaultdict(deque)
        # cameras that came over from others, and until when results of these are waited for
        self._behind: dict[str, float] = {}
        stage = build(self.spec.run, self.spec.config)
        stage.runtime = StageRuntime(self)
        if self.spec.role == "join":
            options = self.spec.options
            self.join = Join(
                options.get("policy", self.policy),
                options["max_age_ms"],
                options["max_waiting"],
                self.ledger,
            )
        stage.setup()
        self.stage = stage
        self.memory = Memory(stage, self.spec, self.ledger)
        for camera in self.spec.cameras:
            self.joined(camera)
        self.ready(self.stage.turn_s, self.stage.about)
        try:
            self._loop()
        finally:
            self.stage.close()

    def joined(self, camera: str) -> None:
        """See Process.joined; before `setup` there is nobody to be told yet."""
        if self.stage is not None:
            self.stage.add(camera)
            self.memory.restore(camera)

    def came_over(self, camera: str) -> None:
        """See Process.came_over; results keep the order of their frames."""
        if self.spec.delivers and DETECT in self.spec.paths:
            self.wait_for_earlier(camera)

    def wait_for_earlier(self, camera: str) -> None:
        """See Process.wait_for_earlier."""
        wait_s = math.inf if self.policy == "every" else _BEHIND_S
        self._behind[camera] = time.monotonic() + wait_s

    def left(self, camera: str) -> None:
        """See Process.left."""
        self.stage.remove(camera)
        self.memory.leave(camera)
        self._kept.pop(camera, None)
        self._owed.pop(camera, None)
        self._behind.pop(camera, None)
        if self.join is not None:
            self.join.leave(camera)

    def held(self, camera: str) -> Iterable[int | None]:
        """As Process.held; and what a sink has not settled."""
        yield from super().held(camera)
        yield from list(self._owed.get(camera, ()))[:1]

    def settle(self, camera: str, frames: int, *, taken: bool) -> None:
        """See runtime.Runtime.settle."""
        row, owed = self.ledger.camera_index[camera], self._owed[camera]
        for frame_id in [owed.popleft() for _ in range(frames)]:
            for path in self.spec.paths:
                if taken:
                    self.ledger.deliver(row, path, frame_id)
                else:
                    self.ledger.drop(row, path, frame_id, "error")

    def _loop(self) -> None:
        idle_at = time.monotonic()
        worked = False
        while True:
            more = self.reader.waiting or self.draining
            self.turn(0 if worked and more else self._timeout_ms())
            worked = self._work()
            if not worked:  # for want of a credit or a slot, perhaps
                self.writer.exchange()
                worked = self._work()
            # items that cost next to nothing share a turn, its wake-up and its DONE message
            end = time.monotonic() + _SHARED_TURN_S[self.policy]
            while worked and self.reader.waiting and time.monotonic() < end and self._work():
                pass
            self.writer.exchange()  # first: somebody waits for it
            self._account()
            self.reader.flush()
            if (now := time.monotonic()) >= idle_at:
                idle_at = now + _CALL_IDLE_MS / 2000
                self._publish_all(self.stage.idle() or ())
                self.writer.report()
                self.tell_held()
            if self.draining and not worked and self._is_finished():
                return

    def _timeout_ms(self) -> int:
        # what waits for an earlier frame's fate is not announced by a message
        joins = self.join is not None and (self.reader.waiting or self.join.waiting)
        if joins or ((self.spec.in_order or self._behind) and self.reader.waiting):
            return 5
        has_idle = type(self.stage).idle not in (Stage.idle, BatchStage.idle)
        return _CALL_IDLE_MS if has_idle else IDLE_MS

    def _is_finished(self) -> bool:
        if self.join is None:
            waits = bool(self.reader.waiting)
        else:  # of frames that a dead camera had sent; when the run ends, their results may never come
            waits = not self.run_ends and any(map(self.reader.queued, self.spec.cameras))
        if waits:
            return False
        return self.writer.idle and not any(self._kept.values())

    def _work(self) -> bool:
        """One item or batch. False: there was nothing that could be done now."""
        if self.spec.role == "batch":
            return self._work_batch()
        if self.join is not None:
            for result in self.join.take_results(self.reader.results):
                self.reader.done(result)
        delivery = self.reader.next(self._may_take)
        if delivery is None:
            return False
        self._process([delivery])
        return True

    def _work_batch(self) -> bool:
        if not self.reader.batches:
            return False
        batch = self.reader.batches[0]
        if self.storage.free_slots < len(batch) or not self._has_room(batch):
            return False
        self._process(self.reader.batches.popleft())
        return True

    def _has_room(self, batch: Sequence[Delivery]) -> bool:
        per_camera: dict[str, int] = {}
        for delivery in batch:
            per_camera[delivery.camera] = per_camera.get(delivery.camera, 0) + 1
        return all(map(self.writer.has_room, per_camera, per_camera.values()))

    def _may_take(self, delivery: Delivery) -> bool:
        if self.storage.free_slots < 1 or not self.writer.has_room(delivery.camera):
            return False
        if self._behind and not self._is_turn_of(delivery):
            return False
        if self.join is None:
            return True
        return self.join.is_complete(delivery, self.reader.queued(delivery.camera))

    def _is_turn_of(self, delivery: Delivery) -> bool:
        """Whether results of all earlier frames are where they were to go, from whoever had these."""
        camera, frame_id = delivery.camera, delivery.frame_id
        if camera in self._behind and frame_id != NO_FRAME:
            row = self.ledger.camera_index[camera]
            is_late = time.monotonic() > self._behind[camera]
            if not is_late and not self.ledger.is_through(row, frame_id):
                return False
            del self._behind[camera]
        return True

    # -- items -------------------------------------------------------------------------------------

    def _process(self, deliveries: Sequence[Delivery]) -> None:
        start = time.monotonic()
        opened = []
        remembers = self.spec.remembers and self.spec.outputs
        for delivery in deliveries:
            if remembers and self.memory.has_seen(delivery.camera, delivery.frame_id):
                self._answer_again(delivery)
            elif self._owed and delivery.frame_id in self._owed[delivery.camera]:
                continue  # sent twice, since its producer died
            elif (item := self._open(delivery)) is not None:
                opened.append((delivery, item))
        results: Sequence[Any] = ()
        if opened:
            try:
                results = self._call([item for _, item in opened])
            except FrameError as error:
                log.warning("%s", self._described(error, opened))
                for delivery, _ in opened:
                    self._drop(delivery, "error")
                opened = []
        for (delivery, _), result in zip(opened, results, strict=True):
            self._finish(delivery, result)
        self.storage.cancel()
        self._worked.append((deliveries, start, time.monotonic()))

    def _account(self) -> None:
        """What nobody waits for: DONEs, and how long everything took."""
        for deliveries, start, end in self._worked:
            for delivery in deliveries:
                if self._keeps:
                    self._kept[delivery.camera].append(delivery)
                else:
                    self.reader.done(delivery)
                self.ledger.observe("wait_seconds", self.index, delivery.wait_s(start))
            self.ledger.observe("stage_seconds", self.index, end - start)
            if self.spec.role == "batch":
                self.ledger.add("batch_size", (self.index, min(len(deliveries), MAX_BATCH)))
        self._worked.clear()
        for camera, kept in self._kept.items():
            while kept and self._has_left(camera, kept[0].frame_id):
                self.reader.done(kept.popleft())

    def _has_left(self, camera: str, frame_id: int) -> bool:
        """Whether all that came of a frame is DONE, or was dropped."""
        oldest = self.writer.oldest(camera)
        return oldest is None or frame_id < oldest

    def _has_arrived(self, camera: str, frame_id: int) -> bool:
        """Whether it is where it was to go, too."""
        row = self.ledger.camera_index[camera]
        return self._has_left(camera, frame_id) and all(
            self.ledger.settled(row, path, frame_id) or not self.ledger.is_on(row, path, frame_id)
            for path in self.spec.paths
        )

    def _open(self, delivery: Delivery) -> Message | None:
        try:
            return self.reader.open(delivery)
        except TornFrame:
            self.ledger.add("torn", self.index)
            self._drop(delivery, "torn")
        except PoolGone:
            self._drop(delivery, "stage_died")
        except FrameError as error:
            log.warning("%s: %s", self.spec.name, error)
            self._drop(delivery, "error")
        return None

    def _call(self, items: list[Message]) -> Sequence[Any]:
        if self.spec.role == "batch":
            results: Sequence[Any] = self.stage.process_batch(items)
            if len(results) != len(items):
                cameras = ", ".join(repr(item.info.camera) for item in items)
                raise ConfigError(
                    f"stage {self.spec.name!r}, cameras {cameras}: process_batch must return one result "
                    f"per item, wanted {len(items)}, got {len(results)}; keep length and order"
                )
            return results
        if self.join is not None:
            detections, used = self.join.match(items[0])
            for result in used:
                self.reader.done(result)
            return [self.stage.process(items[0], detections)]
        return [self.stage.process(items[0])]

    def _finish(self, delivery: Delivery, result: Message | None) -> None:
        camera = self.ledger.camera_index[delivery.camera]
        try:
            self.reader.verify(delivery)
        except FrameError:
            self.ledger.add("torn", self.index)
            return self._drop(delivery, "torn")
        paths = self.reader.paths(delivery.frame_id)
        if result is None and self.spec.role != "sink" and paths:
            return self._drop(delivery, "filtered")
        self.ledger.add("processed", (self.index, camera))
        front = None
        if self.spec.remembers:
            front = message_front(result) if isinstance(result, Result) else None
            arrived = partial(self._has_arrived, delivery.camera)
            self.memory.save(delivery.camera, delivery.frame_id, front, arrived)
        if result is not None and self.spec.outputs and not self._publish(delivery, result, front):
            return None
        if self.spec.role == "sink" and self.stage.settles:
            self._owed[delivery.camera].append(delivery.frame_id)
        elif self.spec.delivers:  # only now: what is between two processes is nobody's to forget
            for path in paths:
                self.ledger.deliver(camera, path, delivery.frame_id)
            if DETECT in paths:
                age_ns = time.monotonic_ns() - delivery.envelope.info.t_capture_ns
                self.ledger.observe("latency_seconds", camera, age_ns / 1e9)
        return None

    def _publish_all(self, results: Sequence[Message]) -> None:
        """What a stage says between two items."""
        for result in results:
            self.writer.publish(result)
        if results:
            self.writer.exchange()

    def _answer_again(self, delivery: Delivery) -> None:
        """A frame that the stage is past: it came again, since we or its producer died, or too late."""
        camera, frame_id = delivery.camera, delivery.frame_id
        front = self.memory.answer(camera, frame_id)
        if front is not None:
            self.writer.offer(delivery.envelope.info, None, front)
        elif self.memory.is_lost(camera, frame_id):
            self._drop(delivery, "stage_died")  # says nothing new where the answer has arrived
        elif not self.reader.is_settled(delivery):
            self._drop(delivery, "superseded")  # a newer one overtook it, from another process

    def _publish(self, delivery: Delivery, result: Message, front: bytes | None) -> bool:
        """False: it can't be sent, and that is the end of this frame alone. front: it, if it is encoded."""
        try:
            if front is None:
                self.writer.publish(result)
            else:
                self.writer.offer(result.info, None, front)
        except (FrameError, MessageError) as error:
            log.warning("%s", self._described(error, [(delivery, result)]))
            self._drop(delivery, "error")
            return False
        return True

    def _drop(self, delivery: Delivery, reason: str) -> None:
        camera = self.ledger.camera_index[delivery.camera]
        for path in self.reader.paths(delivery.frame_id):
            self.ledger.drop(camera, path, delivery.frame_id, reason)

    def _described(self, error: ManyeyesError, opened: Sequence[tuple[Delivery, Any]]) -> str:
        frames = ", ".join(f"{d.camera!r} frame {d.frame_id}" for d, _ in opened)
        return f"stage {self.spec.name!r}, camera {frames}: {error}"
