"""The slope, and what becomes of the costs of runs."""

import pytest

from benchmarks.fairness import COST_COUNTS, linear, slope


def test_slope():
    assert slope([1, 2, 4], [13.0, 16.0, 22.0]) == pytest.approx(3.0)
    assert slope([1, 64], [7.0, 7.0]) == 0.0


def test_what_grows_with_the_square_of_the_cameras_is_not_linear():
    costs = {n: [0.1 + 0.01 * n + 1e-4 * n**2] * 5 for n in COST_COUNTS}
    each, late = linear("CPU", costs, "cores", 1.0)
    assert each.verdict == "met"  # an added camera is cheaper than a run: it hides the square
    assert late.verdict == "missed"


def test_what_is_linear_is_met_and_says_the_costs():
    costs = {n: [0.1 + 0.02 * n] * 5 for n in COST_COUNTS}
    each, late = linear("CPU", costs, "% of a core", 100.0)
    assert (each.value, late.value) == (pytest.approx(0.02 / 0.12), pytest.approx(1.0))
    assert each.detail == "2 : 12 % of a core"
    assert {each.verdict, late.verdict} == {"met"}
