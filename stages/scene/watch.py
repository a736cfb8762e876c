"""What is watched of one camera: its objects, and all of its places. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from pipeline.clock import StreamClock
from pipeline.detections import Detections
from pipeline.happenings import Happening
from stages.scene.geometry import anchors
from stages.scene.objects import Object, Objects
from stages.scene.places import LineWatch, Seen, ZoneWatch


@dataclass(slots=True, kw_only=True)
class Watch:
    """All places of one camera, for pictures of one size."""

    size_wh_px: tuple[int, int]
    objects: Objects
    zones: list[ZoneWatch]
    lines: list[LineWatch]

    def update(self, tracked: Detections, t_ns: int) -> Iterator[tuple[Seen, str]]:
        """What happened, each with the name of the place; in order of cause."""
        if tracked.track_ids is None:
            return
        here, new, gone = self.objects.update(tracked, t_ns)
        yield from ((Seen("appeared", one), "") for one in new)
        boxes = tracked.xyxy[np.asarray(tracked.track_ids) >= 0]
        points = {anchor: anchors(boxes, anchor) for anchor in ("feet", "center")}
        for line in self.lines:
            at = points[line.line.anchor]
            yield from ((seen, line.line.name) for seen in line.update(here, at))
        for zone in self.zones:
            at = points[zone.zone.anchor]
            yield from ((seen, zone.zone.name) for seen in zone.update(here, at, t_ns))
        yield from self._leave(gone)

    def end(self) -> Iterator[tuple[Seen, str]]:
        """Everybody is gone."""
        return self._leave(self.objects.take_all())

    def _leave(self, gone: list[Object]) -> Iterator[tuple[Seen, str]]:
        for zone in self.zones:
            for one in gone:
                yield from ((seen, zone.zone.name) for seen in zone.gone(one))
            yield from ((seen, zone.zone.name) for seen in zone.crowd())
        for one in gone:
            yield Seen("gone", one, seconds=(one.seen_ns - one.first_ns) / 1e9), ""


@dataclass(slots=True, kw_only=True)
class Camera:
    """What is known of one camera."""

    clock: StreamClock
    watch: Watch
    truth: Watch  # the same with known identities, where a rendered scene tells them
    waiting: deque[Happening] = field(default_factory=deque)
