"""Both ends of one hop in this process: a Writer, a Reader, real sockets and real memory between them."""

from __future__ import annotations

import os
import select
import time

import numpy as np

from pipeline.accounts.layout import DETECT, Layout
from pipeline.accounts.ledger import Ledger, holder_code
from pipeline.hop import transport
from pipeline.hop.pool import PoolWriter, pool_bytes
from pipeline.hop.reader import Reader
from pipeline.hop.storage import Storage
from pipeline.hop.transport import Outbox
from pipeline.hop.writer import Writer
from pipeline.host import memory
from pipeline.messages import Frame, FrameInfo
from pipeline.plan.graph import EdgeSpec, ProcessSpec

SIDE = 8
SLOT_BYTES = SIDE * SIDE * 3
POOL = 1  # its epoch


class Hop:
    """Process `giver` feeds process `taker` with frames of the cameras. Close it."""

    def __init__(
        self,
        folder,
        *,
        slots=4,
        credits=2,
        depth=1,
        cameras=("gate",),
        takes=None,
        overflow="drop",
        resend=False,
        role="sink",
        max_hz=None,
        clock=time.monotonic_ns,
    ):
        """takes: the cameras that the taker knows; None: all. role: of the taker."""
        folder.mkdir()
        self.folder, self.slots = folder, slots
        self.cameras = cameras
        self.code = holder_code(1, 0)  # of the taker
        self.context = transport.context()
        self.endpoint = f"ipc://{folder}/taker"
        edge = EdgeSpec(
            consumer="taker",
            cameras=cameras,
            paths=(DETECT,),
            credits=credits,
            depth=depth,
            overflow=overflow,
            max_hz=max_hz,
        )
        common = {"config": {}, "paths": (DETECT,)}
        self.giver = ProcessSpec(
            name="giver", role="stage", run="parts:Shrink", outputs=(edge,), slots=slots,
            slot_bytes=SLOT_BYTES, cameras=cameras, **common,
        )  # fmt: skip
        self.taker = ProcessSpec(
            name="taker",
            role=role,
            run="parts:WriteFrames",
            reads=("giver",),
            cameras=takes or cameras,
            **common,
        )
        self.ledger = Ledger.local(Layout.of(cameras, ("giver", "taker")))
        fd = memory.create("giver", pool_bytes(slots, SLOT_BYTES))
        self.storage = Storage("giver")
        self.storage.add(POOL, PoolWriter(fd, slots, SLOT_BYTES))
        self.writer = Writer(
            self.giver,
            self.ledger,
            self.context,
            code=holder_code(0, 0),
            identity=b"giver",
            storage=self.storage,
            resend=resend,
            clock=clock,
        )
        memory.seal(fd)
        self.pool = fd
        self.reader = self.new_reader()
        self.writer.connect("taker", self.endpoint, self.code)
        self.strangers = []

    def new_reader(self):
        """The taker's side, as the supervisor would have it begin."""
        reader = Reader(
            self.taker,
            self.ledger,
            self.context,
            endpoint=self.endpoint,
            code=self.code,
            to_bgr=None,
        )
        reader.attach(POOL, self.pool, self.slots, SLOT_BYTES)
        reader.accept("giver")
        return reader

    def kill_taker(self):
        """It is dead, and the giver was told."""
        self.reader._inbox.close()
        self.writer.consumer_died("taker")

    def restart_taker(self):
        """Another one comes in its place."""
        self.endpoint += "+"
        self.code += 1  # the next incarnation
        self.reader = self.new_reader()
        self.writer.connect("taker", self.endpoint, self.code)
        self.writer.flush()

    def frame(self, value=0, camera=None, **facts):
        """Captured, written into a slot, and not published yet."""
        camera = camera or self.cameras[0]
        frame_id = self.ledger.capture(self.ledger.camera_index[camera], self.writer.code)
        info = FrameInfo(camera, frame_id, 1, 2, SIDE, SIDE, **facts)
        pixels = self.storage.empty((SIDE, SIDE, 3), np.uint8)
        pixels[:] = value
        return Frame(info=info, format="bgr24", pixels=pixels)

    def send(self, value=0, camera=None):
        frame = self.frame(value, camera)
        self.writer.publish(frame)
        self.writer.flush()
        return frame.info.frame_id

    def take(self, n=1):
        """The next n deliveries; waits for them."""
        taken = []
        while len(taken) < n:
            self.wait(self.reader)
            taken += self.come()
        return taken

    def come(self):
        """The deliveries that are here."""
        self.reader.receive(lambda: None)
        taken = [delivery for batch in self.reader.batches for delivery in batch]
        self.reader.batches.clear()
        while (delivery := self.reader.next(lambda _: True)) is not None:
            taken.append(delivery)
        return taken

    def give_back(self, *deliveries):
        """DONE, and taken in by the writer."""
        for delivery in deliveries:
            self.reader.done(delivery)
        self.reader.flush()
        self.hear()

    def hear(self):
        """Waits for an answer to the writer and takes it in."""
        self.wait(self.writer)
        self.writer.receive()

    def garbage(self):
        """Messages that the taker could make nothing of."""
        return int(self.ledger["garbage"][1])

    def wait(self, end):
        fds = end.descriptors() if isinstance(end, Writer) else [end.descriptor]
        while not end.readable:
            assert select.select(fds, [], [], 10)[0], "nothing came within 10 s"

    def readable(self, timeout_s):
        """Whether something comes to the taker within this time."""
        select.select([self.reader.descriptor], [], [], timeout_s)
        return self.reader.readable

    def stranger(self, name):
        """Another channel to the taker's inbox."""
        self.strangers.append(Outbox(self.context, self.endpoint, name))
        return self.strangers[-1]

    def close(self):
        self.writer.consumer_died("taker")
        self.reader._inbox.close()
        os.close(self.pool)
        for outbox in self.strangers:
            outbox.close()
        self.context.term()
