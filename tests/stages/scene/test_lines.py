"""Crossings with exact counts; supervision's LineZone as the oracle of plain walks."""

from itertools import pairwise

import numpy as np
import pytest
import supervision as sv
from hypothesis import given
from hypothesis import strategies as st
from walks import HEIGHT, MIDDLE, WIDTH, happened, joined, line, path, result, scene, together, walk

NOTHING = [{}] * 3


def crossings(frames, **fields):
    """(object, direction) of each crossing of a line in the middle."""
    rows = happened(scene(lines=[line(MIDDLE, **fields)]), frames, ("crossed",))
    return [(track, direction) for _, _, track, direction in rows]


def test_to_its_right_is_in_and_to_its_left_is_out():
    assert crossings(walk(1, 80, 120)) == [(1, "in")]
    assert crossings(walk(1, 120, 80)) == [(1, "out")]
    named = {"to_right": "north", "to_left": "south"}
    assert crossings(walk(1, 120, 80), **named) == [(1, "south")]


def test_a_box_that_flickers_on_the_line_is_counted_once():
    trembling = [(100 + 0.9 * (-1) ** n, 60) for n in range(50)]
    assert crossings(path(1, (90, 60), *trembling, (110, 60))) == [(1, "in")]


def test_turning_back_on_the_line_is_no_crossing():
    assert crossings(path(1, (90, 60), (97, 60), (100.8, 60), (97, 60), (90, 60))) == []
    beyond = path(1, (90, 60), (104, 60), (96, 60), (90, 60))
    assert crossings(beyond) == [(1, "in"), (1, "out")]


def test_two_that_cross_at_once_are_two():
    both = together(walk(1, 80, 120, y=60), walk(2, 80, 120, y=90))
    assert sorted(crossings(both)) == [(1, "in"), (2, "in")]
    meeting = together(walk(1, 80, 120), walk(2, 120, 80))
    assert sorted(crossings(meeting)) == [(1, "in"), (2, "out")]


@pytest.mark.parametrize("unseen", [0, 1, 5])
@pytest.mark.parametrize("at", [96, 99.5, 100, 100.5, 104])
def test_an_identity_switch_on_the_line_hides_no_crossing(unseen, at):
    """A new id, at once or after some frames in which nobody was there."""
    before = walk(1, 80, at)
    speed = before[1][1][0] - before[0][1][0]
    start = at + speed * (unseen + 1)
    after = walk(2, start, start + 40, step=speed)
    assert crossings(joined([*before, *[{}] * unseen, *after])) == [(1, "in")]


HIDDEN = [{}] * 20  # two seconds


def lost_and_new(at=(108, 60), between=HIDDEN, **fields):
    """Somebody who halts behind another before the line, and is a new object to the tracker after it."""
    return [*walk(1, 60, 92, step=3), *between, *path(2, at, (at[0] + 4, at[1]))]


def test_who_comes_out_beyond_the_line_as_somebody_new_has_crossed_it():
    assert crossings(lost_and_new()) == [(2, "in")]
    assert crossings([*lost_and_new(), *path(2, (95, 60))]) == [(2, "in"), (2, "out")]


@pytest.mark.parametrize(
    "frames",
    [
        lost_and_new(at=(160, 60)),  # further than anybody comes
        [*walk(1, 60, 92, step=3), *[{2: (101.5, 60), 1: (92, 60)}] * 3],  # the other is here
        lost_and_new(between=[*HIDDEN, *HIDDEN, *HIDDEN]),  # the other is gone since
        lost_and_new(at=(105, 99.5)),  # where people come into the picture
        [*walk(1, 170, 195.5), *[{}] * 46, *path(2, (97, 60))],  # the other has left the picture
    ],
    ids=["far", "here", "gone", "comes in", "has left"],
)
def test_who_is_somebody_else_has_crossed_nothing(frames):
    assert crossings(frames) == []


def test_who_was_there_before_a_camera_was_away_is_nobody_who_is_there_now():
    stage, frames = scene(lines=[line(MIDDLE)]), walk(1, 60, 92, step=3)
    for n, feet in enumerate(frames):
        stage.process(result(n, feet))
    for n, x in ((36000, 108), (36001, 112)):  # an hour later
        happenings = stage.process(result(n, {2: (x, 60)})).happenings
        assert "crossed" not in [one.kind for one in happenings]


