"""What every channel promises, as one body of tests that each implementation goes through.

`check_channel(make)` is for those that carry bytes from one process to another, `check_hop(make)` for those
that carry frames: slots, credits and accounts included. A new implementation needs an adapter and one line
in `tests/pipeline/hop/test_channels.py`.
"""

import gc
import os
import select
import time
from contextlib import closing, suppress

import pytest
from patience import BOUND_S

from pipeline.accounts.layout import DETECT
from pipeline.accounts.ledger import REASONS
from pipeline.errors import Closed, Full, PeerGone
from pipeline.hop import transport
from pipeline.hop.control import Control
from pipeline.hop.transport import Inbox, Outbox

MANY = 1000  # more than any socket has room for
LIMIT = 1500  # messages that wait, here; a run has room for some thousands
FAR_TOO_MANY = 10_000  # more than all buffers between two ends hold together


# -- the channels, by the same words -------------------------------------------------------------------


class ControlPair:
    """Supervisor and child; downward: from the supervisor."""

    tells_of_death = True

    def __init__(self, folder, *, downward):
        ours, theirs = Control.pair()
        ends = ours, Control(theirs)
        self.sender, self.receiver = ends if downward else ends[::-1]

    def send(self, data):
        self.sender.send("say", text=data.decode("latin-1"))

    def receive(self):
        return [said["text"].encode("latin-1") for said, _ in self.receiver.receive()]

    def wait(self, timeout_s=BOUND_S):
        """False: nothing came."""
        with suppress(Closed):
            self.sender.flush()
        return bool(select.select([self.receiver.fileno()], [], [], timeout_s)[0])

    def close(self):
        self.sender.close()
        self.receiver.close()


class _ZeroMqPair:
    tells_of_death = False  # the supervisor does

    def __init__(self, folder):
        self.context = transport.context()
        endpoint = f"ipc://{folder}/{time.monotonic_ns()}"
        self.inbox = Inbox(self.context, endpoint)
        self.outbox = Outbox(self.context, endpoint, b"gate.0")

    def wait(self, timeout_s=BOUND_S):
        end = time.monotonic() + timeout_s
        while not self.receiver.readable and time.monotonic() < end:
            transport.poller([self.receiver.descriptor]).poll(min(100, timeout_s * 1000))
        return self.receiver.readable

    def close(self):
        self.inbox.close()
        self.outbox.close()
        self.context.term()


class MessagePair(_ZeroMqPair):
    """From a producer to the inbox of its consumer."""

    def __init__(self, folder):
        super().__init__(folder)
        self.sender, self.receiver = self.outbox, self.inbox

    def send(self, data):
        self.outbox.send(data)

    def receive(self):
        return [data for _, data in self.inbox.receive()]


class AnswerPair(_ZeroMqPair):
    """And back."""

    def __init__(self, folder):
        super().__init__(folder)
        self.sender, self.receiver = self.inbox, self.outbox
        self.outbox.send(b"hello")  # by which the inbox knows whom it can answer
        end = time.monotonic() + BOUND_S
        while not self.inbox.receive():
            assert time.monotonic() < end

    def send(self, data):
        if not self.inbox.answer(b"gate.0", data):
            raise Full("or gone: an answer does not tell which")

    def receive(self):
        return self.outbox.receive()


# -- what they promise -----------------------------------------------------------------------------------


def check_channel(make):
    """make(): a connected pair, as above. Whole, in order, without waiting, and never lost silently."""
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    for promise in (
        _nothing_there_is_an_empty_list_at_once,
        _messages_of_all_lengths_come_whole_and_in_order,
        _one_who_reads_late_has_missed_nothing,
        _one_who_never_reads_is_an_error_and_what_was_taken_still_comes,
        _closing_twice_is_fine_and_then_it_is_closed,
        _what_waits_at_a_close_comes_whole_or_not_at_all,
        _sending_to_one_who_is_gone_ends_in_an_error,
        _after_the_sender_is_gone_what_it_had_sent_comes_and_then_the_end,
    ):
        with closing(make()) as pair:
            promise(pair)
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before, "files are left open"


def number(n):
    return b"%d" % n


def taken(pair, count):
    """The next messages; waits for them."""
    messages = []
    while len(messages) < count:
        assert pair.wait(), f"only {len(messages)} of {count} messages came"
        messages += pair.receive()
    return messages


