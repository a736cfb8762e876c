"""The index of fairness."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.rig.shares import jain


@pytest.mark.parametrize(
    ("rates", "index"),
    [([5.0], 1.0), ([2.0, 2.0, 2.0], 1.0), ([1.0, 0.0, 0.0, 0.0], 0.25), ([1.0, 2.0], 0.9)],
)
def test_jain(rates, index):
    assert jain(rates) == pytest.approx(index)


@given(
    st.lists(st.floats(0, 1e3, allow_subnormal=False), min_size=1, max_size=64).filter(any),
    st.floats(1, 1e3),
)
@example([4.1e-159, 4.1e-159], 1.0)  # whose squares have few digits left
def test_jain_is_between_one_over_n_and_one_and_knows_no_unit(rates, unit):
    assert 1 / len(rates) - 1e-9 <= jain(rates) <= 1 + 1e-9
    assert jain([unit * rate for rate in rates]) == pytest.approx(jain(rates))


@pytest.mark.parametrize("rates", [[], [0.0, 0.0]])
def test_where_nobody_is_served_there_is_no_fairness(rates):
    with pytest.raises(ValueError, match="at least one rate above 0"):
        jain(rates)
    assert jain(rates, nobody=0.0) == 0
    assert jain(rates, nobody=1.0) == 1
