"""When the pictures of a camera were taken, for who follows what happens in them."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.messages import FrameInfo

_BRIDGE_NS = 1_000_000_000  # the longest time that a jump of the source's clock counts for


class ClockState(NamedTuple):
    """All that a StreamClock knows; whole numbers of 64 bits."""

    last_ns: int = -1  # what it said last; -1: nothing yet
    offset_ns: int = 0  # from the source's clock to ours
    stream_epoch: int = 0  # of the last picture
    t_capture_ns: int = 0


class StreamClock:
    """The time of each picture of one camera, in ns; it never goes back or stands still. Pure.

    live: pictures come when they are taken, so it is the time of capture. Otherwise (a file that is
    read as fast as it is processed) it is the source's own clock, where it has one; where that jumps, at
    the end of a loop, the time of capture bridges the gap, for a second at most.
    """

    def __init__(self, *, live: bool, state: ClockState | None = None) -> None:
        """state: of one that goes on in this one."""
        self._live = live
        self.state = state or ClockState()

    def tick(self, info: FrameInfo) -> int:
        """The time of this picture in ns, which is a later one of the camera than that of the last call.

        Called once for each picture. Raises nothing.
        """
        last, offset_ns = self.state, self.state.offset_ns
        if self._live or info.pts_ns is None:
            now_ns = info.t_capture_ns
        else:
            if last.last_ns < 0 or last.stream_epoch != info.stream_epoch:
                offset_ns = self._begin_ns(info) - info.pts_ns
            now_ns = info.pts_ns + offset_ns
        now_ns = max(now_ns, last.last_ns + 1)
        self.state = ClockState(now_ns, offset_ns, info.stream_epoch, info.t_capture_ns)
        return now_ns

    def _begin_ns(self, info: FrameInfo) -> int:
        if self.state.last_ns < 0:
            return info.t_capture_ns
        gap_ns = info.t_capture_ns - self.state.t_capture_ns
        return self.state.last_ns + min(max(gap_ns, 1), _BRIDGE_NS)
