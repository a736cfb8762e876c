"""Which detections go with a frame of the view path."""

import time
from collections import deque

import numpy as np
import pytest

from pipeline.codec import decode, message_front, pack_numbers
from pipeline.detections import Detections
from pipeline.join import Join
from pipeline.ledger import DETECT, Layout, Ledger
from pipeline.messages import Frame, FrameInfo, Result
from pipeline.reader import Delivery
from pipeline.testing import frame

MS = 1_000_000


def found(n):
    return Detections(
        np.array([[0, 0, n, n]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32)
    )


def wire(message) -> bytes:
    """A message without arrays, offered now."""
    return message_front(message) + pack_numbers(message.info, None, time.monotonic_ns())


def result(frame_id, t_ms=0):
    info = FrameInfo(
        camera="gate",
        frame_id=frame_id,
        t_capture_ns=t_ms * MS,
        t_wall_ns=0,
        width=640,
        height=360,
    )
    ((envelope, _),) = decode(wire(Result(info=info, detections=found(frame_id))))
    return Delivery(b"postprocess", envelope)


def picture(frame_id, t_ms=0) -> Frame:
    image = np.zeros((4, 4, 3), np.uint8)
    return frame(image, camera="gate", frame_id=frame_id, t_capture_ns=t_ms * MS)


def waiting(frame_id):
    """A frame that has only just been offered."""
    message = Result(info=picture(frame_id).info, detections=found(0))
    return Delivery(b"capture", decode(wire(message))[0][0])


@pytest.fixture
def ledger():
    return Ledger.local(Layout.of(("gate",), ("render",)))


def side(detections):
    return None if detections is None else detections.xyxy[0, 2]


def test_newest_draws_the_last_result_until_it_is_too_old(ledger):
    join = Join("newest", 500, ledger)
    assert side(join.match(picture(0))[0]) is None
    done = join.take_results(deque([result(1, t_ms=100), result(2, t_ms=200)]))
    assert [d.frame_id for d in done] == [1, 2]
    assert side(join.match(picture(9, t_ms=650))[0]) == 2
    assert side(join.match(picture(9, t_ms=750))[0]) is None


def test_every_waits_for_the_result_of_this_very_frame(ledger):
    join = Join("every", 500, ledger)
    ledger.capture(0, holder=1)
    first = waiting(0)
    assert not join.is_complete(first)
    assert join.take_results(deque([result(0), result(1)])) == []
    assert join.is_complete(first)
    detections, done = join.match(picture(0))
    assert side(detections) == 0
    assert [d.frame_id for d in done] == [0]
    detections, done = join.match(picture(1))
    assert side(detections) == 1


def test_every_does_not_wait_for_a_frame_that_was_dropped(ledger):
    join = Join("every", 500, ledger)
    ledger.capture(0, holder=1)
    frame_0 = waiting(0)
    assert not join.is_complete(frame_0)
    ledger.drop(0, DETECT, 0, "error")
    assert join.is_complete(frame_0)
    assert join.match(picture(0)) == (None, [])


def test_results_of_frames_that_never_came_are_done_with_the_next_one(ledger):
    join = Join("every", 500, ledger)
    join.take_results(deque([result(0), result(1), result(2)]))
    detections, done = join.match(picture(2))
    assert side(detections) == 2
    assert [d.frame_id for d in done] == [0, 1, 2]
