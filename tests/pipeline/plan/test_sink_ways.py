"""A sink keeps its way of the ledger, whoever comes and goes beside it."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.accounts.layout import PATHS
from pipeline.plan.ways import ways_of

ROOM = 4
SINKS = st.lists(st.sampled_from("abcdefgh"), max_size=ROOM, unique=True)


@given(st.lists(SINKS, min_size=2, max_size=8))
def test_who_stays_keeps_his_way_and_nobody_shares_one(plans):
    ways, running = {}, []
    for sinks in plans:
        before, ways = ways, ways_of(sinks, ways, ROOM)
        assert all(ways[name] == before[name] for name in {*running} & {*sinks})
        assert len({*ways.values()}) == len(ways)
        assert {*ways.values()} <= {*range(len(PATHS), len(PATHS) + ROOM)}
        assert {*sinks} <= ways.keys()
        running = sinks


def test_who_is_new_gets_a_way_that_nobody_had_and_else_that_of_who_went_first():
    ways = ways_of("ab", {}, ROOM)
    assert ways == {"a": 2, "b": 3}
    ways = ways_of("c", ways, ROOM)
    assert ways == {"a": 2, "b": 3, "c": 4}
    ways = ways_of("cde", ways, ROOM)
    assert ways == {"b": 3, "c": 4, "d": 5, "e": 2}
    assert ways_of("bcde", ways, ROOM) == ways
    # for more than there is room the plan is refused, and nobody loses his
    assert ways_of("bcdef", ways, ROOM) == {**ways, "f": 6}
