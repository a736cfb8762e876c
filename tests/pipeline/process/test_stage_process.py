"""What the process of a stage does with what comes to it, run in this one; the stage is the test's."""

import select
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import pytest
from hops import POOL, SLOT_BYTES, Hop

from pipeline.accounts.layout import DETECT, Layout
from pipeline.accounts.ledger import REASONS
from pipeline.errors import FrameError
from pipeline.hop.control import Control
from pipeline.host import memory
from pipeline.messages import Frame
from pipeline.process.stage import StageProcess
from pipeline.stage import Sink, Stage


@dataclass(frozen=True, kw_only=True)
class NoConfig:
    pass


class Choosy(Stage):
    """Passes 0 on, leaves 1 out, can't use 2, and dies of 3."""

    Config = NoConfig
    said: ClassVar[list[object]] = []

    def setup(self):
        self.said.append("setup")

    def add(self, camera):
        self.said.append(f"add {camera}")

    def process(self, frame: Frame) -> Frame | None:
        value = int(frame.image[0, 0, 0])
        self.said.append(value)
        if value == 2:
            raise FrameError("this one is of no use")
        if value == 3:
            raise ZeroDivisionError
        return frame if value == 0 else None

    def close(self):
        self.said.append("close")


class Taker(Choosy, Sink):
    """A sink has nobody to pass it on to."""

    def process(self, frame: Frame) -> None:
        super().process(frame)


@pytest.fixture
def taken(tmp_path_factory):
    """Runs a process that frames of these values are sent to; returns it, the hop, what the stage heard."""
    made = []

    def run(role, *values):
        Choosy.said.clear()
        folder = tmp_path_factory.mktemp("s")
        hop = Hop(folder / "hop", slots=4, credits=4, depth=4)
        stage = "Taker" if role == "sink" else "Choosy"
        spec = replace(hop.taker, role=role, run=f"{__name__}:{stage}", delivers=role == "sink")
        layout = Layout.of(hop.cameras, ("giver", "taker"))
        start = {
            "spec": asdict(spec), "policy": "newest", "layout": asdict(layout), "incarnation": 1,
            "identity": "taker", "to_bgr": None, "endpoint": f"ipc://{folder}/taker",
        }  # fmt: skip
        ours, theirs = Control.pair()
        fd = memory.create("ledger", layout.nbytes)
        process = StageProcess(Control(theirs), start, [fd])
        made.append((process, hop, ours))
        process.on_accept("giver")
        process.on_pools(hop.pool, pools=[[POOL, hop.slots, SLOT_BYTES]])
        hop.writer.connect("taker", start["endpoint"], process.code)
        for value in values:
            hop.writer.publish(hop.frame(value))
            process.ledger.capture(0, hop.writer.code)  # which is another one than that of the hop
        hop.writer.flush()
        while not process.reader.readable:
            assert select.select([process.reader.descriptor], [], [], 10)[0]
        ours.send("drain")
        return process, hop

    yield run
    for process, hop, ours in made:
        process.reader._inbox.close()
        process.context.term()
        process.control.close()
        ours.close()
        hop.close()


def fates(process, count):
    ledger = process.ledger
    return [
        "delivered"
        if ledger["delivered"][0, DETECT, i]
        else REASONS[ledger["dropped"][0, DETECT, i]]
        for i in range(count)
    ]


def give_back(hop):
    """All DONEs come to the writer."""
    while not hop.writer.idle:
        hop.hear()
    assert hop.storage.free_slots == hop.slots


def test_each_frame_meets_its_own_fate_and_all_slots_come_back(taken):
    process, hop = taken("stage", 1, 2, 1)
    process.run()
    assert Choosy.said == ["setup", "add gate", 1, 2, 1, "close"]
    assert fates(process, 3) == ["filtered", "error", "filtered"]
    give_back(hop)


def test_a_sink_has_taken_what_it_did_not_refuse(taken):
    process, hop = taken("sink", 0, 2, 1)
    process.run()
    assert fates(process, 3) == ["delivered", "error", "delivered"]
    give_back(hop)


def test_any_other_error_ends_the_process_and_the_stage_is_closed(taken):
    process, hop = taken("sink", 0, 3, 1)
    with pytest.raises(ZeroDivisionError):
        process.run()
    assert Choosy.said == ["setup", "add gate", 0, 3, "close"]
    assert fates(process, 3)[1:] == ["none", "none"]  # lost with it, as the supervisor will say
    assert hop.storage.free_slots == 1
