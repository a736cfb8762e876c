"""Who enters, stays and leaves, and that nobody's entry is swallowed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from walks import LEFT_HALF, happened, joined, path, result, scene, together, walk, zone

SECOND = 10  # frames


def events(frames, **fields):
    return happened(scene(zones=[zone(LEFT_HALF, **fields)]), frames)


def test_in_and_out():
    frames = [*walk(1, 120, 80), *walk(1, 80, 120)]
    kinds = [(kind, track) for _, kind, track, _ in events(frames)]
    assert kinds == [("entered", 1), ("left", 1)]


def test_who_is_first_seen_inside_has_entered():
    assert events(path(1, (20, 60), (20, 60))) == [(0, "entered", 1, 0)]
    assert events(path(1, (99.5, 60))) == [(0, "entered", 1, 0)]
    assert events(path(1, (100.5, 60))) == []


def test_a_box_that_flickers_on_the_border_enters_once():
    trembling = [(100 + 0.9 * (-1) ** n, 60) for n in range(50)]
    rows = events(path(1, (110, 60), *trembling, (90, 60), *trembling, (110, 60)))
    assert [kind for _, kind, _, _ in rows] == ["entered", "left"]


def test_how_long_somebody_stayed():
    stage = scene(zones=[zone(LEFT_HALF)])
    frames = [{1: (120, 60)}, *[{1: (50, 60)}] * 21, {1: (120, 60)}]
    found = [h for n, feet in enumerate(frames) for h in stage.process(result(n, feet)).happenings]
    (left,) = [h for h in found if h.kind == "left"]
    assert left.seconds == pytest.approx(2.1)
    assert (left.object, left.label, left.place) == (1, "person", "door")
    assert stage.runtime.counts["entered:door", "gate"] == 1
    assert stage.runtime.counts["left:door", "gate"] == 1


def test_who_is_gone_has_left_when_it_was_seen_last():
    stage = scene(zones=[zone(LEFT_HALF)], gone_s=1.0)
    frames = [*[{1: (50, 60)}] * 11, *[{}] * 12]
    rows = [
        (n, h.kind, round(h.seconds, 3))
        for n, feet in enumerate(frames)
        for h in stage.process(result(n, feet)).happenings
    ]
    assert rows == [(0, "appeared", 0), (0, "entered", 0), (21, "left", 1.0), (21, "gone", 1.0)]


def test_loitering_is_said_once_a_stay():
    frames = [*[{1: (50, 60)}] * 3 * SECOND, *[{1: (150, 60)}] * 3, *[{1: (50, 60)}] * 3 * SECOND]
    rows = [(n, kind) for n, kind, _, _ in events(frames, loiter_s=2)]
    assert rows == [
        (0, "entered"), (20, "loitering"), (30, "left"), (33, "entered"), (53, "loitering"),
    ]  # fmt: skip


def test_a_parked_car_whose_track_breaks_has_entered_once():
    frames = [*[{1: (50, 60)}] * 5, {}, {}, *[{2: (50.5, 60)}] * 5, {}, *[{3: (50, 60.5)}] * 20]
    assert events(joined(frames)) == [(0, "entered", 1, 0)]


def test_crowded_above_the_limit_and_no_more():
    walks = [walk(k, 140 + 20 * k, 20 + 20 * k, y=20 + 15 * k) for k in range(4)]
    frames = [*together(*walks), {0: (20, 20)}]
    rows = [(kind, n) for _, kind, _, n in events(frames, max_objects=2, margin=0.01)]
    assert rows.count(("crowded", 3)) == 1
    crowds = [row for row in rows if "crowded" in row[0]]
    assert crowds == [("crowded", 3)]


def test_a_crowd_that_leaves():
    inside, outside = {k: (20 + 20 * k, 60) for k in range(3)}, dict.fromkeys(range(3), (150, 60))
    rows = events([inside, inside, outside], max_objects=1)
    assert [(n, kind, count) for n, kind, _, count in rows if "crowd" in kind] == [
        (0, "crowded", 3), (2, "uncrowded", 0),
    ]  # fmt: skip


def test_a_narrow_zone_can_be_entered():
    narrow = [[0.25, 0], [0.2525, 0], [0.2525, 1], [0.25, 1]]  # half a px
    stage = scene(zones=[zone(narrow)])
    rows = happened(stage, path(1, (40, 60), (50.25, 60), (60, 60)))
    assert [kind for _, kind, _, _ in rows] == ["entered", "left"]


@pytest.mark.parametrize("feet", [(0, 60), (50, 100), (50, 99.7), (0.4, 100), (50, 0)])
def test_where_a_zone_ends_with_the_picture_its_border_is_inside(feet):
    assert [kind for _, kind, _, _ in events(path(1, (150, 60), (150, 60), feet))] == ["entered"]


def test_a_zone_that_is_the_whole_picture():
    whole = zone([[0, 0], [1, 0], [1, 1], [0, 1]])
    assert happened(scene(zones=[whole]), path(1, (0, 100), (200, 0))) == [(0, "entered", 1, 0)]


def test_a_picture_of_another_size_is_another_scene():
    stage = scene(zones=[zone(LEFT_HALF)])
    stage.process(result(0, {1: (50, 60)}))
    found = stage.process(result(1, {1: (50, 60)}, size=(400, 200))).happenings
    assert [h.kind for h in found] == ["left", "gone", "appeared", "entered"]


X = st.one_of(st.none(), st.integers(0, 200))  # None: it is not found in that frame
TRACKS = st.lists(
    st.tuples(X, st.booleans(), X, st.booleans()), min_size=1, max_size=40
)  # of two objects, and whether their tracks break there


@given(TRACKS)
def test_no_first_entry_into_a_zone_is_swallowed(rows):
    """Whoever is seen well inside has entered, under one of the ids that it ever had, and who has left
    has entered before: nobody leaves twice, and no more leave than entered."""
    stage, ids, fresh = scene(zones=[zone(LEFT_HALF)]), [1, 2], 3
    in_now, frames = set(), []
    for x1, breaks1, x2, breaks2 in rows:
        for k, breaks in enumerate((breaks1, breaks2)):
            if breaks:
                ids[k], fresh = fresh, fresh + 1
        frames.append({ids[k]: (x, 40 + 50 * k) for k, x in enumerate((x1, x2)) if x is not None})
    for n, feet in enumerate(joined(frames)):
        for one in stage.process(result(n, feet)).happenings:
            if one.kind == "entered":
                assert one.object not in in_now
                in_now.add(one.object)
            elif one.kind == "left":
                assert one.object in in_now
                in_now.discard(one.object)
        deep = sum(x < 99 for x, _ in feet.values())
        assert len(in_now) >= deep
    counts = stage.runtime.counts
    assert counts["left:door", "gate"] <= counts["entered:door", "gate"]
