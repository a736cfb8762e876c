from hypothesis import given
from hypothesis import strategies as st

from pipeline.supervision.settling import Settling


def test_a_dead_process_is_settled_by_the_last_of_its_readers():
    settling = Settling()
    settling.begin(7, ["inference.0", "inference.1"])
    assert settling.said("inference.0", 7) == []
    assert settling.said("inference.0", 7) == []
    assert settling.said("inference.1", 7) == [7]
    assert settling.said("inference.1", 7) == []


def test_a_reader_that_dies_holds_nothing_of_anybody():
    settling = Settling()
    settling.begin(7, ["inference.0"])
    settling.begin(8, ["inference.0", "inference.1"])
    settling.begin(9, ["inference.0"])
    assert settling.died("inference.0") == [7, 9]
    assert settling.died("inference.0") == []
    assert settling.died("inference.1") == [8]


def test_what_nobody_asked_for_settles_nothing():
    settling = Settling()
    assert settling.said("inference.0", 7) == []
    assert settling.died("inference.0") == []


@given(st.permutations([("said", r, d) for r in "ab" for d in (1, 2)] + [("died", "c", 0)]))
def test_each_is_settled_exactly_once_whatever_the_order(news):
    settling = Settling()
    settling.begin(1, "abc")
    settling.begin(2, "abc")
    settled = []
    for what, reader, dead in news:
        settled += settling.said(reader, dead) if what == "said" else settling.died(reader)
    assert sorted(settled) == [1, 2]
