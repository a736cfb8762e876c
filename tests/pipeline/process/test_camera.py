"""What the process of a camera does with each frame; the camera and the clock are the test's."""

import os
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest

from pipeline.accounts.layout import DETECT, VIEW, Layout
from pipeline.accounts.ledger import REASONS, Ledger
from pipeline.errors import FrameError
from pipeline.hop.control import Control
from pipeline.hop.pool import pool_bytes
from pipeline.host import memory
from pipeline.plan.graph import EdgeSpec, ProcessSpec
from pipeline.process.source import CameraProcess, _next_delay
from pipeline.stage import Picture, Source

SLOT_BYTES = 8 * 8 * 3
LAYOUT = Layout.of(("gate",), ("capture.gate",))


class Film(Source):
    """Each frame is what `next` says; by and by it is read or skipped."""

    def __init__(self):
        super().__init__(None)
        self.calls, self.side, self.error = Counter(), 8, None

    def read(self, buffer):
        self.calls["read"] += 1
        if self.error is not None:
            raise self.error
        buffer[:] = self.calls["read"]
        return Picture(width=self.side, height=self.side, format="bgr24")

    def skip(self):
        self.calls["skip"] += 1
        return True


@pytest.fixture
def camera(tmp_path_factory):
    """Makes a process of this policy that nobody takes frames from."""
    made = []

    def make(policy="newest", slots=2, **options):
        edge = EdgeSpec(
            consumer="preprocess", cameras=("gate",), paths=(DETECT,), credits=1, depth=1,
            overflow="wait" if policy == "every" else "drop",
        )  # fmt: skip
        spec = ProcessSpec(
            name="capture.gate", role="source", run="", config={}, cameras=("gate",), slots=slots,
            paths=(DETECT, VIEW), outputs=(edge,), slot_bytes=SLOT_BYTES, options=options,
        )  # fmt: skip
        start = {
            "spec": asdict(spec), "policy": policy, "layout": asdict(LAYOUT), "incarnation": 0,
            "identity": "gate", "to_bgr": None,
            "endpoint": f"ipc://{tmp_path_factory.mktemp('c')}/gate",
        }  # fmt: skip
        ours, theirs = Control.pair()
        fd = memory.create("ledger", LAYOUT.nbytes)
        ledger = Ledger(fd, LAYOUT)
        process = CameraProcess(Control(theirs), start, [fd], lambda: process.now_ns)
        process.now_ns, process.seen = 10**9, ledger
        pool = memory.create("pool", pool_bytes(slots, SLOT_BYTES))
        process.on_grow(pool, [1, slots, SLOT_BYTES])
        os.close(pool)
        process.source = Film()
        made.append((process, ours))
        return process

    yield make
    for process, ours in made:
        process.reader._inbox.close()
        process.context.term()
        process.control.close()
        ours.close()
        os.close(process._wake)


def fates(process, path=DETECT):
    captured = int(process.seen["captured"][0])
    return [REASONS[process.seen["dropped"][0, path, i]] for i in range(captured)]


def test_above_max_fps_pictures_are_skipped_and_counted_as_unwanted(camera):
    process = camera(max_fps=10)
    for _ in range(400):  # of 40 a second
        assert process._read_one()
        process.now_ns += 25_000_000
    read, skipped = process.source.calls["read"], process.source.calls["skip"]
    assert 100 <= read <= 102  # two more at the start
    assert fates(process).count("unwanted") == fates(process, VIEW).count("unwanted") == skipped
    assert fates(process).count("superseded") == read - 1  # nobody takes them


def test_a_camera_that_was_away_catches_up_by_two_frames_and_not_by_all_that_it_missed(camera):
    process = camera(max_fps=10)
    process._read_one()
    process.now_ns += 10**9
    for _ in range(10):
        process._read_one()
    assert process.source.calls["read"] <= 1 + 1 + 2


def test_without_a_slot_newest_skips_and_counts_and_every_waits(camera):
    process = camera("newest", slots=1)
    assert process._read_one()
    assert process._read_one()
    assert fates(process) == ["none", "no_slot"]
    process = camera("every", slots=1)
    assert process._read_one()
    assert not process._read_one()
    assert fates(process) == ["none"]
    assert process.source.calls == {"read": 1}


def test_a_frame_that_is_unusable_is_an_error_and_its_slot_is_free(camera):
    process = camera()
    process.source.error = FrameError("half of it is missing")
    assert process._read_one()
    assert fates(process) == ["error"]
    assert process.storage.free_slots == 2


def test_another_size_is_another_stream(camera):
    process = camera()
    epochs = []
    for side in (8, 8, 4, 4, 8):
        process.source.side = side
        process._read_one()
        epochs.append(int(process.seen["stream_epoch"][0]))
    assert np.diff(epochs).tolist() == [0, 1, 0, 1]


def test_a_camera_that_is_away_is_tried_every_two_seconds_and_after_ten_minutes_every_five():
    delay_s, waits = 0.0, []
    for _ in range(6):
        delay_s = _next_delay(delay_s, 0.0)
        waits.append(delay_s)
    assert 0.18 < waits[0] < 0.32
    assert max(waits) <= 2.5
    assert 3.7 < _next_delay(delay_s, 601.0) < 6.3
