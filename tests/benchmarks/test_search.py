"""The search finds the border however it lies, confirms it, and says what stands behind it."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.tool.search import Trial, find, limiting

FINE = Trial(
    cameras=1, seconds=5, p50_ms=20, p99_ms=50, served=1.0, fps=5, cores=0.5,
    cpu_ms={"capture": 2.0, "inference": 18.0}, busy={"inference": 0.4},
)  # fmt: skip


def border(n, short_error=0):
    """A machine that takes n cameras, and about as many in a short trial."""
    asked = []

    def trial(cameras, seconds):
        asked.append((cameras, seconds))
        limit = n if seconds == 60 else n + short_error
        return replace(FINE, cameras=cameras, p99_ms=50 if cameras <= limit else 500)

    return trial, asked


@given(n=st.integers(0, 70), error=st.integers(-9, 9), most=st.integers(1, 64))
def test_the_border_is_found_and_both_sides_of_it_confirmed(n, error, most):
    trial, asked = border(n, error)
    found = find(trial, p99_ms=100, short_s=5, full_s=60, most=most)
    assert found.cameras == min(n, most)
    assert len(asked) == len(found.trials)
    # what passed over the whole time had to do so twice, and nothing else was asked again
    again = {one for one in asked if asked.count(one) > 1}
    assert all(asked.count(one) == 2 and one[0] <= n and one[1] == 60 for one in again)
    assert (found.cameras == 0) or (found.cameras, 60) in again
    assert all(1 <= cameras <= most for cameras, _ in asked)
    assert ((found.cameras, 60) in asked) == (found.cameras > 0)
    assert ((found.cameras + 1, 60) in asked) == (found.cameras < most)
    assert (found.confirmed is None) == (found.cameras == 0)
    assert (found.failed is None) == (found.cameras == most)


def test_a_good_guess_needs_few_trials():
    trial, asked = border(21)
    find(trial, p99_ms=100, short_s=5, full_s=60, most=256)
    assert [n for n, seconds in asked if seconds == 5] == [1, 2, 4, 8, 16, 32, 24, 20, 22, 21]
    assert [n for n, seconds in asked if seconds == 60] == [21, 21, 22]


@given(n=st.integers(8, 70), slow=st.lists(st.booleans(), min_size=40, max_size=40))
def test_what_fails_while_the_cores_are_slow_is_made_again(n, slow):
    at = {i for i, it_is in enumerate(slow) if it_is and i % 3 == 0 and i > 3}  # now and then
    asked = []

    def trial(cameras, seconds):
        is_slow = len(asked) in at
        asked.append((cameras, seconds))
        limit, core_ms = (n * 0.7, 1.2) if is_slow else (n, 1.0)
        p99_ms = 50 if cameras <= limit else 500
        return replace(FINE, cameras=cameras, core_ms=core_ms, p99_ms=p99_ms)

    found = find(trial, p99_ms=100, short_s=5, full_s=60, most=256)
    assert found.cameras == n
    assert len(found.trials) == len(asked)
    assert found.confirmed.passes(100)
    assert not found.failed.passes(100)


def test_a_host_that_stays_slow_gets_its_answer():
    asked = []

    def trial(cameras, seconds):
        asked.append(cameras)
        return replace(FINE, core_ms=1 + len(asked), p99_ms=500)  # slower and slower

    assert find(trial, p99_ms=100, short_s=5, full_s=60, most=256).cameras == 0
    assert asked == [1] * 4  # the first says what is usual; then a long one, and that twice again


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"p99_ms": 100.0}, ""),
        ({"p99_ms": 101.0}, "p99 101 ms"),
        ({"served": 0.98}, "98.0% served"),
        ({"p99_ms": 300.0, "served": 0.5}, "p99 300 ms, 50.0% served"),
        ({"p50_ms": math.nan, "p99_ms": math.nan, "served": 0.0}, "no frame was served"),
        ({"failure": "no memory"}, "no memory"),
    ],
)
def test_a_trial_passes_or_says_why_not(changes, why):
    trial = replace(FINE, **changes)
    assert trial.why(100) == why
    assert trial.passes(100) == (why == "")
    row = trial.to_json(100)
    assert (row["passed"], row["why"]) == (why == "", why)
    assert row["p99_ms"] is None or not math.isnan(row["p99_ms"])


@pytest.mark.parametrize(
    ("changes", "resource", "words"),
    [
        ({"cores": 1.9}, "host CPU", "1.9 of 2 cores are busy, and they work for inference 90%"),
        ({"cores": 1.2, "others": 0.7}, "host CPU", "other programs took 0.7"),
        ({"busy": {"preprocess": 0.99, "inference": 0.4}}, "preprocess", "[preprocess] workers"),
        ({"p99_ms": 300.0}, "latency", "p99 is 300 ms"),
        ({"served": 0.5}, "losses", "50.0% served"),
        ({"failure": "shared memory: wanted 9 GiB"}, "memory", "wanted 9 GiB"),
        ({"failure": "batcher died"}, "stability", "batcher died"),
    ],
)  # fmt: skip
def test_the_limiting_resource_is_named(changes, resource, words):
    name, sentence = limiting(replace(FINE, **changes), 2, 100)
    assert name == resource
    assert words in sentence
