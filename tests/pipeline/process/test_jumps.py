"""When the clock of a camera is taken for another one."""

import pytest

from pipeline.process.source import jumps

LAST_S = 100, 5000


@pytest.mark.parametrize(
    ("passed_s", "passed_here_s", "newest", "every"),
    [
        (0.1, 0.1, False, False),
        (10, 10, False, False),  # it sends that seldom
        (0.1, 3, True, False),  # late: of a camera that is not waited for something is missing
        (3600, 0.1, True, True),
        (-3600, 0.1, True, True),
        (-2, 3, True, True),
    ],
)
def test_only_a_clock_that_jumps_is_another_one(passed_s, passed_here_s, newest, every):
    """A camera that had to wait, since the cores were busy, shows the same scene as before."""
    last = tuple(round(s * 1e9) for s in LAST_S)
    now = tuple(
        round((a + b) * 1e9) for a, b in zip(LAST_S, (passed_s, passed_here_s), strict=True)
    )
    assert jumps(last, now, waits=False) == newest
    assert jumps(last, now, waits=True) == every
