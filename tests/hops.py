"""Both ends of one hop in this process: a Writer, a Reader, real sockets and real memory between them."""

from __future__ import annotations

import os
import select

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
        self, folder, *, slots=4, credits=2, depth=1, cameras=("gate",), takes=None, resend=False
    ):
        """takes: the cameras that the taker knows; None: all."""
        folder.mkdir()
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
            overflow="drop",
        )
        common = {"config": {}, "paths": (DETECT,)}
        self.giver = ProcessSpec(
            name="giver", role="stage", run="parts:Shrink", outputs=(edge,), slots=slots,
            slot_bytes=SLOT_BYTES, cameras=cameras, **common,
        )  # fmt: skip
        self.taker = ProcessSpec(
            name="taker",
            role="sink",
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
        )
        memory.seal(fd)
        self.reader = Reader(
            self.taker,
            self.ledger,
            self.context,
            endpoint=self.endpoint,
            code=self.code,
            to_bgr=None,
        )
        self.reader.attach(POOL, fd, slots, SLOT_BYTES)
        self.reader.accept("giver")
        os.close(fd)
        self.writer.connect("taker", self.endpoint, self.code)
        self.strangers = []

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
            self.reader.receive(lambda: None)
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

    def stranger(self, name):
        """Another channel to the taker's inbox."""
        self.strangers.append(Outbox(self.context, self.endpoint, name))
        return self.strangers[-1]

    def close(self):
        self.writer.consumer_died("taker")
        self.reader._inbox.close()
        for outbox in self.strangers:
            outbox.close()
        self.context.term()
