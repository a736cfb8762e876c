"""How long a camera may be silent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stages.capture.patience import FIRST_S, LONGEST_S, Patience


@given(st.floats(0.001, 10.0), st.integers(1, 3))
def test_a_camera_that_keeps_its_rate_is_lost_at_most_three_times(gap_s, burst):
    patience, losses = Patience(), 0
    for turn in range(60):
        if gap_s > patience.seconds:
            losses += 1
            patience.lost()
        else:
            patience.picture(gap_s if turn % burst == 0 else 0.0)
    assert losses <= 3
    assert FIRST_S <= patience.seconds <= LONGEST_S


def test_a_camera_that_hung_once_is_noticed_as_quickly_again():
    patience = Patience()
    for _ in range(3):
        patience.lost()
    assert patience.seconds == 8 * FIRST_S
    for _ in range(20):
        patience.picture(0.04)
    assert patience.seconds == FIRST_S


def test_what_somebody_has_set_stays():
    patience = Patience(0.5)
    patience.lost()
    patience.picture(10.0)
    assert patience.seconds == 0.5
