"""When the pictures of a camera were taken, for who follows what happens in them."""

from __future__ import annotations

from pipeline.messages import FrameInfo

_BRIDGE_NS = 1_000_000_000  # the longest time that a jump of the source's clock counts for


class StreamClock:
    """The time of each picture of one camera, in ns; it never goes back or stands still. Pure.

    live: pictures come when they are taken, so it is the time of capture. Otherwise (a file that is
    read as fast as it is processed) it is the source's own clock, where it has one; where that jumps, at
    the end of a loop, the time of capture bridges the gap, for a second at most.
    """

    def __init__(self, *, live: bool) -> None:
        self._live = live
        self._last: FrameInfo | None = None
        self._last_ns = -1
        self._offset_ns = 0

    def tick(self, info: FrameInfo) -> int:
        """The time of this picture, which is a later one of the camera than that of the last call."""
        if self._live or info.pts_ns is None:
            now_ns = info.t_capture_ns
        else:
            if self._last is None or self._last.stream_epoch != info.stream_epoch:
                self._offset_ns = self._begin_ns(info) - info.pts_ns
            now_ns = info.pts_ns + self._offset_ns
        self._last, self._last_ns = info, max(now_ns, self._last_ns + 1)
        return self._last_ns

    def _begin_ns(self, info: FrameInfo) -> int:
        if self._last is None:
            return info.t_capture_ns
        gap_ns = info.t_capture_ns - self._last.t_capture_ns
        return self._last_ns + min(max(gap_ns, 1), _BRIDGE_NS)
