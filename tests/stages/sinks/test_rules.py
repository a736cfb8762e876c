"""Rules: what they want, and that nobody's first entry is ever swallowed."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.sinks.alarms.rules import Rule, judge, sentence, to_json
from stages.sinks.alarms.schedule import parse

SECOND = 10**9


def rule(**fields):
    return Rule(**{"name": "r", "kinds": ("entered",), "to": ("ops",), **fields})


def happening(kind="entered", track=7, **fields):
    one = {
        "id": "5f3a-gate-1-0", "run": "5f3a", "kind": kind, "camera": "gate", "object": track,
        "label": "person", "score": 0.7, "place": "yard",
    }  # fmt: skip
    return one | fields


@pytest.mark.parametrize(
    ("fields", "changes", "wanted"),
    [
        ({}, {}, True),
        ({}, {"kind": "left"}, False),
        ({"cameras": ("yard",)}, {}, False),
        ({"cameras": ("yard", "gate")}, {}, True),
        ({"zones": ("door",)}, {}, False),
        ({"zones": ("door", "yard")}, {}, True),
        ({"classes": ("car",)}, {}, False),
        ({"min_score": 0.71}, {}, False),
        ({"min_score": 0.7}, {}, True),
        (
            {"kinds": ("crossed",), "lines": ("kerb",)},
            {"kind": "crossed", "direction": "in"},
            False,
        ),
        ({"kinds": ("crossed",)}, {"kind": "crossed", "direction": "in"}, True),
        (
            {"kinds": ("crossed",), "directions": ("out",)},
            {"kind": "crossed", "direction": "in"},
            False,
        ),
    ],
)
def test_what_a_rule_wants(fields, changes, wanted):
    assert rule(**fields).wants(happening(**changes)) == wanted


def test_nobody_alone_has_no_class():
    crowded = {
        "id": "x",
        "run": "5f3a",
        "kind": "crowded",
        "camera": "gate",
        "place": "yard",
        "count": 4,
    }
    assert rule(kinds=("crowded",)).wants(crowded)
    assert rule(kinds=("crowded",), above=3).wants(crowded)
    assert not rule(kinds=("crowded",), above=4).wants(crowded)


def verdicts(rules, happenings):
    return [verdict for _, _, verdict in judge(rules, happenings, {})]


def test_the_same_thing_by_the_same_object_cools_down():
    at = lambda s, **fields: (happening(**fields), s * SECOND)  # noqa: E731
    told = verdicts(
        [rule(cooldown_s=10)],
        [at(0), at(9), at(10), at(11, track=8), at(12, place="door"), at(13, camera="back")],
    )
    assert told == ["alarm", "cool-down", "alarm", "alarm", "alarm", "alarm"]


def test_a_clock_that_was_set_back_swallows_nothing():
    assert verdicts([rule()], [(happening(), 9 * SECOND), (happening(), SECOND)]) == ["alarm"] * 2


def test_disarmed_and_not_now():
    night = parse(["22:00-06:00"], "UTC")
    noon = [(happening(), 12 * 3600 * SECOND)]
    assert verdicts([rule(armed=False), rule(schedule=night)], noon) == ["disarmed", "not now"]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 30),  # seconds since the last
            st.sampled_from(["gate", "back"]),
            st.integers(0, 3),  # object
            st.sampled_from(["yard", "door"]),
            st.sampled_from(["entered", "loitering", "left"]),
        ),
        max_size=60,
    ),
    st.floats(0, 1000),
)
def test_no_first_entry_is_ever_swallowed(steps, cooldown_s):
    """Whoever enters a zone for the first time is told of, whatever anybody has done before."""
    one = rule(kinds=("entered", "loitering", "left"), cooldown_s=cooldown_s)
    t_ns, happenings = 0, []
    for seconds, camera, track, place, kind in steps:
        t_ns += seconds * SECOND
        happenings.append((happening(kind, track, camera=camera, place=place), t_ns))
    seen = Counter()
    last_ns = {}
    for (document, _), (_, _, verdict) in zip(
        happenings, judge([one], happenings, last_ns), strict=True
    ):
        key = tuple(document[k] for k in ("camera", "object", "place", "kind"))
        seen[key] += 1
        assert verdict == "alarm" or seen[key] > 1
    assert len(last_ns) == len(seen)


def test_an_alarm_as_its_targets_get_it():
    document = to_json(rule(name="night"), happening(id="5f3a-gate-1-0"))
    assert document["id"] == "5f3a-gate-1-0:night"
    assert document["text"] == "gate: person entered yard"
    assert document["happening"]["object"] == 7


@pytest.mark.parametrize(
    ("one", "text"),
    [
        ({"kind": "crowded", "place": "yard", "count": 4}, "gate: crowded yard (4)"),
        ({"kind": "loitering", "label": "dog", "place": "yard", "seconds": 31.2},
         "gate: dog loitering yard (31 s)"),
        ({"kind": "appeared", "label": "car"}, "gate: car appeared"),
    ],
)  # fmt: skip
def test_sentences(one, text):
    assert sentence({"camera": "gate", **one}) == text
