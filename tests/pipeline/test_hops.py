"""One hop over real sockets and real memory: no slot is written again while somebody may read it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hops import POOL, SIDE, Hop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.accounts.layout import DETECT, RING
from pipeline.accounts.ledger import REASONS
from pipeline.detections import Detections, Fit
from pipeline.errors import MessageError, TornFrame
from pipeline.happenings import NO_FRAME
from pipeline.messages import MAX_MESSAGE_BYTES, FrameInfo, Output, Result


@pytest.fixture
def make(tmp_path):
    hops = []

    def hop(**options):
        hops.append(Hop(tmp_path / str(len(hops)), **options))
        return hops[-1]

    yield hop
    for one in hops:
        one.close()


def pixels(hop, delivery):
    return int(hop.reader.open(delivery).pixels[0, 0, 0])


@pytest.mark.parametrize("resend", [False, True])
def test_slots_that_a_dead_consumer_passed_on_are_kept_until_all_is_settled(make, resend):
    hop = make(slots=2, credits=2, resend=resend)
    hop.send(7), hop.send(8)
    deliveries = hop.take(2)
    hop.writer.consumer_died("taker", outlived=True)
    assert hop.storage.take() is None
    assert [pixels(hop, delivery) for delivery in deliveries] == [7, 8]
    hop.writer.settled(hop.code)
    # what is to be sent again keeps its slot for the next consumer
    assert hop.storage.free_slots == (0 if resend else 2)


def test_the_slots_of_a_consumer_that_passed_nothing_on_are_free_at_once(make):
    hop = make(slots=1)
    hop.send(7)
    (delivery,) = hop.take()
    hop.writer.consumer_died("taker")
    assert hop.storage.take() is not None
    with pytest.raises(TornFrame):
        hop.reader.verify(delivery)


def test_what_is_settled_twice_or_of_another_consumer_frees_nothing(make):
    hop = make(slots=1)
    hop.send(7)
    hop.writer.consumer_died("taker", outlived=True)
    hop.writer.settled(hop.code + 1)
    assert hop.storage.free_slots == 0
    hop.writer.settled(hop.code)
    hop.writer.settled(hop.code)
    assert hop.storage.free_slots == 1


def fate(hop, frame_id):
    place = (0, DETECT, frame_id)
    delivered, dropped = hop.ledger["delivered"][place], hop.ledger["dropped"][place]
    return "delivered" if delivered else REASONS[dropped]


@pytest.mark.parametrize("arrives", ["before", "after", "never"])
def test_what_is_to_be_sent_again_and_finds_no_room_may_have_been_passed_on(make, arrives):
    hop = make(slots=4, credits=1, resend=True, overflow="drop")
    frame_id = hop.send(7)
    hop.take()
    hop.writer.consumer_died("taker", outlived=True)  # its result may be on the way
    if arrives == "before":
        hop.ledger.deliver(0, DETECT, frame_id)
    hop.send(8)  # takes its place in the mailbox
    if arrives == "after":
        hop.ledger.deliver(0, DETECT, frame_id)
    assert fate(hop, frame_id) == ("stage_died" if arrives == "never" else "delivered")
    assert hop.ledger["contradicted"].sum() == 0


def test_what_is_of_no_frame_ends_no_frame(make):
    hop = make(overflow="drop", credits=1)
    for _ in range(RING):  # the place of each number is taken
        hop.ledger.capture(0, hop.code)
    happening = Result(
        info=FrameInfo("gate", NO_FRAME, 1, 2, SIDE, SIDE), detections=Detections.empty()
    )
    for _ in range(3):
        hop.writer.publish(happening)
    hop.kill_taker()
    hop.writer.abandon("taker")
    assert not hop.ledger["dropped"].any()


@settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.lists(st.sampled_from(["good", "garbage", "no camera of ours"]), min_size=1, max_size=6))
def test_garbage_of_a_known_sender_is_done_and_counted_and_costs_nothing_else(make, kinds):
    hop = make(slots=6, credits=6, depth=6, cameras=("gate", "far"), takes=("gate",))
    frames = []
    for kind in kinds:
        frame = hop.frame(3, "far" if kind == "no camera of ours" else "gate")
        frames.append(frame.info)
        if kind == "garbage":
            (slot,) = hop.storage._open
            hop.writer.offer(frame.info, slot, b"\x9c\x01 no message")
        else:
            hop.writer.publish(frame)
    hop.writer.flush()
    good = hop.take(kinds.count("good"))
    while hop.garbage() < len(kinds) - len(good):
        hop.wait(hop.reader)
        hop.reader.receive(lambda: None)
    assert [pixels(hop, delivery) for delivery in good] == [3] * len(good)
    for delivery in good:
        hop.reader.done(delivery)
    hop.reader.flush()
    while not hop.writer.idle:
        hop.hear()
    assert hop.storage.free_slots == 6
    fates = [fate(hop, info.frame_id) if info.camera == "gate" else "" for info in frames]
    wanted = {"good": "none", "garbage": "error", "no camera of ours": ""}
    assert fates == [wanted[kind] for kind in kinds]


@pytest.mark.parametrize(
    "facts",
    [
        {"pts_ns": 1 << 64},
        {"name": "\udcff.jpg"},
        {"name": "x" * MAX_MESSAGE_BYTES},
        {"stream_epoch": 1.5j},
    ],
)
def test_what_can_not_be_sent_is_an_error_and_leaves_its_slot_free(make, facts):
    hop = make(slots=1)
    with pytest.raises(MessageError):
        hop.writer.publish(hop.frame(**facts))
    hop.storage.cancel()
    assert hop.storage.free_slots == 1
    assert hop.writer.idle
    hop.send(7)
    (delivery,) = hop.take()
    assert pixels(hop, delivery) == 7


def test_an_array_of_a_type_that_does_not_travel_is_an_error(make):
    hop = make(slots=1)
    frame = hop.frame()
    hop.storage.cancel()
    output = Output(
        info=frame.info,
        fit=Fit(scale_x=1.0, scale_y=1.0),
        model_id="",
        arrays=(np.zeros(3, np.complex64),),
    )
    with pytest.raises(MessageError, match="must have one of the types"):
        hop.writer.publish(output)
    hop.storage.cancel()
    assert hop.storage.free_slots == 1


def test_more_answers_than_one_message_holds_arrive_all(make):
    name = "ö" * 120
    hop = make(slots=400, credits=400, depth=400, cameras=(name,))
    for _ in range(400):
        hop.send()
    for delivery in hop.take(400):
        hop.reader.done(delivery)
    hop.reader.flush()
    while not hop.writer.idle:
        hop.hear()
    assert hop.storage.free_slots == 400


def test_what_a_dead_consumer_had_ended_is_not_sent_again(make):
    hop = make(slots=2, credits=2, resend=True)
    first, second = hop.send(7), hop.send(8)
    hop.take(2)
    hop.ledger.deliver(0, DETECT, first)  # and it is killed before it says DONE
    hop.writer.consumer_died("taker")
    assert hop.storage.free_slots == 1
    assert hop.writer.waiting
    assert hop.writer.oldest("gate") == second


def mapped_pools():
    return Path("/proc/self/maps").read_text().count("memfd:")


def test_the_pool_of_a_dead_producer_stays_until_the_last_frame_of_it_is_done(make):
    hop = make(slots=2, credits=2, depth=2)
    mapped = mapped_pools()
    hop.send(7), hop.send(8)
    first, second = hop.take(2)
    hop.reader.forget(POOL)
    assert [pixels(hop, delivery) for delivery in (first, second)] == [7, 8]
    hop.reader.verify(first)
    hop.reader.done(first)
    assert pixels(hop, second) == 8
    hop.reader.done(second)
    assert mapped_pools() == mapped - 1


def test_the_pool_of_a_dead_producer_of_which_nothing_is_here_goes_at_once(make):
    hop = make()
    mapped = mapped_pools()
    hop.send(7)
    hop.give_back(*hop.take())
    hop.reader.forget(POOL)
    assert mapped_pools() == mapped - 1


def test_a_camera_that_joins_is_looked_for_when_its_first_frame_is_faster_than_the_news(make):
    hop = make(cameras=("gate", "far"), takes=("gate",))
    both = replace(hop.taker, cameras=("gate", "far"))
    hop.send(5, "far")
    hop.wait(hop.reader)
    hop.reader.receive(lambda: hop.reader.adopt(both))
    assert hop.garbage() == 0
    assert hop.reader.holds_frames_of("far")
    delivery = hop.reader.next(lambda _: True)
    assert pixels(hop, delivery) == 5
    hop.give_back(delivery)
    assert not hop.reader.holds_frames_of("far")
    assert hop.writer.oldest("far") is None

    hop.reader.adopt(hop.taker)  # it left; what is sent of it all the same is refused
    hop.send(6, "far")
    hop.wait(hop.reader)
    hop.reader.receive(lambda: None)
    hop.reader.flush()
    assert hop.garbage() == 1
    hop.hear()
    assert hop.writer.idle


def test_a_writer_knows_its_cameras_as_they_come_and_go(make):
    hop = make(cameras=("gate", "far"))
    alone = hop.giver.of({"gate"})
    hop.writer.adopt(alone)
    hop.send(1, "gate")
    with pytest.raises(KeyError):
        hop.writer.has_room("far")
    hop.writer.adopt(hop.giver)
    hop.send(2, "far")
    assert [pixels(hop, delivery) for delivery in hop.take(2)] == [1, 2]


def test_who_asked_for_ten_a_second_gets_ten_and_the_others_are_counted_as_unwanted(make):
    now_ns = 0
    hop = make(slots=1, max_hz=10, clock=lambda: now_ns)
    for _ in range(40):
        wanted = hop.writer.wanted("gate")
        hop.send()
        assert hop.writer.idle is not wanted
        if wanted:
            hop.give_back(*hop.take())
        now_ns += 25_000_000
    fates = [fate(hop, frame_id) for frame_id in range(40)]
    assert fates.count("unwanted") == 30
    assert hop.storage.free_slots == 1
