"""Frames in nobody's hands: found, and told apart from those that somebody has."""

import numpy as np
import pytest

from pipeline.accounts.audit import Audit
from pipeline.accounts.layout import DETECT, Layout
from pipeline.accounts.ledger import Ledger, holder_code
from pipeline.accounts.tally import Tally

CAPTURE, BATCHER = 0, 1
OLD, NEW = holder_code(BATCHER, 0), holder_code(BATCHER, 1)


@pytest.fixture
def book():
    return Ledger.local(Layout.of(("gate", "yard"), ("capture.gate", "batcher")))


@pytest.fixture
def tally(book):
    return Tally(book, 0, DETECT)


def captured(book, holder):
    frame_id = book.capture(0, holder_code(CAPTURE, 0))
    book.hold(0, DETECT, frame_id, holder)
    return frame_id


def tells(book, index, oldest):
    book.tell_held(index, {0: oldest})


def test_what_a_dead_incarnation_held_is_lost_a_second_later(book, tally):
    for holder in (OLD, NEW, OLD):
        captured(book, holder)
    book.deliver(0, DETECT, 2)
    audit = Audit(book, [tally])
    audit.died(OLD, 10.0)
    audit.look(10.9, {NEW: BATCHER})
    assert tally.totals().in_flight == 2
    audit.look(11.0, {NEW: BATCHER})
    totals = tally.totals()
    assert (totals.dropped["stage_died"], totals.delivered, totals.in_flight) == (1, 1, 1)


def test_what_is_marked_late_in_the_name_of_the_dead_is_lost_too(book, tally):
    audit = Audit(book, [tally])
    audit.died(OLD, 10.0)
    audit.look(12.0, {})
    captured(book, OLD)  # by a writer that was busy when it heard of the death
    audit.look(13.0, {})
    assert tally.totals().dropped["stage_died"] == 1


def test_a_frame_that_its_holder_has_no_more_is_forgotten(book, tally):
    captured(book, NEW)
    audit = Audit(book, [tally])
    for _ in range(4):  # it may tell as often as it likes what it has
        tells(book, BATCHER, 0)
        audit.look(1.0, {NEW: BATCHER})
    assert tally.totals().in_flight == 1
    for _ in range(4):
        tells(book, BATCHER, 1)
        audit.look(1.0, {NEW: BATCHER})
    assert (tally.totals().in_flight, tally.totals().error) == (0, 1)


def test_a_frame_that_came_while_its_holder_was_telling_is_not(book, tally):
    tells(book, BATCHER, 5)  # of before
    captured(book, NEW)
    audit = Audit(book, [tally])
    for _ in range(5):
        audit.look(1.0, {NEW: BATCHER})
    tells(book, BATCHER, 0)
    audit.look(1.0, {NEW: BATCHER})
    assert (tally.totals().in_flight, tally.totals().error) == (1, 0)


def test_a_suspicion_ends_with_the_frame_going_on(book, tally):
    frame_id = captured(book, NEW)
    tells(book, BATCHER, 1)
    audit = Audit(book, [tally])
    code = holder_code(CAPTURE, 0)
    audit.look(1.0, {NEW: BATCHER, code: CAPTURE})
    tells(book, BATCHER, 1)
    tells(book, BATCHER, 1)
    book.hold(0, DETECT, frame_id, code)
    audit.look(1.0, {NEW: BATCHER, code: CAPTURE})
    assert tally.totals().error == 0


def test_what_was_in_the_hands_of_one_that_ended_well_is_forgotten(book, tally):
    captured(book, NEW)
    captured(book, OLD)
    audit = Audit(book, [tally])
    audit.ended(NEW)
    audit.close(5.0)
    totals = tally.totals()
    assert (totals.error, totals.dropped["stopped"], totals.in_flight) == (1, 1, 0)
    assert not np.any(tally.unsettled())


def test_a_run_in_which_cameras_come_and_go_for_ever_keeps_no_list_of_all_of_them(book):
    audit = Audit(book)
    sizes = []
    for n in range(4000):
        audit.ended(holder_code(n % 40, n // 40))
        audit.died(holder_code(n % 40, n // 40), float(n))
        sizes.append(len(audit._gone) + len(audit._dead))
    assert sizes[1999] == sizes[-1]
