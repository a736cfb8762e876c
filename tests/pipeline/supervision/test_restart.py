from pipeline.supervision.restart import MAX_DELAY_S, Restarts


def test_one_that_worked_comes_back_at_once():
    restarts = Restarts()
    assert [restarts.delay_s(t, worked=True) for t in range(3)] == [0, 0, 0]
    assert not restarts.breaker_open
    assert restarts.count == 3


def test_one_that_keeps_dying_soon_after_its_start_waits_longer_each_time():
    restarts = Restarts()
    delays = [restarts.delay_s(float(t), worked=True, lived_s=1.0) for t in range(23)]
    assert delays[:20] == [0] * 20
    for delay, base in zip(delays[20:], (0.25, 0.5, 1.0), strict=True):
        assert 0.75 * base <= delay <= 1.25 * base
    assert not restarts.breaker_open
    assert restarts.delay_s(60.0, worked=True, lived_s=50.0) == 0
    assert restarts.delay_s(61.0, worked=True, lived_s=1.0) == 0


def test_one_that_never_works_waits_longer_each_time_until_the_breaker_opens():
    restarts = Restarts()
    delays = [restarts.delay_s(float(t), worked=False) for t in range(4)]
    for delay, base in zip(delays, (0.25, 0.5, 1.0, 2.0), strict=True):
        assert 0.75 * base <= delay <= 1.25 * base
    assert not restarts.breaker_open
    assert restarts.delay_s(4.0, worked=False) >= 0.75 * MAX_DELAY_S
    assert restarts.breaker_open


def test_a_death_before_the_first_frame_after_many_short_lives_waits_as_a_first_one():
    restarts = Restarts()
    for t in range(15):
        assert restarts.delay_s(float(t), worked=True, lived_s=1.0) == 0
    assert restarts.delay_s(15.0, worked=False) < 0.32


def test_five_failures_spread_over_hours_do_not_open_it():
    restarts = Restarts()
    for hour in range(8):
        restarts.delay_s(hour * 3600.0, worked=False)
    assert not restarts.breaker_open


def test_work_closes_the_breaker():
    restarts = Restarts()
    for t in range(5):
        restarts.delay_s(float(t), worked=False)
    restarts.delay_s(5.0, worked=True)
    assert not restarts.breaker_open