def sent_until_full(pair):
    """How many messages it took before it said Full."""
    for n in range(FAR_TOO_MANY):
        try:
            pair.send(number(n))
        except Full:
            return n
    raise AssertionError(f"{FAR_TOO_MANY} messages wait that nobody reads")


def _nothing_there_is_an_empty_list_at_once(pair):
    assert pair.receive() == []


def _messages_of_all_lengths_come_whole_and_in_order(pair):
    sent = [
        number(n % 10) * length for n, length in enumerate((1, 7, 60_000, 2, 16_384, 65, 30_000))
    ]
    for data in sent:
        pair.send(data)
    assert taken(pair, len(sent)) == sent


def _one_who_reads_late_has_missed_nothing(pair):
    for n in range(MANY):
        pair.send(number(n))
    assert taken(pair, MANY) == [number(n) for n in range(MANY)]
    assert pair.receive() == []


def _one_who_never_reads_is_an_error_and_what_was_taken_still_comes(pair):
    count = sent_until_full(pair)
    assert taken(pair, count) == [number(n) for n in range(count)]
    end = time.monotonic() + BOUND_S
    while True:
        try:
            pair.send(b"again")
            break
        except Full:  # the news that there is room comes a moment later
            assert time.monotonic() < end
    assert taken(pair, 1) == [b"again"]


def _closing_twice_is_fine_and_then_it_is_closed(pair):
    for end, use in ((pair.sender, lambda: pair.send(b"x")), (pair.receiver, pair.receive)):
        end.close()
        end.close()
        with pytest.raises(Closed):
            use()


def _what_waits_at_a_close_comes_whole_or_not_at_all(pair):
    for n in range(MANY):
        pair.send(number(n))
    pair.sender.close()
    came = []
    try:
        while pair.wait(0.1):
            came += pair.receive()
    except PeerGone:
        pass
    assert came == [number(n) for n in range(len(came))]


def _sending_to_one_who_is_gone_ends_in_an_error(pair):
    pair.receiver.close()
    if pair.tells_of_death:
        with pytest.raises(PeerGone):
            pair.send(b"x")
    else:
        sent_until_full(pair)


def _after_the_sender_is_gone_what_it_had_sent_comes_and_then_the_end(pair):
    pair.send(b"last words")
    assert pair.wait()
    pair.sender.close()
    assert pair.receive() == [b"last words"]
    if pair.tells_of_death:
        with pytest.raises(PeerGone):
            pair.receive()
    else:
        assert pair.receive() == []


# -- and what hops do beyond that ------------------------------------------------------------------------


def check_hop(make, *, every):
    """make(**options): a `hops.Hop` between a writer and a reader; every: or newest, with its mailboxes."""
    policy = (
        {"overflow": "wait", "resend": True} if every else {"overflow": "drop", "resend": False}
    )
    for promise in (
        _frames_come_whole_and_in_the_order_of_their_camera,
        _no_more_is_under_way_than_there_are_credits,
        _what_finds_no_room_waits_or_is_dropped_and_counted,
        _a_camera_that_waits_holds_no_other_up,
        _who_comes_back_gets_what_waited,
        _what_waits_for_one_who_stays_away_is_lost_and_counted,
        _nothing_is_taken_of_a_writer_that_died_and_what_is_here_can_be_read,
        _who_holds_for_one_that_it_never_reached_sends_to_its_successor,
        _a_reader_to_be_replaced_gets_nothing_more_and_its_successor_all_of_it,
    ):
        hop = make(**policy)
        promise(hop, every)
        assert int(hop.ledger["contradicted"].sum()) == 0, promise.__name__


def value(hop, delivery):
    return int(hop.reader.open(delivery).pixels[0, 0, 0])


def drained(hop):
    """(frame_id, value) of all that comes, each of it taken and DONE."""
    came = []
    hop.writer.flush()
    while not hop.writer.idle:
        for delivery in hop.take():
            came.append((delivery.frame_id, value(hop, delivery)))
            hop.reader.verify(delivery)
            hop.ledger.deliver(hop.ledger.camera_index[delivery.camera], DETECT, delivery.frame_id)
            hop.give_back(delivery)
        hop.writer.flush()
    assert hop.storage.free_slots == hop.slots
    return came


