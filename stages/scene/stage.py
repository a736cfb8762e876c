"""Scene: what tracked objects do in the zones and at the lines of their cameras."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pipeline.clock import ClockState, StreamClock
from pipeline.happenings import MAX_PER_RESULT, Happening
from pipeline.messages import FrameInfo, Result
from pipeline.stage import Stage
from stages.scene import memory
from stages.scene.check import check_line, check_zone
from stages.scene.objects import Objects
from stages.scene.places import Line, LineWatch, Seen, Zone, ZoneWatch
from stages.scene.watch import Camera, Watch

TRUE = "true_"  # counters of what objects did whose identity is known


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """Which places there are."""

    classes: tuple[str, ...]  # name of each label
    zones: tuple[dict[str, Any], ...] = ()  # fields of Zone
    lines: tuple[dict[str, Any], ...] = ()  # fields of Line
    run: str = "0"  # id of the run
    gone_s: float = 5.0  # who is not seen for longer is gone
    live: bool = True  # see StreamClock

    def places(self) -> tuple[list[Zone], list[Line]]:
        """As the configuration has them; JSON knows no tuples."""
        return [Zone(**_tuples(z)) for z in self.zones], [Line(**_tuples(z)) for z in self.lines]


class Scene(Stage):
    """Adds to each result what happened in it.

    Happenings that one message has no room for travel with the next results of the camera.
    """

    Config = SceneConfig
    config: SceneConfig

    def __init__(self, config: SceneConfig) -> None:
        super().__init__(config)
        self._zones, self._lines = config.places()
        self._cameras: dict[str, Camera] = {}

    @classmethod
    def check(cls, config: SceneConfig) -> None:
        """Raises ConfigError for a polygon, a line or a class that can't be."""
        zones, lines = config.places()
        for zone in zones:
            check_zone(zone, config.classes)
        for line in lines:
            check_line(line, config.classes)

    @classmethod
    def counters(cls, config: SceneConfig) -> tuple[str, ...]:
        """`crossed:<line>:<direction>:<class>`, `entered:<zone>`, `left:<zone>`, and the true ones."""
        zones, lines = config.places()
        crossed = [
            f"crossed:{line.name}:{direction}:{label}"
            for line in lines
            for direction in dict.fromkeys((line.to_right, line.to_left))
            for label in line.classes or config.classes
        ]
        of_zones = [f"{kind}:{zone.name}" for zone in zones for kind in ("entered", "left")]
        names = dict.fromkeys((*crossed, *of_zones))  # of several cameras one name may be used
        return (*names, *(f"{TRUE}{name}" for name in names if name.startswith("crossed")))

    def process(self, result: Result) -> Result:
        """The same result with what happened; under a millisecond for usual scenes."""
        info, camera = result.info, self._camera(result.info)
        t_ns = camera.clock.tick(info)
        for seen, place in camera.watch.update(result.detections, t_ns):
            camera.waiting.append(self._happening(seen, place, info.camera))
        if info.truth is not None:
            for seen, place in camera.truth.update(info.truth, t_ns):
                if seen.kind == "crossed":
                    self._count(TRUE, seen, place, info.camera)
        n = min(len(camera.waiting), MAX_PER_RESULT)
        return replace(result, happenings=tuple(camera.waiting.popleft() for _ in range(n)))

    def remove(self, camera: str) -> None:
        """Forget who was where."""
        self._cameras.pop(camera, None)

    def save(self, camera: str) -> bytes:
        """Who is where, and what had no room yet."""
        return memory.save(self._cameras[camera])

    def restore(self, camera: str, state: bytes) -> None:
        """Raises ValueError for a state of another version. Places may be others: see memory.restore."""
        facts = memory.facts_of(state)
        size = tuple(facts["size_wh_px"])
        one = self._new_camera(camera, size, ClockState(*facts["clock"]))
        memory.restore(one, facts)
        self._cameras[camera] = one

    def _happening(self, seen: Seen, place: str, camera: str) -> Happening:
        self._count("", seen, place, camera)
        by = seen.by
        return Happening(
            seen.kind, self.config.run,
            -1 if by is None else by.id,
            "" if by is None else self._name(by.label),
            0.0 if by is None else by.score,
            (0.0, 0.0, 0.0, 0.0) if by is None else tuple(by.xyxy.tolist()),
            place, seen.direction, seen.total, seen.seconds,
        )  # fmt: skip

    def _count(self, prefix: str, seen: Seen, place: str, camera: str) -> None:
        if seen.kind == "crossed" and seen.by is not None:
            label = self._name(seen.by.label)
            self.runtime.count(f"{prefix}crossed:{place}:{seen.direction}:{label}", camera)
        elif seen.kind in ("entered", "left"):
            self.runtime.count(f"{prefix}{seen.kind}:{place}", camera)

    def _name(self, label: int) -> str:
        classes = self.config.classes
        return classes[label] if 0 <= label < len(classes) else str(label)

    def _camera(self, info: FrameInfo) -> Camera:
        camera = self._cameras.get(info.camera)
        size = (info.width, info.height)
        if camera is None:
            camera = self._cameras[info.camera] = self._new_camera(info.camera, size, None)
        if camera.watch.size_wh_px != size:  # another picture: nobody is where it was
            for seen, place in camera.watch.end():
                camera.waiting.append(self._happening(seen, place, info.camera))
            camera.watch = self._watch(info.camera, size)
            camera.truth = self._watch(info.camera, size, sure=True)
        return camera

    def _new_camera(self, name: str, size: tuple[int, int], clock: ClockState | None) -> Camera:
        return Camera(
            clock=StreamClock(live=self.config.live, state=clock),
            watch=self._watch(name, size),
            truth=self._watch(name, size, sure=True),
        )

    def _watch(self, camera: str, size_wh_px: tuple[int, int], *, sure: bool = False) -> Watch:
        config = self.config

        def labels(classes: tuple[str, ...] | None) -> frozenset[int]:
            return frozenset(
                map(config.classes.index, config.classes if classes is None else classes)
            )

        return Watch(
            size_wh_px=size_wh_px,
            objects=Objects(config.gone_s, size_wh_px, sure=sure),
            zones=[
                ZoneWatch(zone, size_wh_px, labels(zone.classes))
                for zone in self._zones
                if zone.camera == camera
            ],
            lines=[
                LineWatch(line, size_wh_px, labels(line.classes))
                for line in self._lines
                if line.camera == camera
            ],
        )


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(part) for key, part in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
