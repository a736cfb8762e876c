"""Happenings on the wire and outside."""

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.happenings import KINDS, MAX_PER_RESULT, Happening, from_rows, to_json, to_rows

NUMBER = st.floats(allow_nan=False, allow_infinity=False, width=32)
HAPPENINGS = st.builds(
    Happening,
    kind=st.sampled_from(KINDS), run=st.text(max_size=8), object=st.integers(-1, 2**40),
    label=st.text(max_size=8), score=NUMBER, xyxy=st.tuples(*[NUMBER] * 4), place=st.text(max_size=8),
    direction=st.text(max_size=8), total=st.integers(0, 1000), seconds=NUMBER,
)  # fmt: skip
ONE = Happening("crossed", "5f3a", 7, "car", 0.66, (1.0, 2.0, 3.0, 4.0), "kerb", "in")


def as_lists(rows):
    return [list(row) for row in rows]


@given(st.lists(HAPPENINGS, max_size=3))
def test_what_is_sent_comes_back(happenings):
    assert from_rows(as_lists(to_rows(tuple(happenings)))) == tuple(happenings)


GARBAGE = st.recursive(
    st.none() | st.integers() | st.floats() | st.text() | st.binary(), st.lists, max_leaves=20
)


@given(GARBAGE)
def test_garbage_is_refused_in_order(garbage):
    with contextlib.suppress(ValueError, TypeError):
        assert all(isinstance(one, Happening) for one in from_rows(garbage))


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, len(KINDS)), (0, -1), (0, True), (4, math.nan), (5, math.inf), (2, "7")],
)
def test_one_wrong_field_is_refused(place, value):
    (row,) = as_lists(to_rows((ONE,)))
    row[place] = value
    with pytest.raises((ValueError, TypeError)):
        from_rows([row])


def test_more_than_a_message_has_room_for_are_refused():
    rows = as_lists(to_rows((ONE,) * MAX_PER_RESULT))
    assert len(from_rows(rows)) == MAX_PER_RESULT
    with pytest.raises(ValueError, match="no list"):
        from_rows([*rows, rows[0]])


def test_the_world_sees_what_the_kind_has_and_no_more():
    where = {"camera": "gate", "frame_id": 120, "time": "2026-11-22T10:00:00.123456Z"}
    assert json.loads(json.dumps(to_json(ONE, 0, **where))) == {
        "version": 1, "id": "5f3a-gate-120-0", "run": "5f3a", "kind": "crossed", **where,
        "object": 7, "label": "car", "score": 0.66, "xyxy": [1.0, 2.0, 3.0, 4.0],
        "place": "kerb", "direction": "in",
    }  # fmt: skip
    crowd = Happening("crowded", "5f3a", -1, "", 0.0, (0.0,) * 4, "door", total=3)
    assert to_json(crowd, 2, **where) == {
        "version": 1, "id": "5f3a-gate-120-2", "run": "5f3a", "kind": "crowded", **where,
        "place": "door", "count": 3,
    }  # fmt: skip
    gone = ONE._replace(kind="gone", place="", direction="", seconds=1.23456)
    assert to_json(gone, 0, **where)["seconds"] == 1.235