def fates(hop, camera="gate"):
    """Of all frames of a camera, in their order."""
    row = hop.ledger.camera_index[camera]
    places = [(row, DETECT, i) for i in range(int(hop.ledger["captured"][row]))]
    return [
        "delivered" if hop.ledger["delivered"][place] else REASONS[hop.ledger["dropped"][place]]
        for place in places
    ]


def _frames_come_whole_and_in_the_order_of_their_camera(hop, every):
    for n in range(2):
        hop.send(10 + n, "gate")
        hop.send(20 + n, "yard")
    came = hop.take(4)
    for camera, first in (("gate", 10), ("yard", 20)):
        mine = [delivery for delivery in came if delivery.camera == camera]
        assert [(d.frame_id, value(hop, d)) for d in mine] == [(0, first), (1, first + 1)]
    hop.give_back(*came)
    assert hop.writer.idle
    assert hop.storage.free_slots == hop.slots


def _no_more_is_under_way_than_there_are_credits(hop, every):
    for n in range(3):
        hop.send(n)
    first, second = hop.take(2)
    assert not hop.readable(0.05)
    hop.give_back(second)
    hop.writer.flush()
    (third,) = hop.take()
    assert [value(hop, delivery) for delivery in (first, third)] == [0, 2]


def _what_finds_no_room_waits_or_is_dropped_and_counted(hop, every):
    assert hop.writer.has_room("gate")
    for n in range(6):  # two are under way, one waits
        hop.send(n)
    assert hop.writer.has_room("gate") is not every  # who asks first never comes to this
    came = drained(hop)
    if every:
        assert came == [(n, n) for n in range(6)]
    else:
        assert came == [(0, 0), (1, 1), (5, 5)]
        assert fates(hop) == ["delivered"] * 2 + ["superseded"] * 3 + ["delivered"]


def _a_camera_that_waits_holds_no_other_up(hop, every):
    for n in range(3):
        hop.send(n, "gate")
    hop.send(7, "yard")
    assert sorted(delivery.camera for delivery in hop.take(3)) == ["gate", "gate", "yard"]


def _who_comes_back_gets_what_waited(hop, every):
    for n in range(3):
        hop.send(n)
    hop.take(2)
    hop.kill_taker()
    hop.send(3)  # nobody is there
    hop.restart_taker()
    came = drained(hop)
    if every:
        assert came == [(n, n) for n in range(4)]
    else:  # what it had is lost: the supervisor buries that with it
        assert came == [(3, 3)]
        assert fates(hop) == ["none", "none", "superseded", "delivered"]


def _what_waits_for_one_who_stays_away_is_lost_and_counted(hop, every):
    for n in range(3):
        hop.send(n)
    hop.take(2)
    hop.writer.abandon("taker")
    hop.send(3)
    assert fates(hop) == ["stage_died" if every else "none"] * 2 + ["stage_died"] * 2
    assert hop.writer.idle
    assert hop.storage.free_slots == hop.slots


def _nothing_is_taken_of_a_writer_that_died_and_what_is_here_can_be_read(hop, every):
    assert not hop.reader.holds("giver")
    hop.send(7)
    (delivery,) = hop.take()
    hop.reader.refuse("giver")
    hop.send(8)
    hop.wait(hop.reader)
    assert hop.come() == []
    assert hop.reader.holds("giver")
    assert value(hop, delivery) == 7
    hop.reader.done(delivery)
    assert not hop.reader.holds("giver")


def _who_holds_for_one_that_it_never_reached_sends_to_its_successor(hop, every):
    hop.kill_taker()
    hop.writer.hold("taker")
    hop.send(0)
    hop.restart_taker()
    assert drained(hop) == [(0, 0)]


def _a_reader_to_be_replaced_gets_nothing_more_and_its_successor_all_of_it(hop, every):
    hop.send(0)
    first = hop.take()
    hop.writer.hold("taker")
    hop.send(1)
    assert not hop.readable(0.05)
    assert not hop.writer.has_nothing("taker")
    hop.give_back(*first)
    assert hop.writer.has_nothing("taker")
    hop.kill_taker()
    hop.restart_taker()
    assert drained(hop) == [(1, 1)]
