"""What became of every frame, on its path and at each sink behind it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.accounts.layout import DETECT, RING, VIEW, Layout
from pipeline.accounts.ledger import Ledger, holder_code
from pipeline.accounts.tally import Tally

EVENTS, STORE, VIDEO = 2, 3, 4  # ways of the ledger
SINKS = {
    "sink.events": (EVENTS, DETECT), "sink.store": (STORE, DETECT), "sink.video": (VIDEO, VIEW),
}  # fmt: skip
POST = holder_code(0, 0)


def ledger():
    return Ledger.local(Layout.of(("gate",), ("postprocess",), sinks=SINKS))


def ended(book, *at_sinks):
    """A frame that has come to the end of the detect path; its fate at events and store."""
    frame_id = book.capture(0, POST)
    for way, fate in zip((EVENTS, STORE), at_sinks, strict=True):
        book.offer(0, way, frame_id, POST)
        if fate == "taken":
            book.deliver(0, way, frame_id)
        elif fate is not None:
            book.drop(0, way, frame_id, fate)
    book.deliver(0, DETECT, frame_id)
    return frame_id


@pytest.mark.parametrize(
    ("at_sinks", "fate"),
    [
        (("taken", "taken"), "delivered"),
        (("taken", None), "in_flight"),
        ((None, None), "in_flight"),
        (("taken", "error"), "sink"),
        ((None, "overflow"), "sink"),
        (("taken", "stage_died"), "sink"),
        (("taken", "unwanted"), "delivered"),
        (("unwanted", "unwanted"), "unwanted"),
        (("filtered", "filtered"), "filtered"),
        (("taken", "superseded"), "superseded"),
        (("taken", "stopped"), "stopped"),
        (("error", "stopped"), "sink"),
    ],
)
def test_a_frame_is_delivered_when_every_sink_that_was_to_have_it_has_it(at_sinks, fate):
    book = ledger()
    ended(book, *at_sinks)
    totals = Tally(book, 0, DETECT).totals()
    known = {"delivered": totals.delivered, "in_flight": totals.in_flight, **totals.dropped}
    assert {name for name, n in known.items() if n} == {fate}
    assert (totals.captured, totals.error) == (1, 0)


def test_what_no_sink_is_behind_is_delivered_at_the_end_of_its_path():
    book = ledger()
    book.deliver(0, VIEW, book.capture(0, POST))
    assert Tally(book, 0, VIEW).totals().delivered == 1
    assert Tally(book, 0, VIDEO).totals().captured == 0


def test_the_account_of_a_sink_is_about_what_it_was_offered():
    book = ledger()
    for fates in (("taken", "taken"), ("taken", "unwanted"), ("error", None)):
        ended(book, *fates)
    book.drop(0, DETECT, book.capture(0, POST), "superseded")  # never came so far
    events, store = (Tally(book, 0, way).totals() for way in (EVENTS, STORE))
    assert (events.captured, events.delivered, events.dropped["error"]) == (3, 2, 1)
    assert (store.captured, store.delivered, store.in_flight) == (3, 1, 1)
    assert (events.lost, store.lost) == (1, 0)


def test_a_sink_that_takes_a_result_of_a_frame_given_up_for_lost_has_it_delivered():
    book = ledger()
    tally, at_sink = Tally(book, 0, DETECT), Tally(book, 0, EVENTS)
    frame_id = book.capture(0, POST)
    book.drop(0, DETECT, frame_id, "stage_died")
    assert tally.totals().dropped["stage_died"] == 1
    book.offer(0, EVENTS, frame_id, POST)
    assert tally.totals().in_flight == 1
    book.deliver(0, EVENTS, frame_id)
    assert (tally.totals().delivered, at_sink.totals().delivered) == (1, 1)


_FATES = st.sampled_from([None, "taken", "error", "unwanted", "stage_died", "superseded"])


@given(
    st.lists(st.tuples(st.booleans(), _FATES, _FATES, st.booleans()), max_size=60),
    st.integers(0, 2 * RING),
)
def test_all_accounts_add_up_however_often_one_looks(frames, before):
    book = ledger()
    tallies = {way: Tally(book, 0, way) for way in (DETECT, EVENTS, STORE)}
    book.put("captured", 0, before)  # somewhere in the ring
    for tally in tallies.values():
        tally.final_below = before
    for comes_to_the_end, events, store, looks in frames:
        if comes_to_the_end:
            ended(book, events, store)
        else:
            book.drop(0, DETECT, book.capture(0, POST), "superseded")
        if looks:
            for tally in tallies.values():
                tally.totals()
    at_end = sum(comes for comes, *_ in frames)
    for way, tally in tallies.items():
        totals = tally.totals()
        known = totals.delivered + sum(totals.dropped.values()) + totals.in_flight
        assert known == (len(frames) if way == DETECT else at_end)
        assert totals.error == 0


def test_two_different_fates_of_one_frame_are_an_error_whenever_they_are_marked():
    book = ledger()
    tally = Tally(book, 0, DETECT)
    frame_id = book.capture(0, POST)
    book.drop(0, DETECT, frame_id, "superseded")
    book.drop(0, DETECT, frame_id, "superseded")  # who is not sure may say it again
    assert tally.totals().error == 0
    book.deliver(0, DETECT, frame_id)
    assert tally.totals().error == 1
    other = book.capture(0, POST)
    book.deliver(0, DETECT, other)
    assert tally.totals().error == 1
    book.drop(0, DETECT, other, "filtered")
    assert tally.totals().error == 2


def test_a_source_waits_with_what_would_overwrite_a_frame_that_was_not_added_up():
    book = ledger()
    for _ in range(RING):
        assert book.has_place(0)
        book.drop(0, DETECT, book.capture(0, POST), "unwanted")
    assert not book.has_place(0)
    tally = Tally(book, 0, DETECT)
    assert tally.totals().dropped["unwanted"] == RING
    book.put("counted_below", 0, tally.final_below)
    assert book.has_place(0)
