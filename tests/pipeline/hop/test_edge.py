import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.hop.codec import encode_batch
from pipeline.hop.edge import Edge, Parcel, fitting
from pipeline.messages import MAX_MESSAGE_BYTES, SlotRef


def parcel(n, camera="gate", slot=None):
    slot = n if slot is None else slot
    return Parcel(camera=camera, frame_id=n, data=b"", ref=SlotRef(1, slot, 0))


def ids(parcels):
    return [p.frame_id for p in parcels]


def test_the_newest_frame_takes_the_place_of_an_older_one_that_waits():
    edge = Edge(credits=1, depth=1, overflow="drop")
    assert edge.offer(parcel(0), 0) is None
    assert ids(edge.sendable()) == [0]
    assert edge.offer(parcel(1), 0) is None
    assert edge.offer(parcel(2), 0).frame_id == 1
    assert ids(edge.sendable()) == []  # no credit before the DONE
    assert edge.done("gate", SlotRef(1, 0, 0)).frame_id == 0
    assert ids(edge.sendable()) == [2]


def test_a_camera_does_not_use_the_credits_of_another():
    edge = Edge(credits=1, depth=1, overflow="drop")
    for camera in ("gate", "yard"):
        edge.offer(parcel(0, camera), 0)
    assert sorted(p.camera for p in edge.sendable()) == ["gate", "yard"]


def test_with_wait_nothing_is_ever_dropped():
    edge = Edge(credits=1, depth=2, overflow="wait")
    for n in range(2):
        assert edge.has_room("gate")
        assert edge.offer(parcel(n), 0) is None
    assert not edge.has_room("gate")
    assert edge.has_room("yard")
    assert ids(edge.sendable()) == [0]
    assert not edge.has_room("gate")


def test_a_queue_that_was_full_has_room_when_it_is_empty():
    edge = Edge(credits=1, depth=2, overflow="wait")
    assert edge.has_room("gate", 2)
    assert not edge.has_room("gate", 3)
    edge.offer(parcel(0), 0)
    assert edge.has_room("gate", 1)
    assert not edge.has_room("gate", 2)
    edge.offer(parcel(1), 0)
    for n in range(2):
        assert not edge.has_room("gate")
        assert ids(edge.sendable()) == [n]
        assert edge.done("gate", SlotRef(1, n, 0))
    assert edge.has_room("gate", 2)


def test_what_a_dead_consumer_had_comes_again_once_in_order():
    edge = Edge(credits=2, depth=2, overflow="wait")
    for n in range(4):
        edge.offer(parcel(n), 0)
        list(edge.sendable())
    lost, again = edge.consumer_died(resend=True)
    assert (ids(lost), ids(again)) == ([], [0, 1])
    assert ids(edge.sendable()) == [0, 1]
    lost, again = edge.consumer_died(resend=True)
    assert (ids(lost), ids(again)) == ([0, 1], [])
    assert ids(edge.sendable()) == [2, 3]


def test_without_resend_it_is_lost_and_all_credits_are_back():
    edge = Edge(credits=1, depth=1, overflow="drop")
    edge.offer(parcel(0), 0)
    list(edge.sendable())
    edge.offer(parcel(1), 0)
    assert ids(edge.consumer_died(resend=False)[0]) == [0]
    assert ids(edge.sendable()) == [1]


def test_a_done_of_something_else_changes_nothing():
    edge = Edge(credits=1, depth=1, overflow="drop")
    edge.offer(parcel(0), 0)
    list(edge.sendable())
    assert edge.done("gate", SlotRef(1, 5, 0)) is None
    assert edge.done("yard", SlotRef(1, 0, 0)) is None
    assert edge.done("gate", SlotRef(1, 0, 0)) is not None
    assert edge.done("gate", SlotRef(1, 0, 0)) is None
    assert edge.idle


@pytest.mark.parametrize(
    ("max_hz", "offered_hz", "passed"), [(10, 30, 10), (10, 10, 10), (7, 30, 7)]
)
def test_max_hz_passes_that_many_frames_a_second(max_hz, offered_hz, passed):
    edge = Edge(credits=99, depth=99, overflow="drop", max_hz=max_hz)
    count = 0
    for n in range(10 * offered_hz):
        now_ns = n * 1_000_000_000 // offered_hz
        if edge.wants("gate", now_ns):
            edge.offer(parcel(n), now_ns)
            count += 1
    assert passed * 10 - 1 <= count <= passed * 10 + 1


@given(st.lists(st.sampled_from(["offer", "send", "done", "die"])), st.booleans())
def test_every_parcel_ends_exactly_once(steps, resend):
    edge = Edge(credits=2, depth=2, overflow="drop")
    under_way, ended = [], []
    for n, step in enumerate(steps):
        if step == "offer":
            oldest = edge.offer(parcel(n), 0)
            ended += ids([oldest] if oldest else [])
        elif step == "send":
            under_way += list(edge.sendable())
        elif step == "done" and under_way:
            gone = under_way.pop(0)
            assert edge.done("gate", gone.ref) is not None
            ended.append(gone.frame_id)
        elif step == "die":
            lost, _ = edge.consumer_died(resend=resend)
            under_way.clear()
            ended += ids(lost)
    ended += ids(edge.consumer_died(resend=False)[0])
    while edge.waiting:
        for left in list(edge.sendable()):
            assert edge.done("gate", left.ref) is left
            ended.append(left.frame_id)
    assert edge.idle
    assert sorted(ended) == [n for n, step in enumerate(steps) if step == "offer"]


@given(st.lists(st.integers(0, MAX_MESSAGE_BYTES)))
def test_what_travels_together_fits_into_a_message(sizes):
    messages = list(map(bytes, sizes))
    while messages:
        first = messages[: fitting(messages)]
        assert first
        assert len(encode_batch(first)) <= MAX_MESSAGE_BYTES
        del messages[: len(first)]
