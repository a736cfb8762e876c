import threading
import time

from benchmarks.rig.pulse import Pulse


def test_the_pulse_goes_on_until_the_end_and_leaves_no_thread():
    before = threading.active_count()
    with Pulse() as pulse:
        end = time.monotonic() + 10
        while len(pulse._took_ms) < 3:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert threading.active_count() == before
    assert 0.01 < pulse.core_ms <= pulse.slowest_ms < 100


def test_a_slow_second_is_seen_and_a_slow_moment_is_not():
    pulse = Pulse()
    pulse._took_ms = [1.0] * 300 + [2.0] * 4 + [1.0] * 300
    assert (pulse.core_ms, pulse.slowest_ms) == (1.0, 1.0)
    pulse._took_ms[100:110] = [1.5] * 10
    assert (pulse.core_ms, pulse.slowest_ms) == (1.0, 1.5)
