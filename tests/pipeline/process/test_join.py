"""Which detections go with a frame of the view path."""

import time
from collections import deque

import numpy as np
import pytest

from pipeline.accounts.layout import DETECT, VIEW, Layout
from pipeline.accounts.ledger import Ledger
from pipeline.detections import Detections
from pipeline.hop.codec import decode, message_front, pack_numbers
from pipeline.hop.reader import Delivery
from pipeline.messages import Frame, FrameInfo, Result
from pipeline.process.join import Join
from pipeline.testing import frame

MS = 1_000_000


def found(x):
    """One box, 40 px wide, its left side at x."""
    return Detections(
        np.array([[x, 0, x + 40, 40]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32)
    )


def wire(message) -> bytes:
    """A message without arrays, offered now."""
    return message_front(message) + pack_numbers(message.info, None, time.monotonic_ns())


def result(frame_id, t_ms=0, x=None, **facts):
    info = FrameInfo(
        camera="gate",
        frame_id=frame_id,
        t_capture_ns=t_ms * MS,
        t_wall_ns=0,
        width=640,
        height=360,
        **facts,
    )
    box = found(frame_id if x is None else x)
    ((envelope, _),) = decode(wire(Result(info=info, detections=box)))
    return Delivery(b"postprocess", envelope)


def picture(frame_id, t_ms=0) -> Frame:
    image = np.zeros((4, 4, 3), np.uint8)
    return frame(image, camera="gate", frame_id=frame_id, t_capture_ns=t_ms * MS)


def waiting(frame_id, t_ms=0):
    """A frame that is here and not drawn."""
    message = Result(info=picture(frame_id, t_ms).info, detections=found(0))
    return Delivery(b"capture", decode(wire(message))[0][0])


@pytest.fixture
def ledger():
    ledger = Ledger.local(Layout.of(("gate",), ("render",)))
    for _ in range(20):
        ledger.capture(0, holder=1)
    return ledger


@pytest.fixture
def now():
    """The time, in ms: to be set."""
    return {"ms": 0.0}


@pytest.fixture
def newest(ledger, now):
    return Join("newest", 500, 3, ledger, lambda: now["ms"] / 1e3)


@pytest.fixture
def every(ledger, now):
    return Join("every", 500, 24, ledger, lambda: now["ms"] / 1e3)


def left(detections):
    return None if detections is None else detections.xyxy[:, 0].tolist()


def take(join, *results):
    return [result.frame_id for result in join.take_results(deque(results))]


def test_a_frame_waits_for_its_own_result(newest, now):
    now["ms"] = 50
    assert take(newest, result(0, t_ms=0)) == [0]
    assert not newest.is_complete(waiting(1, t_ms=50), 1)
    take(newest, result(1, t_ms=50, x=7))
    assert newest.is_complete(waiting(1, t_ms=50), 1)
    assert left(newest.match(picture(1, t_ms=50))[0]) == [7]


def test_a_frame_that_was_dropped_is_drawn_at_once(newest, ledger):
    assert not newest.is_complete(waiting(1), 1)
    ledger.drop(0, DETECT, 1, "superseded")
    assert newest.is_complete(waiting(1), 1)
    assert newest.match(picture(1)) == (None, [])


def test_a_frame_waits_no_longer_than_results_took_of_late(newest, now):
    now["ms"] = 80
    take(newest, result(0, t_ms=0))
    now["ms"] = 179
    assert not newest.is_complete(waiting(1, t_ms=100), 1)
    now["ms"] = 181
    assert newest.is_complete(waiting(1, t_ms=100), 1)


def test_no_picture_is_lost_for_a_box(newest):
    assert not newest.is_complete(waiting(1), 2)
    assert newest.is_complete(waiting(1), 3)


def test_a_result_that_was_overtaken_is_waited_for_no_longer(newest, every):
    for join in (newest, every):
        assert not join.is_complete(waiting(1), 1)
        take(join, result(2))
        assert join.is_complete(waiting(1), 1)


def test_newest_never_draws_boxes_where_they_were(newest):
    take(newest, result(1, t_ms=100, x=10))
    assert newest.match(picture(2, t_ms=200)) == (None, [])  # nobody knows where it went
    take(newest, result(3, t_ms=300, x=30))
    assert left(newest.match(picture(2, t_ms=200))[0]) == [20]  # between the two
    assert left(newest.match(picture(3, t_ms=300))[0]) == [30]
    assert left(newest.match(picture(5, t_ms=500))[0]) == [50]  # ahead
    assert left(newest.match(picture(9, t_ms=799))[0]) is not None
    assert left(newest.match(picture(9, t_ms=801))[0]) is None  # older than max_age_ms
    assert newest.match(picture(0)) == (None, [])


def test_boxes_of_another_stream_are_not_moved_on(newest):
    take(newest, result(1, t_ms=100), result(2, t_ms=200, stream_epoch=1))
    assert newest.match(picture(3, t_ms=300)) == (None, [])


def test_every_waits_for_the_result_of_this_very_frame(every):
    first = waiting(0)
    assert not every.is_complete(first, 24)
    assert take(every, result(0), result(1)) == []
    assert every.waiting
    assert every.is_complete(first, 1)
    detections, done = every.match(picture(0))
    assert left(detections) == [0]
    assert [d.frame_id for d in done] == [0]
    detections, done = every.match(picture(1))
    assert left(detections) == [1]
    assert not every.waiting


def test_every_keeps_its_boxes_however_late_they_are(every, now):
    now["ms"] = 60_000
    assert not every.is_complete(waiting(0), 1)
    take(every, result(0))
    assert every.is_complete(waiting(0), 1)
    assert left(every.match(picture(0))[0]) == [0]


def test_every_does_not_wait_for_a_frame_that_was_dropped(every, ledger):
    assert not every.is_complete(waiting(0), 1)
    ledger.drop(0, DETECT, 0, "error")
    assert every.is_complete(waiting(0), 1)
    assert every.match(picture(0)) == (None, [])


def test_the_last_result_of_a_stream_may_have_gone_with_its_process(every, ledger, now):
    for ms in (0, 60_000):
        now["ms"] = ms
        assert not every.is_complete(waiting(0), 1)
    ledger.deliver(0, DETECT, 0)
    assert not every.is_complete(waiting(0), 1)  # it may be on its way
    now["ms"] += 10_000
    assert every.is_complete(waiting(0), 1)


@pytest.mark.parametrize("reason", ["unwanted", "filtered", "stage_died"])
def test_results_of_frames_that_nobody_will_see_are_done(every, ledger, reason):
    assert take(every, result(0), result(1), result(2)) == []
    ledger.drop(0, VIEW, 0, reason)
    assert take(every) == [0]
    ledger.drop(0, VIEW, 1, reason)
    assert take(every, result(3)) == [1]
    assert left(every.match(picture(2))[0]) == [2]


def test_results_of_frames_that_never_came_are_done_with_the_next_one(every):
    take(every, result(0), result(1), result(2))
    detections, done = every.match(picture(2))
    assert left(detections) == [2]
    assert [d.frame_id for d in done] == [0, 1, 2]
