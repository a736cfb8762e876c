"""The time of pictures: of capture where it is live, else the source's own; it never goes back."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipeline.clock import StreamClock
from pipeline.messages import FrameInfo

MS = 1_000_000


def info(t_ms, pts_ms=None, epoch=0):
    pts_ns = None if pts_ms is None else pts_ms * MS
    return FrameInfo("gate", 0, t_ms * MS, 0, 64, 64, stream_epoch=epoch, pts_ns=pts_ns)


def ticks_ms(clock, infos):
    times = [clock.tick(one) / MS for one in infos]
    return [after - before for before, after in pairwise(times)]


def test_live_pictures_were_taken_when_they_came():
    infos = [info(0, 0), info(30, 40), info(100, 80)]
    assert ticks_ms(StreamClock(live=True), infos) == [30, 70]


def test_a_file_that_is_read_faster_keeps_its_own_time():
    infos = [info(0, 500), info(2, 540), info(3, 620)]
    assert ticks_ms(StreamClock(live=False), infos) == [40, 80]


def test_a_source_without_a_clock_has_the_time_of_capture():
    assert ticks_ms(StreamClock(live=False), [info(0), info(25), info(60)]) == [25, 35]


def test_where_a_file_begins_again_its_time_goes_on():
    infos = [info(0, 9000), info(5, 9040), info(12, 0, epoch=1), info(14, 40, epoch=1)]
    assert ticks_ms(StreamClock(live=False), infos) == [40, 7, 40]


def test_a_long_pause_before_another_stream_is_a_second():
    infos = [info(0, 0), info(60_000, 0, epoch=1)]
    assert ticks_ms(StreamClock(live=False), infos) == [1000]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**6), st.none() | st.integers(-(10**6), 10**6), st.integers(0, 2)
        ),
        min_size=2,
    ),
    st.booleans(),
)
def test_it_never_goes_back_or_stands_still(rows, live):
    clock = StreamClock(live=live)
    times = [clock.tick(info(*row)) for row in rows]
    assert all(before < after for before, after in pairwise(times))