def test_of_another_class_or_size_it_is_somebody_else():
    def found(labels=None, grow=0):
        stage, rows = scene(lines=[line(MIDDLE)]), []
        for n, feet in enumerate(lost_and_new()):
            one = result(n, feet, labels=labels)
            if 2 in feet:
                one.detections.xyxy[:, 1] -= grow
            rows += [h for h in stage.process(one).happenings if h.kind == "crossed"]
        return [one.object for one in rows]

    assert found() == [2]
    assert found(grow=1) == [2]
    assert found(grow=5) == []
    assert found(labels={2: 1}) == []


def test_who_was_lost_and_is_back_has_not_crossed_for_another():
    """The tracker knew better: 2 came out from a door, and 1 is where it was, and crosses later."""
    back = [*lost_and_new(at=(104, 40)), *path(1, (94, 60), (97, 60))]
    assert crossings(back)[1:] == []
    assert crossings([*back, *path(1, (104, 60))])[1:] == [(1, "in")]


def test_who_begins_on_the_line_has_not_crossed_it():
    assert crossings(path(1, (100, 60), (105, 60), (110, 60))) == []
    assert crossings(path(1, (100.5, 60), (99.5, 60), (90, 60))) == []
    assert crossings(path(1, (100, 60), (110, 60), (90, 60))) == [(1, "out")]


def test_who_walks_around_the_end_of_a_line_has_not_crossed_it():
    half = line([[0.5, 1], [0.5, 0.5]])
    stage = scene(lines=[half])
    around = path(1, (90, 60), (95, 45), (100.5, 30), (105, 45), (110, 60))
    assert happened(stage, around, ("crossed",)) == []
    through = path(2, (90, 60), (98, 60), (104, 60))
    rows = [
        r for n, feet in enumerate(through, 5) for r in stage.process(result(n, feet)).happenings
    ]
    assert [r.direction for r in rows if r.kind == "crossed"] == ["in"]


def test_frames_that_were_dropped_on_the_line_hide_no_crossing():
    assert crossings(path(1, (70, 60), (75, 60), (130, 60))) == [(1, "in")]


def test_only_classes_that_are_asked_for():
    stage = scene(lines=[line(MIDDLE, classes=("car",))])
    frames = together(walk(1, 80, 120, y=60), walk(2, 80, 120, y=90))
    found = [
        one
        for n, feet in enumerate(frames)
        for one in stage.process(result(n, feet, labels={2: 1})).happenings
    ]
    assert [(h.object, h.label) for h in found if h.kind == "crossed"] == [(2, "car")]
    assert stage.runtime.counts["crossed:kerb:in:car", "gate"] == 1


def test_without_objects_nothing_happens():
    assert crossings(NOTHING) == []


STEPS = st.lists(st.integers(-30, 30), min_size=1, max_size=40)


@given(st.integers(0, WIDTH), STEPS)
def test_counts_follow_the_side_and_never_run_away(start, steps):
    """In - out is the change of side, whatever way it was."""
    xs = np.clip(np.cumsum([start, *steps]), 0, WIDTH)
    found = [direction for _, direction in crossings(path(1, *((float(x), 60) for x in xs)))]
    sides = [0 if abs(x - 100) <= 1 else (1 if x > 100 else -1) for x in xs]
    certain = [side for side in sides if side]
    change = (certain[-1] - certain[0]) // 2 if certain else 0
    assert found.count("in") - found.count("out") == change
    assert all(a != b for a, b in pairwise(found))


@given(st.integers(0, 10**6))
def test_plain_walks_are_counted_as_supervision_does(seed):
    """Several objects that wander, whose feet never come to lie near the line."""
    rng = np.random.default_rng(seed)
    xs = rng.uniform(20, 180, (4, 1)) + np.cumsum(rng.normal(0, 12, (4, 60)), axis=1)
    xs = np.clip(xs, 5, WIDTH - 5)
    xs[np.abs(xs - 100) < 1.5] = 97
    theirs = sv.LineZone(
        sv.Point(100, HEIGHT), sv.Point(100, 0), triggering_anchors=[sv.Position.BOTTOM_CENTER]
    )
    stage = scene(lines=[line(MIDDLE)])
    ours = {"in": 0, "out": 0}
    for n in range(xs.shape[1]):
        one = result(n, {k: (float(x), 20 + 20 * k) for k, x in enumerate(xs[:, n])})
        for happening in stage.process(one).happenings:
            if happening.kind == "crossed":
                ours[happening.direction] += 1
        found = one.detections
        theirs.trigger(sv.Detections(found.xyxy, tracker_id=found.track_ids))
    assert sorted(ours.values()) == sorted((theirs.in_count, theirs.out_count))
    assert ours["in"] == theirs.out_count  # theirs looks from the other side
