"""One hop over real sockets and real memory: no slot is written again while somebody may read it."""

import pytest
from hops import Hop

from pipeline.errors import TornFrame


@pytest.fixture
def make(tmp_path):
    hops = []

    def hop(**options):
        hops.append(Hop(tmp_path, **options))
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
    assert hop.writer.take() is None
    assert [pixels(hop, delivery) for delivery in deliveries] == [7, 8]
    hop.writer.settled(hop.code)
    # what is to be sent again keeps its slot for the next consumer
    assert hop.writer.free_slots == (0 if resend else 2)


def test_the_slots_of_a_consumer_that_passed_nothing_on_are_free_at_once(make):
    hop = make(slots=1)
    hop.send(7)
    (delivery,) = hop.take()
    hop.writer.consumer_died("taker")
    assert hop.writer.take() is not None
    with pytest.raises(TornFrame):
        hop.reader.verify(delivery)


def test_what_is_settled_twice_or_of_another_consumer_frees_nothing(make):
    hop = make(slots=1)
    hop.send(7)
    hop.writer.consumer_died("taker", outlived=True)
    hop.writer.settled(hop.code + 1)
    assert hop.writer.free_slots == 0
    hop.writer.settled(hop.code)
    hop.writer.settled(hop.code)
    assert hop.writer.free_slots == 1


def test_a_reader_knows_what_it_holds_of_a_producer_and_takes_nothing_after_its_death(make):
    hop = make(credits=2)
    assert not hop.reader.holds("giver")
    hop.send(7)
    (delivery,) = hop.take()
    assert hop.reader.holds("giver")
    hop.reader.refuse("giver")
    hop.send(8)
    hop.wait(hop.reader)
    hop.reader.receive(lambda: None)
    assert hop.reader.next(lambda _: True) is None
    assert hop.reader.holds("giver")
    hop.reader.done(delivery)
    assert not hop.reader.holds("giver")
