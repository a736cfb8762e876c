import dataclasses
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.accounts.layout import DETECT, EDGES_S, RING, VIEW, Layout
from pipeline.accounts.ledger import Ledger, quantile_s
from pipeline.accounts.tally import Tally


def ledger():
    return Ledger.local(Layout.of(("gate", "yard"), ("capture.gate", "preprocess")))


def test_nothing_captured_is_a_ledger_that_closes():
    totals = Tally(ledger(), 0, DETECT).totals()
    assert (totals.captured, totals.delivered, totals.in_flight, totals.error) == (0, 0, 0, 0)


@given(st.lists(st.sampled_from(["deliver", "superseded", "stage_died", "fly"]), max_size=60))
def test_the_sum_closes_whatever_happens_to_the_frames(fates):
    book = ledger()
    tally = Tally(book, 0, DETECT)
    for fate in fates:
        frame_id = book.capture(0, holder=1)
        if fate == "deliver":
            book.deliver(0, DETECT, frame_id)
        elif fate != "fly":
            book.drop(0, DETECT, frame_id, fate)
        totals = tally.totals()
        assert totals.error == 0
    assert totals.captured == len(fates) if fates else True
    if fates:
        assert totals.delivered == fates.count("deliver")
        assert totals.dropped["superseded"] == fates.count("superseded")
        assert totals.in_flight == fates.count("fly")


def test_totals_stay_exact_over_many_turns_of_the_ring():
    book = ledger()
    tally = Tally(book, 0, DETECT)
    for n in range(3 * RING):
        frame_id = book.capture(0, holder=1)
        if n % 3:
            book.deliver(0, DETECT, frame_id)
        else:
            book.drop(0, DETECT, frame_id, "superseded")
        if n % 500 == 0:
            assert tally.totals().error == 0
    totals = tally.totals()
    assert (totals.delivered, totals.dropped["superseded"]) == (2 * RING, RING)


def test_marking_twice_counts_once_and_a_delivery_overrides_a_verdict():
    book = ledger()
    frame_id = book.capture(0, holder=1)
    book.drop(0, DETECT, frame_id, "stage_died")
    book.drop(0, DETECT, frame_id, "stage_died")
    book.deliver(0, DETECT, frame_id)
    totals = Tally(book, 0, DETECT).totals()
    assert totals.delivered == 1
    assert sum(totals.dropped.values()) == 0
    assert not book.dropped(0, DETECT, frame_id)


def test_the_paths_of_a_frame_are_apart():
    book = ledger()
    frame_id = book.capture(0, holder=1)
    book.deliver(0, VIEW, frame_id)
    assert Tally(book, 0, VIEW).totals().delivered == 1
    assert Tally(book, 0, DETECT).totals().in_flight == 1
    assert Tally(book, 1, DETECT).totals().captured == 0


def test_a_process_that_slept_for_a_whole_ring_does_not_mark_newer_frames():
    book = ledger()
    for _ in range(RING + 1):
        book.capture(0, holder=1)
    book.drop(0, DETECT, 0, "error")  # frame 0 and frame RING share a place
    assert not book.settled(0, DETECT, RING)


def test_frames_are_released_in_order_of_their_fates():
    book = ledger()
    for _ in range(4):
        book.capture(0, holder=1)
    assert book.oldest_unsettled(0, DETECT, 3) == 0
    book.deliver(0, DETECT, 0)
    book.drop(0, DETECT, 1, "error")
    assert book.oldest_unsettled(0, DETECT, 3) == 2
    book.deliver(0, DETECT, 2)
    assert book.oldest_unsettled(0, DETECT, 3) == 3


def test_a_camera_is_through_when_its_frames_have_ended_at_every_sink_that_they_came_to():
    layout = Layout.of(("gate",), ("p",), sinks={"sink.a": (2, DETECT), "sink.video": (3, VIEW)})
    book = Ledger.local(layout)
    assert book.is_through(0, 0)
    first, second = book.capture(0, holder=1), book.capture(0, holder=1)
    assert book.is_through(0, first)
    assert not book.is_through(0, second)
    book.offer(0, 2, first, holder=1)
    book.offer(0, 3, first, holder=1)  # a viewer may be as slow as it likes
    book.deliver(0, DETECT, first)
    assert not book.is_through(0, second)
    book.deliver(0, 2, first)
    assert book.is_through(0, second)
    book.drop(0, DETECT, second, "superseded")  # it came to no sink
    assert book.is_through(0, 2)


def test_another_process_sees_the_same_memory():
    layout = Layout.of(("gate", "yard"), ("p", "q"), {"p": ("hits",), "q": ("misses", "hits")})
    fd = os.memfd_create("ledger")
    os.ftruncate(fd, layout.nbytes)
    ours, theirs = Ledger(fd, layout), Ledger(fd, _through_json(layout.part("q", ("yard",))))
    os.close(fd)
    yard = theirs.camera_index["yard"]
    theirs.count("q", "hits", "yard", 3)
    assert {
        key: ours.counted(*key)
        for key in (("p", "hits", "yard"), ("q", "misses", "yard"), ("q", "hits", "gate"))
    } == {("p", "hits", "yard"): 0, ("q", "misses", "yard"): 0, ("q", "hits", "gate"): 0}
    assert ours.counted("q", "hits", "yard") == 3
    assert theirs.capture(yard, holder=9) == 0
    assert ours["captured"].tolist() == [0, 1]
    theirs.put("torn", theirs.process_index["q"], 5)
    assert ours["torn"].tolist() == [0, 5]


def test_durations_that_one_process_measures_are_there_for_all():
    layout = Layout.of(("gate",), ("p", "q"), histograms={"p": ("a",), "q": ("a", "b")})
    fd = os.memfd_create("ledger")
    os.ftruncate(fd, layout.nbytes)
    ours, theirs = Ledger(fd, layout), Ledger(fd, _through_json(layout.part("q", ("gate",))))
    os.close(fd)
    for seconds in (0.05, 0.05, 2.0, 1000.0):
        theirs.measure("q", "b", seconds)
    cells, total = ours.histogram("q", "b")
    assert (cells.sum(), cells[-1], total) == (4, 1, pytest.approx(1002.1))
    assert cells[int(np.searchsorted(EDGES_S, 0.05))] == 2
    assert ours.histogram("p", "a")[0].sum() == ours.histogram("q", "a")[0].sum() == 0


def test_what_a_camera_is_told_of_the_ledger_does_not_grow_with_the_others():
    def told(cameras, classes):
        names = [f"c{i}" for i in range(cameras)]
        counters = {"postprocess": [f"detections:{i}" for i in range(classes)], "capture.c0": ["n"]}
        layout = Layout.of(names, [*(f"capture.{c}" for c in names), "postprocess"], counters)
        return len(json.dumps(dataclasses.asdict(layout.part("capture.c0", ("c0",)))))

    assert told(200, 600) <= told(2, 2) + 20  # its numbers have more digits


def _through_json(layout):
    return Layout.from_json(json.loads(json.dumps(dataclasses.asdict(layout))))


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_quantiles_are_within_a_cell_of_the_exact_ones(q):
    rng = np.random.default_rng(1)
    values = rng.lognormal(-4, 1, 5000)
    book = ledger()
    for value in values:
        book.observe("latency_seconds", 0, value)
    found = quantile_s(book["latency_seconds"][0], q)
    assert found == pytest.approx(float(np.quantile(values, q)), rel=0.21)
    assert quantile_s(np.zeros(len(EDGES_S) + 1), q) is None
