"""What every child process of a run does, whatever it runs: obey the supervisor, beat, poll."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from pipeline.accounts.layout import Layout
from pipeline.accounts.ledger import Ledger, holder_code
from pipeline.errors import PeerGone
from pipeline.hop import transport
from pipeline.hop.control import Command, Control
from pipeline.hop.pool import PoolWriter
from pipeline.hop.reader import Reader
from pipeline.hop.storage import Storage
from pipeline.hop.writer import Writer
from pipeline.messages import Frame
from pipeline.plan.graph import Policy, ProcessSpec, takes
from pipeline.plan.loading import load

IDLE_MS = 250  # a process without work turns four times a second, to show that it lives
_TELL_S = 1.0  # between two looks at all that a process has


class Process:
    """The frame of a child process. Subclasses say what one turn does."""

    def __init__(
        self,
        control: Control,
        start: dict[str, Any],
        fds: list[int],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """start: the supervisor's first command; fds: of the ledger, of our own pool, if any, and of
        the copies of `spec.files`; clock: monotonic, in ns."""
        self.control, self.clock = control, clock
        self._control_fd = control.fileno()
        self.spec = ProcessSpec.from_json(start["spec"])
        self.policy: Policy = start["policy"]
        self.ledger = Ledger(fds[0], Layout.from_json(start["layout"]))
        self.index = self.ledger.process_index[self.spec.name]
        self.code = holder_code(self.index, start["incarnation"])
        self.identity = str(start["identity"]).encode()
        self.draining = False
        self.run_ends = False  # and nobody will have what we leave
        self.is_ready = False
        self.going = False  # everything that has to be ready at the start of the run is
        self.storage = Storage(self.spec.name)
        self._originals = dict(zip(self.spec.files, fds[1:], strict=True))
        os.close(fds[0])
        context = transport.context()
        self.writer = Writer(
            self.spec,
            self.ledger,
            context,
            code=self.code,
            identity=self.identity,
            storage=self.storage,
            resend=self.policy == "every",
            clock=clock,
        )
        # it loads OpenCV: a twentieth of a second and 20 MiB for who never sees a picture
        wants_bgr = start.get("to_bgr") and Frame in takes(self.spec)
        self.reader = Reader(
            self.spec,
            self.ledger,
            context,
            endpoint=start["endpoint"],
            code=self.code,
            to_bgr=load(start["to_bgr"]) if wants_bgr else None,
        )
        self.context = context
        # dead producers of which we hold something, and who
        self._settling: dict[str, list[Any]] = {}
        self._leaving: dict[str, None] = {}  # cameras, in order
        self._turning: dict[str, None] = {}  # cameras whose frames go to others than before
        self._holding: set[str] = set()  # consumers that may have something of ours
        self._tell_at = 0.0
        self._new_pollers()

    def original(self, path: str) -> str:
        """See runtime.Runtime.original."""
        return f"/proc/self/fd/{self._originals[path]}" if path in self._originals else path

    def named(self, text: str) -> str:
        """`text` with the names of files in place of where their originals are."""
        for path in self._originals:  # at its end, since 1 is the beginning of 12
            text = path.join(re.split(rf"{self.original(path)}\b", text))
        return text

    # -- the supervisor's commands -----------------------------------------------------------------

    def obey(self) -> None:
        """Do what the supervisor said since the last call. Raises PeerGone if it is dead."""
        self.obey_now(self.control.receive())

    def obey_now(self, commands: list[Command]) -> None:
        """Do what these commands say."""
        for command, fds in commands:
            getattr(self, f"on_{command.pop('command')}")(*fds, **command)
            for fd in fds:
                os.close(fd)

    def on_grow(self, fd: int, pool: list[int]) -> None:
        """Memory of our own: (epoch, slots, slot_bytes). The first comes with the start."""
        epoch, slots, slot_bytes = pool
        self.storage.add(epoch, PoolWriter(fd, slots, slot_bytes))
        self.control.send("grown", pool_epoch=epoch)

    def on_join(
        self,
        cameras: dict[str, int],
        spec: dict[str, Any],
        comes_over: bool = False,
        sinks: dict[str, list[int]] | None = None,
        counters: dict[str, int] | None = None,
    ) -> None:
        """Cameras join, with their rows in the ledger. Our producers hear of them after us.

        comes_over: others have had them until now, and may have earlier frames of them for a moment.
        sinks, counters: those that there are by now, as in the layout, and ours; None: as before.
        """
        self._know_sinks(sinks)
        if counters is not None:
            self.ledger.know(replace(self.ledger.layout, counters={self.spec.name: counters}))
        for camera, row in cameras.items():
            self.ledger.admit(camera, row)
        # of the others only ours: the supervisor may not have heard yet of one that left
        self._adopt(ProcessSpec.from_json(spec).of({*self.spec.cameras, *cameras}))
        for camera in cameras:
            self.joined(camera)
            if comes_over:
                self.came_over(camera)

    def on_leave(self, camera: str) -> None:
        """No producer has anything of this camera any more; we say `left` when we have nothing, either."""
        self._leaving[camera] = None

    def on_turn(
        self, camera: str, spec: dict[str, Any], sinks: dict[str, list[int]], waits: bool
    ) -> None:
        """Frames of this camera go where the spec says from now on. We say `turned` when all that was sent
        to others is DONE. waits: the next one goes when the earlier ones are where they were to go."""
        self._know_sinks(sinks)
        self._adopt(ProcessSpec.from_json(spec).of({*self.spec.cameras}))
        self._turning[camera] = None
        if waits:
            self.wait_for_earlier(camera)

    def on_offer(self, spec: dict[str, Any], sinks: dict[str, list[int]]) -> None:
        """Frames are for the sinks that the spec has on our edges, from the next one on."""
        self._know_sinks(sinks)
        self._adopt(ProcessSpec.from_json(spec).of({*self.spec.cameras}))
        self.control.send("offers")

    def _know_sinks(self, sinks: dict[str, list[int]] | None) -> None:
        if sinks is not None:
            places = {name: (way, path) for name, (way, path) in sinks.items()}
            self.ledger.know(replace(self.ledger.layout, sinks=places))

    def joined(self, camera: str) -> None:
        """A camera joined."""

    def came_over(self, camera: str) -> None:
        """It was at others until now, who may still have earlier frames of it."""

    def wait_for_earlier(self, camera: str) -> None:
        """Its frames go another way from the next one on, which must not overtake the earlier ones."""

    def left(self, camera: str) -> None:
        """A camera left."""

    def _adopt(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.reader.adopt(spec)
        self.writer.adopt(spec)
        self._new_pollers()

    def on_pools(self, *fds: int, pools: list[list[int]]) -> None:
        """Producers are ready to write; of each its memory, (epoch, slots, slot_bytes)."""
        for fd, (epoch, slots, slot_bytes) in zip(fds, pools, strict=True):
            self.reader.attach(epoch, fd, slots, slot_bytes)

    def on_forget(self, pool: list[Any]) -> None:
        """A producer (its name, the epoch of its pool) died; nothing new of it will come."""
        self.reader.forget(pool[1])

    def on_accept(self, sender: str) -> None:
        """A producer is ready to send, by this name."""
        self.reader.accept(sender)

    def on_connect(self, consumer: str, endpoint: str, code: int) -> None:
        """A consumer is ready to read."""
        self.writer.connect(consumer, endpoint, code)
        self._new_pollers()

    def on_gone(self, consumer: str, outlived: bool) -> None:
        """A consumer died; outlived: by others that read the slots which it passed on."""
        self.writer.consumer_died(consumer, outlived=outlived)
        self._new_pollers()

    def on_settle(self, dead: list[Any], sender: str) -> None:
        """A producer died that passed on the slots of others; see settling.py."""
        self.reader.refuse(sender)
        self._settling[sender] = dead

    def on_settled(self, code: int) -> None:
        """Nobody holds a slot any more that this dead consumer had passed on."""
        self.writer.settled(code)

    def on_abandon(self, consumer: str) -> None:
        """A consumer will not come back before the run ends."""
        self.writer.abandon(consumer)
        self._new_pollers()

    def on_hold(self, consumer: str) -> None:
        """A consumer is to be replaced: send it nothing; we say `held` when all is DONE that it got."""
        self.writer.hold(consumer)
        self._holding.add(consumer)

    def on_go(self) -> None:
        """The whole run is ready; a source may start to read."""
        self.going = True

    def on_drain(self, lets_go: bool = True) -> None:
        """All our producers have ended: finish what is here, then end. A source stops reading.

        lets_go: also to who is to be replaced, since nobody is any more; else its successor gets the rest.
        """
        self.draining, self.run_ends = True, lets_go
        if lets_go:
            self.writer.let_go()

    # -- a turn ------------------------------------------------------------------------------------

    def beat(self, thread: int = 0) -> None:
        """Tell the supervisor that this thread (0: main loop, 1: reader of a camera) lives."""
        self.ledger.put("beat_ns", (self.index, thread), time.monotonic_ns())

    def turn(self, timeout_ms: int) -> None:
        """Wait for anything to do, then take in messages and commands."""
        waits = not self._nothing_waits()
        if self.reader.readable or (waits and self._is_answered()):
            timeout_ms = 0
        if self._settling:
            self._say_settled()
        if self._leaving:
            self._say_left()
        if self._turning:
            self.say_turned()
        self._act_on((self._answers if waits else self._quiet).poll(timeout_ms))

    def _act_on(self, events: list[tuple[int, int]]) -> None:
        self.reader.receive(self.obey)  # first: all that comes before makes the frame later
        self.beat()
        for descriptor, _ in events:
            if descriptor == self._control_fd:
                self.obey()
        if self._holding:
            self._say_held()

    def _say_settled(self) -> None:
        for sender, dead in list(self._settling.items()):
            if not self.reader.holds(sender):
                del self._settling[sender]
                self.control.send("settled", dead=dead)

    def _say_held(self) -> None:
        for consumer in [*filter(self.writer.has_nothing, self._holding)]:
            self._holding.remove(consumer)
            self.control.send("held", consumer=consumer)

    def _say_left(self) -> None:
        for camera in [*self._leaving]:
            if self.reader.holds_frames_of(camera) or self.writer.oldest(camera) is not None:
                continue
            del self._leaving[camera]
            self.left(camera)
            self._adopt(self.spec.of({*self.spec.cameras} - {camera}))
            self.ledger.dismiss(camera, self.index)
            self.control.send("left", camera=camera)

    def say_turned(self) -> None:
        """See `on_turn`; to be called in every turn."""
        for camera in [*self._turning]:
            if not self.writer.lags(camera):
                del self._turning[camera]
                self.control.send("turned", camera=camera)

    def tell_held(self) -> None:
        """Tell the supervisor which frames are here for sure no more; to be called in every turn."""
        if (now := time.monotonic()) < self._tell_at:
            return
        self._tell_at = now + _TELL_S
        captured = self.ledger[
            "captured"
        ].tolist()  # first: what comes from now on is not known yet
        oldest = {}
        for camera in self.spec.cameras:
            row = self.ledger.camera_index[camera]
            oldest[row] = min([captured[row], *(i for i in self.held(camera) if i is not None)])
        self.ledger.tell_held(self.index, oldest)

    def held(self, camera: str) -> Iterable[int | None]:
        """Ids of frames of a camera, the oldest of all that this process has among them."""
        return self.reader.oldest(camera), self.writer.oldest(camera)

    def settle(self, camera: str, frames: int, *, taken: bool) -> None:
        """See runtime.Runtime.settle; for sinks alone."""
        raise NotImplementedError

    def run(self) -> None:
        """Until drained."""
        raise NotImplementedError

    def ready(self, turn_s: float, about: str = "") -> None:
        """Setup is over; turn_s: how long a turn may take before it counts as hung; about: of the stage."""
        self.is_ready = True
        self.beat()
        self.beat(1)
        self.control.send("ready", turn_s=turn_s, about=about)

    def quit_run(self) -> None:
        """Ask the supervisor for an orderly end."""
        with contextlib.suppress(PeerGone):  # then it ends anyway
            self.control.send("quit")

    def answer_descriptors(self) -> list[int]:
        """What to poll for DONEs."""
        return self.writer.descriptors()

    def _is_answered(self) -> bool:
        return self.writer.readable

    def _nothing_waits(self) -> bool:
        # A wake-up costs more than all that is done in it. A DONE that nothing waits for, neither a
        # message for its credit nor an item for its slot, is taken in with the next turn.
        return not (
            self.draining
            or self._leaving
            or self._turning
            or self._holding
            or self.policy == "every"
            or self.writer.waiting
            or self.reader.waiting
        )

    def _new_pollers(self) -> None:
        asked = [self._control_fd, self.reader.descriptor]
        self._quiet = transport.poller(asked)
        self._answers = transport.poller([*asked, *self.answer_descriptors()])
