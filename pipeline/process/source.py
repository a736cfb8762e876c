"""A source in a process of its own: one thread reads the camera, the main loop feeds the consumers.

Two threads, because a frame that waits must leave the moment a consumer is free, and not when the
camera delivers the next one. The reading thread publishes by itself: at a camera's rate the wake-up of
another thread costs more than the sending. The main loop sends what had to wait. They share the
channels under a lock, and wait without it, at file descriptors alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from pipeline.accounts.layout import DETECT, VIEW
from pipeline.errors import (
    CAUSES,
    BrokenSource,
    ConfigError,
    EndOfStream,
    FrameError,
    ManyeyesError,
    MessageError,
    SourceError,
)
from pipeline.hop import transport
from pipeline.hop.codec import frame_front
from pipeline.hop.control import Control
from pipeline.hop.storage import Slot
from pipeline.host.memory import Bytes
from pipeline.messages import MAX_SIDE_PX, ArraySpec, FrameInfo
from pipeline.plan.loading import build
from pipeline.process.base import IDLE_MS, Process
from pipeline.process.stage_runtime import StageRuntime
from pipeline.stage import Picture, Source

log = logging.getLogger("manyeyes")

_PTS_JUMP_NS = 1_000_000_000
_ROOM_MS = 50  # until the reading thread shows again that it lives
_PLACE_S = 0.005  # between two looks at a full ring, which the supervisor empties
_PAUSED_S = 0.05  # between two looks whether a paused camera is to be read again
_SLOW_MS = 200  # how long an answer may lie unseen while the reading thread is busy


class CameraProcess(Process):
    """Reads one source for ever, or until it ends."""

    def __init__(
        self,
        control: Control,
        start: dict[str, Any],
        fds: list[int],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._channels = threading.Lock()  # whoever uses the writer
        self._watching = False  # the main loop knows that something waits
        super().__init__(control, start, fds, clock)
        (self._name,) = self.spec.cameras
        self._camera = self.ledger.camera_index[self._name]
        self._stop = threading.Event()
        self._paused = threading.Event()
        self._ended = False
        self._failure: ManyeyesError | None = None
        self._broken = ""  # why the source ended before its end
        self._began_at = int(self.ledger["began_at"][self._camera])
        self._epoch = int(self.ledger["stream_epoch"][self._camera])
        self._looks: tuple[Any, ...] = ()  # of this stream; (): it has not begun
        self._times_ns: tuple[int, int] | None = None  # of its last picture: by its clock, by ours
        self._front: bytes | None = None  # of the descriptors of this stream
        max_fps = self.spec.options.get("max_fps")
        self._period_ns = int(1e9 / max_fps) if max_fps else 0
        self._due_ns = 0

    def turn(self, timeout_ms: int) -> None:
        """See Process.turn; sends what waits as soon as it can."""
        ending = self.draining or self._ended or bool(self._turning or self._holding)
        with self._channels:
            self._watching = ending or self.writer.waiting
            poller = self._answers if self._watching else self._quiet
        if self._watching and self.policy == "every" and not ending:
            # the reading thread comes back for the answers by itself, unless its camera is slow
            poller, timeout_ms = self._quiet, _SLOW_MS
        events = poller.poll(timeout_ms)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        with self._channels:
            self._act_on(events)
            self.writer.exchange()
            self.writer.report()
            self.say_turned()
            self.tell_held()

    def on_pause(self) -> None:
        """The camera is not to be read until `resume`."""
        self._paused.set()

    def on_resume(self) -> None:
        """It is to be read again."""
        self._paused.clear()

    def _new_pollers(self) -> None:
        answers = self.writer.descriptors()
        self._quiet = transport.poller([self._control_fd, self._wake])
        self._answers = transport.poller([self._control_fd, self._wake, *answers])
        self._room = transport.poller(answers)  # of the reading thread

    def run(self) -> None:
        """Until the source ended or the run drains, and everything was delivered."""
        self.source: Source = build(self.spec.run, self.spec.config)
        self.source.runtime = StageRuntime(self)
        self.source.setup()
        self.ready(turn_s=1.0)
        reader = threading.Thread(target=self._read_guarded, daemon=True)
        started = False
        while True:
            self.turn(IDLE_MS)
            if not started or self._ended:
                self.beat(1)  # for the thread that reads: not yet, or no more
            if self.going and not started and not self.draining:
                started = True
                reader.start()
            if self._failure is not None:
                raise self._failure
            if self.draining:
                self._stop.set()
            over = self._ended or (self.draining and (not started or not reader.is_alive()))
            if over and self.writer.idle:
                break
        if self._broken:
            self.control.send("failed", text=self._broken, exit_code=ManyeyesError.exit_code)

    # -- the reading thread ------------------------------------------------------------------------

    def _read_guarded(self) -> None:
        try:
            self._read_for_ever()
        except ManyeyesError as error:
            self._failure = error
        except (
            Exception
        ) as error:  # any bug of a source ends this process alone, with its traceback
            log.exception("camera %r", self._name)
            self._failure = SourceError(f"camera {self._name!r}: {error!r}")
        finally:
            self._ended = True
            os.eventfd_write(self._wake, 1)

    def _read_for_ever(self) -> None:
        lost_at = time.monotonic()
        delay_s = 0.0
        opened_before = False
        while not self._stop.is_set():
            self.beat(1)
            if self._paused.is_set():
                self._went(CAUSES.index("paused"))
                self._stop.wait(_PAUSED_S)
                lost_at = time.monotonic()
                continue
            try:
                if (frames := int(self.ledger["captured"][self._camera]) - self._began_at) > 0:
                    self.source.resume(frames)
                self.source.open()
                self._epoch += 1
                self._looks, self._front = (), None
                opened_before = True
                while not (self._stop.is_set() or self._paused.is_set()):
                    self.beat(1)
                    if self._read_one():
                        delay_s = 0.0
                        lost_at = time.monotonic()
            except EndOfStream:
                return
            except SourceError as error:
                if self.spec.options.get("strict") and not opened_before:
                    raise ConfigError(f"camera {self._name!r}: {error}") from error
                self._went(CAUSES.index(error.cause))
                if self._is_final(error):
                    self._broken = f"camera {self._name!r}: {error}"
                    log.warning("%s; it is not tried again", self._broken)
                    return
                delay_s = _next_delay(delay_s, time.monotonic() - lost_at)
                log.warning("camera %r: %s; trying again in %.1f s", self._name, error, delay_s)
            finally:
                self.source.close()
            self._stop.wait(delay_s)

    def _went(self, cause: int) -> None:
        self.ledger.put("down_cause", self._camera, cause)
        self.ledger.put("camera_up", self._camera, 0)

    def _is_final(self, error: SourceError) -> bool:
        """A recording is no camera: under `every`, one that can't be read whole is over."""
        if isinstance(error, BrokenSource):
            return True
        return self.policy == "every" and not self.source.live

    def _read_one(self) -> bool:
        """True: a frame came."""
        if not self.ledger.has_place(self._camera):
            self._stop.wait(_PLACE_S)
            return False
        taken = self._slot()
        try:
            if taken is None:
                return self.policy == "newest" and self._skip()
            slot, buffer = taken
            picture = self.source.read(buffer)
            if picture is not None:
                self._pass_on(picture, slot)
            return picture is not None
        except FrameError as error:
            self._spoil(self._count(), error)
            return True
        finally:
            self.storage.cancel()  # what was not published

    def _pass_on(self, picture: Picture, slot: Slot) -> None:
        info = self._info(picture)
        with self._channels:
            try:
                self.writer.offer(info, slot, self._front_of(picture, info))
            except MessageError as error:  # a source may say what no message can
                return self._spoil(info.frame_id, error)
            self.writer.flush()
            waits = self.writer.waiting
            if waits:  # else the answers can wait, for each other
                self.writer.exchange()
                waits = self.writer.waiting
            self.ledger.add("processed", (self.index, self._camera))
            unseen = waits and not self._watching
        if unseen:
            os.eventfd_write(self._wake, 1)
        # only now: everything before the sending makes the frame later
        return self._came(info.t_capture_ns)

    def _slot(self) -> tuple[Slot, Bytes] | None:
        """A slot for the next frame; None if the next one is not to be read (newest) or not yet."""
        if self.policy == "every":
            return self.storage.take() if self._has_room() else None
        self._skip_reason = "unwanted"
        now_ns = self.clock()
        if now_ns < self._due_ns or not self.writer.wanted(self._name):
            return None
        taken = self.storage.take()
        if taken is None:
            self._skip_reason = "no_slot"
        return taken

    def _has_room(self) -> bool:
        """Whether one more frame can be kept; if not, waits a little for an answer first."""
        if self.writer.has_room(self._name) and self.storage.free_slots:
            return True
        with self._channels:
            self.writer.exchange()
            room = self._room
        if not (self.writer.has_room(self._name) and self.storage.free_slots):
            room.poll(_ROOM_MS)
            return False
        return True

    def _skip(self) -> bool:
        if not self.source.skip():
            return False
        self._drop(self._count(), self._skip_reason)
        return True

    def _count(self) -> int:
        self._came(self.clock())
        return self.ledger.capture(self._camera, self.code)

    def _came(self, now_ns: int) -> None:
        self.ledger.put("camera_up", self._camera, 1)
        self.ledger.put("last_frame_ns", self._camera, now_ns)
        self.ledger.put("stream_epoch", self._camera, self._epoch)

    def _spoil(self, frame_id: int, error: ManyeyesError) -> None:
        """This one frame is unusable."""
        log.warning("camera %r: frame %d: %s", self._name, frame_id, error)
        self._drop(frame_id, "error")

    def _drop(self, frame_id: int, reason: str) -> None:
        for path in (DETECT, VIEW):
            self.ledger.drop(self._camera, path, frame_id, reason)

    def _info(self, picture: Picture) -> FrameInfo:
        now_ns = self.clock()
        if self._period_ns:
            self._due_ns = max(self._due_ns + self._period_ns, now_ns - self._period_ns)
        if self._is_new_stream(picture, now_ns):
            self._epoch += 1
            self._front = None
        width, height = picture.source_size or (picture.width, picture.height)
        if max(width, height) > MAX_SIDE_PX:  # more than a message can say
            width, height = picture.width, picture.height
        return FrameInfo(
            self._name, self.ledger.capture(self._camera, self.code), now_ns, time.time_ns(),
            width, height, self._epoch, picture.pts_ns, picture.corrupt,
            picture.keyframe, picture.name, picture.truth, picture.recorded,
        )  # fmt: skip

    def _front_of(self, picture: Picture, info: FrameInfo) -> bytes:
        """Encoded once for a stream whose pictures have no name and no truth."""
        plain = picture.name is None and picture.truth is None
        front = self._front if plain else None
        if front is None:
            spec = ArraySpec("|u1", picture.shape, 0)
            front = frame_front(info, picture.format, picture.matrix, picture.full_range, spec)
            self._front = front if plain else None
        return front

    def _is_new_stream(self, picture: Picture, now_ns: int) -> bool:
        before, last = self._looks, self._times_ns
        self._looks = (
            picture.width, picture.height, picture.source_size, picture.format, picture.matrix,
            picture.full_range,
        )  # fmt: skip
        self._times_ns = None
        if picture.pts_ns is not None and not picture.recorded:
            self._times_ns = picture.pts_ns, now_ns
        if self._looks != before:
            return before != ()
        if last is None or self._times_ns is None:
            return False
        return jumps(last, self._times_ns, waits=self.policy == "every")


def jumps(last_ns: tuple[int, int], next_ns: tuple[int, int], *, waits: bool) -> bool:
    """Whether the clock of a camera jumped between two of its pictures; each (its clock, ours).

    Against the clock here: a camera that sends one picture in ten seconds jumps over nothing. waits:
    it is read when there is room, so a picture that comes late says nothing about its clock.
    """
    passed_ns, passed_here_ns = (
        after - before for before, after in zip(last_ns, next_ns, strict=True)
    )
    ahead_ns = passed_ns - passed_here_ns
    if waits and passed_ns >= 0:
        return ahead_ns > _PTS_JUMP_NS
    return abs(ahead_ns) > _PTS_JUMP_NS


def _next_delay(delay_s: float, lost_for_s: float) -> float:
    """0.25 → 2 s, doubling; 5 s once the camera has been away for ten minutes; ±25 % so that many
    cameras behind one switch do not come back in step."""
    base = 5.0 if lost_for_s > 600 else min(2.0, max(0.25, 2 * delay_s))
    return base * random.uniform(0.75, 1.25)
