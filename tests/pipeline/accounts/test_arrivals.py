"""When the results of a camera count as missing."""

import pytest

from pipeline.accounts.arrivals import Arrivals
from pipeline.accounts.ledger import REASONS
from pipeline.accounts.tally import Totals


def totals(captured=0, delivered=0, **dropped):
    in_flight = captured - delivered - sum(dropped.values())
    reasons = {**dict.fromkeys(REASONS[1:], 0), **dropped}
    return Totals(
        captured=captured, delivered=delivered, dropped=reasons, in_flight=in_flight, error=0
    )


def missing_at(rows, until_s=100):
    """The seconds at which they are missing; rows: second → the account from then on."""
    arrivals, account, found = Arrivals(), totals(), []
    for second in range(until_s):
        account = rows.get(second, account)
        arrivals.update(float(second), account)
        if arrivals.missing(float(second)):
            found.append(second)
    return found


def test_nothing_has_come_yet():
    assert missing_at({}, 10) == list(range(10))
    assert missing_at({1: totals(captured=30)}, 10) == list(range(10))


def test_frames_go_on_and_results_do_not():
    rows = {s: totals(captured=s, delivered=min(s, 20)) for s in range(1, 40)}
    assert missing_at(rows, 40) == [0, *range(27, 40)]  # frame 21 has waited for more than 5 s


@pytest.mark.parametrize("period_s", [1, 7, 30])
def test_a_slow_camera_is_as_well_as_its_last_frame(period_s):
    rows = {s: totals(captured=s // period_s, delivered=s // period_s) for s in range(1, 100)}
    assert missing_at(rows) == list(range(period_s))


def test_a_model_that_serves_each_camera_every_20_seconds():
    rows = {
        s: totals(captured=s, delivered=s // 20, superseded=s - s // 20 - 1) for s in range(1, 200)
    }
    late = missing_at(rows, 200)
    assert late == [*range(20), *range(27, 40)]  # after the second result it is known to be so slow


def test_one_pause_does_not_make_the_next_one_right():
    served = [*range(1, 31), *[30] * 30, *range(31, 61), *[60] * 30]
    rows = {s: totals(captured=s, delivered=n) for s, n in enumerate(served, 1)}
    late = missing_at(rows, 120)
    assert late[0] == 0
    assert {37, 59} <= set(late)
    assert 65 not in late
    assert {97, 119} <= set(late)


@pytest.mark.parametrize("reason", ["unwanted", "filtered"])
def test_what_is_left_out_on_purpose_is_not_waited_for(reason):
    rows = {s: totals(captured=s, delivered=1, **{reason: s - 1}) for s in range(1, 50)}
    assert missing_at(rows, 50) == [0]
