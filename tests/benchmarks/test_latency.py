"""α and β out of batches; and what counts as the same detections."""

import numpy as np
import pytest

from benchmarks.latency import MIN_BATCHES, batches, between, fit
from benchmarks.rig.probes import ROW
from benchmarks.throughput import same


def test_batches_are_the_frames_that_went_into_the_engine_together():
    rows = np.zeros(6, ROW)
    rows["t_engine_ns"] = [100, 100, 500, 900, 900, 900]
    rows["t_out_ns"] = [400, 400, 600, 1400, 1400, 1400]
    sizes, seconds = batches([rows, rows[:2]])
    assert sizes.tolist() == [2, 1, 3, 2]
    np.testing.assert_allclose(seconds, np.array([300, 100, 500, 300]) / 1e9)
    np.testing.assert_allclose(between(rows, "t_engine_ns", "t_out_ns")[2], 1e-7)
    assert [len(a) for a in batches([rows[:0]])] == [0, 0]


@pytest.mark.parametrize("q", [0.5, 0.99])
def test_the_fit_finds_the_line_on_which_the_quantiles_lie(q):
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 5, 20_000)
    seconds = (4 + 3 * sizes) * rng.uniform(1, 2, len(sizes)) / 1e3
    alpha, beta = fit(sizes, seconds, q=q)
    assert alpha == pytest.approx(4e-3 * (1 + q), rel=0.05)
    assert beta == pytest.approx(3e-3 * (1 + q), rel=0.05)


def test_one_size_gives_no_slope_and_few_batches_give_nothing():
    seconds = np.linspace(1, 2, MIN_BATCHES)
    rare = np.append(np.full(MIN_BATCHES, 4), 1)
    assert fit(rare, np.append(seconds, 99), q=0.5) == (1.5, 0.0)
    with pytest.raises(ValueError, match="wanted 100 batches of one size, got 5"):
        fit(np.full(5, 1), np.ones(5))


def found(*rows):
    return {
        "labels": [label for label, _, _ in rows],
        "xyxy": [box for _, box, _ in rows],
        "scores": [score for _, _, score in rows],
    }


def test_detections_are_the_same_in_any_order_and_up_to_a_rounding():
    car, man = (2, [10.0, 20.0, 30.0, 40.0], 0.9), (0, [50.0, 20.0, 60.0, 40.0], 0.8)
    nearly = (2, [10.01, 20.0, 30.0, 39.99], 0.9001)
    assert same(found(car, man), found(man, nearly))
    assert same(found(), found())
    assert not same(found(car), found())
    assert not same(found(car), found((1, *car[1:])))
    assert not same(found(car), found((2, [10.0, 20.0, 31.0, 40.0], 0.9)))
    assert not same(found(car), found((2, car[1], 0.5)))
