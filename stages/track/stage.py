"""Track: the boxes of a camera's frames become objects with ids and a steady class."""

from __future__ import annotations

import importlib.util
import struct
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.clock import ClockState, StreamClock
from pipeline.errors import ConfigError
from pipeline.messages import FrameInfo, Result
from pipeline.stage import Stage
from stages.track.follower import Follower, FollowerConfig, LibraryFollower
from stages.track.objects import Objects
from stages.track.switches import Switches

_VERSION = 5
_HEAD = struct.Struct("<III4q")  # version, width, height, the clock

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
    camera, also when this process was killed meanwhile.
    """

    Config = TrackConfig
    config: TrackConfig

    def __init__(self, config: TrackConfig) -> None:
        super().__init__(config)
        self._cameras: dict[str, _Camera] = {}
        self._last_id: int | None = None  # before the first one

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

    @classmethod
    def memory_bytes(cls, config: TrackConfig) -> int:
        """Mostly the library and what it brings; measured."""
        return 140 << 20

    def setup(self) -> None:
        """Load the library: about a second and 100 MB, once for all cameras."""
        self.check(self.config)
        import trackers  # noqa: F401 - loaded before the first result and not with it

    def process(self, result: Result) -> Result:
        """The same result with track ids, and classes by vote; under a millisecond for usual scenes."""
        info, camera = result.info, self._camera(result.info)
        t_ns = camera.clock.tick(info)
        ids = camera.follower.update(result.detections, t_ns)
        tracked = camera.objects.update(result.detections, ids, t_ns)
        if info.truth is not None:
            n = camera.switches.update(tracked, info.truth)
            self.runtime.count(SWITCHES, info.camera, n)
        return replace(result, detections=tracked)

    def remove(self, camera: str) -> None:
        """Forget its objects; their ids are not used again."""
        self._cameras.pop(camera, None)

    def save(self, camera: str) -> bytes:
        """Of ByteTrack everything; of OC-SORT the objects, to be met again where they would be by then."""
        one = self._cameras[camera]
        head = _HEAD.pack(_VERSION, *one.size_wh_px, *one.clock.state)
        return b"".join((head, one.objects.save(), one.follower.save()))

    def restore(self, camera: str, state: bytes) -> None:
        """Raises ValueError for a state of another version."""
        try:
            version, width, height, *clock = _HEAD.unpack_from(state)
        except struct.error as error:
            raise ValueError(str(error)) from error
        if version != _VERSION:
            raise ValueError(f"of version {version}, this one knows {_VERSION}")
        one = self._new_camera(camera, (width, height), ClockState(*clock))
        rest = state[_HEAD.size :]
        follower = rest[one.objects.restore(rest, lost=not one.follower.remembers) :]
        if one.follower.remembers:
            one.follower.restore(follower)
        self._cameras[camera] = one

    def _camera(self, info: FrameInfo) -> _Camera:
        camera, size = self._cameras.get(info.camera), (info.width, info.height)
        if camera is None or camera.size_wh_px != size:  # another picture: positions mean nothing
            camera = self._new_camera(info.camera, size, camera.clock.state if camera else None)
            self._cameras[info.camera] = camera
        return camera

    def _new_camera(self, name: str, size: tuple[int, int], clock: ClockState | None) -> _Camera:
        objects = Objects(self.config.lost_s, size, lambda: self._new_id(name))
        return _Camera(
            size_wh_px=size,
            clock=StreamClock(live=self.config.live, state=clock),
            follower=LibraryFollower(self._follower_config(), objects.known),
            objects=objects,
            switches=Switches(),
        )

    def _follower_config(self) -> FollowerConfig:
        config = self.config
        return FollowerConfig(
            type=config.type,
            lost_s=config.lost_s,
            confirm_frames=config.confirm_frames,
            new_score=config.new_score,
        )

    def _new_id(self, camera: str) -> int:
        # the counters outlive this process, so that the next one goes on behind it
        if self._last_id is None:
            self._last_id = self.runtime.counted_in_all(TRACKS)
        self.runtime.count(TRACKS, camera)
        self._last_id += 1
        return self._last_id


@dataclass(slots=True, kw_only=True)
class _Camera:
    size_wh_px: tuple[int, int]
    clock: StreamClock
    follower: Follower
    objects: Objects
    switches: Switches
