"""Track: the boxes of a camera's frames become objects with ids and a steady class."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.clock import StreamClock
from pipeline.detections import Detections
from pipeline.errors import ConfigError
from pipeline.messages import FrameInfo, Result
from pipeline.stage import Stage
from stages.track.follower import Follower, FollowerConfig, LibraryFollower
from stages.track.objects import Objects
from stages.track.switches import Switches

TRACKS, SWITCHES = "tracks", "identity_switches"


@dataclass(frozen=True, kw_only=True)
class TrackConfig:
    """How objects are followed; see FollowerConfig."""

    type: Literal["bytetrack", "ocsort"] = "bytetrack"
    lost_s: float = 3.0
    confirm_frames: int | None = None
    new_score: float = 0.0
    live: bool = True  # see StreamClock


class Track(Stage):
    """Follows the objects of each camera; memory is bounded by what is in the pictures.

    Boxes that belong to no object (yet) stay, with the id -1. Ids are never used twice in a run, by any
    camera, also when this process was killed meanwhile. A frame that comes again changes nothing.
    """

    Config = TrackConfig
    config: TrackConfig

    def __init__(self, config: TrackConfig) -> None:
        super().__init__(config)
        self._cameras: dict[str, _Camera] = {}
        self._last_id = 0

    @classmethod
    def check(cls, config: TrackConfig) -> None:
        """Raises ConfigError if the library is not installed."""
        if importlib.util.find_spec("trackers") is None:
            raise ConfigError(
                "[track] needs the package trackers, which is not installed; "
                "pip install 'manyeyes[track]'"
            )

    @classmethod
    def counters(cls, config: TrackConfig) -> tuple[str, ...]:
        """Objects that got an id; where the truth travels along, how often one got another."""
        return (TRACKS, SWITCHES)

    def setup(self) -> None:
        """Load the library: about a second and 100 MB, once for all cameras."""
        self.check(self.config)
        import trackers  # noqa: F401 - loaded before the first result and not with it

        self._last_id = sum(self.runtime.counted(TRACKS, camera) for camera in self.runtime.cameras)

    def process(self, result: Result) -> Result:
        """The same result with track ids, and classes by vote; under a millisecond for usual scenes."""
        info, camera = result.info, self._camera(result.info)
        if info.frame_id <= camera.frame_id:
            same = camera.tracked if info.frame_id == camera.frame_id else None
            return result if same is None else replace(result, detections=same)
        t_ns = camera.clock.tick(info)
        ids = camera.follower.update(result.detections, t_ns)
        tracked = camera.objects.update(result.detections, ids, t_ns)
        if info.truth is not None:
            n = camera.switches.update(tracked, info.truth)
            self.runtime.count(SWITCHES, info.camera, n)
        camera.frame_id, camera.tracked = info.frame_id, tracked
        return replace(result, detections=tracked)

    def _camera(self, info: FrameInfo) -> _Camera:
        camera, size = self._cameras.get(info.camera), (info.width, info.height)
        if camera is None or camera.size_wh_px != size:  # another picture: positions mean nothing
            frame_id = -1 if camera is None else camera.frame_id
            camera = self._cameras[info.camera] = _Camera(
                size_wh_px=size,
                frame_id=frame_id,
                clock=StreamClock(live=self.config.live),
                follower=LibraryFollower(self._follower_config()),
                objects=Objects(self.config.lost_s, lambda: self._new_id(info.camera)),
                switches=Switches(),
            )
        return camera

    def _follower_config(self) -> FollowerConfig:
        config = self.config
        return FollowerConfig(
            type=config.type,
            lost_s=config.lost_s,
            confirm_frames=config.confirm_frames,
            new_score=config.new_score,
        )

    def _new_id(self, camera: str) -> int:
        # the counter comes first: it outlives this process, so that the next one goes on behind it
        self.runtime.count(TRACKS, camera)
        self._last_id += 1
        return self._last_id


@dataclass(slots=True, kw_only=True)
class _Camera:
    size_wh_px: tuple[int, int]
    frame_id: int  # of the last frame
    tracked: Detections | None = None  # what was found in it
    clock: StreamClock
    follower: Follower
    objects: Objects
    switches: Switches
