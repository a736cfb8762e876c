"""The slope over several lives of a process."""

import numpy as np
import pytest

from benchmarks.soak import Soak


def lived(soak, pid, level, slope_a_second, looks=300, descriptors=lambda second: 10):
    noise = np.random.default_rng(pid).normal(0, 1, looks)
    for second in range(looks):
        value = int(level + slope_a_second * second + noise[second])
        soak.lives["sink", pid].extend((float(second), value, descriptors(second), 2))


@pytest.mark.parametrize("slope_a_second", [0.0, 50.0])
def test_lives_on_different_levels_tell_one_slope(slope_a_second):
    soak = Soak(20, 1)
    for pid, level in enumerate((1e6, 2e6, 5e6)):
        lived(soak, pid, level, slope_a_second)
    ((name, slope, error, windows),) = soak.slopes("memory")
    assert (name, windows) == ("sink", 3 * 9)
    assert abs(slope - slope_a_second * 3600) <= max(4 * error, 1.0)
    assert [row[1:3] for row in soak.slopes("threads")] == [(0.0, 0.0)]


def test_a_short_life_is_not_counted():
    soak = Soak(20, 1)
    lived(soak, 1, 1e6, 0.0, looks=40)
    assert soak.slopes("memory") == []


def test_what_comes_and_goes_with_each_kill_is_no_growth():
    soak = Soak(20, 1)
    for pid in (1, 2):
        lived(soak, pid, 1e6, 0.0, descriptors=lambda second: {0: 8, 1: 13}.get(second % 20, 10))
    ((_, slope, error, _),) = soak.slopes("descriptors")
    assert (slope, error) == (0.0, 0.0)


def test_a_descriptor_that_is_left_behind_at_each_kill_is_found():
    soak = Soak(20, 1)
    for pid in (1, 2):
        lived(soak, pid, 1e6, 0.0, descriptors=lambda second: 10 + second // 20)
    ((_, slope, error, _),) = soak.slopes("descriptors")
    assert slope - 2 * error > 100  # of 180 an hour
