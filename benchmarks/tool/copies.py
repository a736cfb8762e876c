"""Any number of cameras from the few that somebody has: clips played round and round at a camera's rate.

    clips = clips_of(config)                    what the configuration's cameras show
    copied(config, clips, 12, folder)           twelve cameras: each clip in turn, each with its own phase
    paced(plan, clips)                          an edit for `Rig`: their sources become Paced ones

Scenes (synthetic://) become Replay cameras by themselves, in `Rig`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, EndOfStream, SourceError
from pipeline.plan.config import CameraConfig, Config, SinkConfig
from pipeline.plan.graph import Plan
from pipeline.plan.loading import build, load
from pipeline.plan.standard import SOURCE_FOR, source_of
from pipeline.stage import Picture, Source
from stages.capture import synthetic

MAX_LAG_S = 1.0  # behind by more than this, go on from here: a camera would not have waited
MAX_WAIT_S = 0.5  # longest time that one `read` waits
_SPREAD = 0.618034  # of phases: any number of cameras lies evenly over the period (golden ratio)
_LOOKED_AT = 20  # pictures of a clip, to know its rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """What one camera of the configuration shows."""

    camera: CameraConfig
    run: str  # its source
    config: dict[str, Any]
    width: int  # px
    height: int
    frame_bytes: int  # of one picture in its slot
    rate_hz: float

    @property
    def is_scene(self) -> bool:
        """Rendered, and replayed from memory."""
        return str(self.camera.source).startswith("synthetic://")


def is_live(source: str | int | None) -> bool:
    """A camera that sends by itself: neither a file nor a scene. None: one of somebody's own class."""
    if source is None:
        return True
    text = str(source)
    there = "://" in text or text.isdecimal() or text.startswith("/dev/")
    return there and not text.startswith("synthetic://")


def clips_of(config: Config, rate_hz: float | None = None) -> tuple[Clip, ...]:
    """Of every camera; a few pictures of each clip are read. rate_hz: of all; None: each its own.

    Raises ConfigError for a live camera, which can't be copied, and for a clip that can't be read.
    """
    return tuple(_clip(camera, rate_hz) for camera in config.camera)


def copied(config: Config, clips: Sequence[Clip], n: int, folder: Path) -> Config:
    """The configuration with n cameras, `newest`; what its sinks write goes into `folder`."""
    cameras = []
    for i in range(n):
        clip = clips[i % len(clips)]
        source = clip.camera.source
        if clip.is_scene:
            size = f"{clip.width}x{clip.height}"
            source = f"synthetic://?seed={i}&size={size}&rate={clip.rate_hz:g}"
        cameras.append(clip.camera.model_copy(update={"name": f"camera-{i + 1}", "source": source}))
    run = config.run.model_copy(update={"policy": "newest", "seconds": None, "directory": None})
    return config.model_copy(
        update={"camera": tuple(cameras), "run": run, "sink": harmless(config.sink, folder)}
    )


def harmless(sinks: Sequence[SinkConfig], folder: Path) -> tuple[SinkConfig, ...]:
    """The sinks that can run beside any other run: their files go into `folder`.

    Windows, and sinks of others, of which nobody knows whom they tell, are left out.
    """
    kept = []
    for sink in sinks:
        if sink.type in ("window", "custom"):
            continue
        options = dict(sink.options)
        if "path" in options:
            options["path"] = str(folder / f"{sink.name or sink.type}-{Path(options['path']).name}")
        kept.append(sink.model_copy(update={"options": options}))
    return tuple(kept)


def paced(plan: Plan, clips: Sequence[Clip]) -> Plan:
    """The plan of a `copied` configuration, its clips played at their rates."""
    processes = []
    for spec in plan.processes:
        if spec.role == "source":
            i = plan.cameras.index(spec.cameras[0])
            clip = clips[i % len(clips)]
            if not clip.is_scene:
                fields = {
                    "run": clip.run, "config": clip.config, "rate_hz": clip.rate_hz,
                    "phase": i * _SPREAD % 1,
                }  # fmt: skip
                spec = replace(spec, run=f"{__name__}:{Paced.__name__}", config=fields)  # noqa: PLW2901
        processes.append(spec)
    return replace(plan, processes=tuple(processes))


def _clip(camera: CameraConfig, rate_hz: float | None) -> Clip:
    text = str(camera.source)
    if text.startswith("synthetic://"):
        scene = synthetic.parse(text)
        run, config = load(SOURCE_FOR)(text)
        return Clip(
            camera=camera, run=run, config=config, width=scene.width, height=scene.height,
            frame_bytes=scene.width * scene.height * 3 // 2,  # as it is replayed
            rate_hz=rate_hz or scene.rate_hz,
        )  # fmt: skip
    if is_live(camera.source):
        raise ConfigError(
            f"camera {camera.name!r}: a live camera can't be copied; record a minute of it "
            "(`ffmpeg -i URL -t 60 -c copy clip.mp4`) and name the file in its place"
        )
    sized = {key: value for key, value in camera.options.items() if key == "max_size"}
    run, config = source_of(camera.model_copy(update={"options": sized}), "every")
    first, own_hz = _look_at(camera, run, config)
    pixels = first.width * first.height
    return Clip(
        camera=camera, run=run, config=config, width=first.width, height=first.height,
        frame_bytes=pixels * 3 // (2 if first.format == "i420" else 1), rate_hz=rate_hz or own_hz,
    )  # fmt: skip


def _look_at(camera: CameraConfig, run: str, config: dict[str, Any]) -> tuple[Picture, float]:
    """The first picture of a file, and pictures a second by its own clock."""
    source = build(run, config)
    type(source).check(source.config)
    buffer = np.empty(source.slot_bytes(source.config, 0), np.uint8)
    source.setup()
    pictures: list[Picture] = []
    try:
        source.open()
        while len(pictures) < _LOOKED_AT:
            if (picture := source.read(buffer)) is not None:
                pictures.append(picture)
    except EndOfStream:
        pass
    except SourceError as error:
        raise ConfigError(f"camera {camera.name!r}: {error}") from error
    finally:
        source.close()
    times_ns = [picture.pts_ns for picture in pictures if picture.pts_ns is not None]
    steps_ns = np.diff(times_ns) if len(times_ns) > 1 else np.array([0])
    step_ns = float(np.median(steps_ns))
    return pictures[0], 1e9 / step_ns if step_ns > 0 else 25.0


@dataclass(frozen=True, kw_only=True)
class PacedConfig:
    """A source that gives frames as fast as asked, and how fast to ask."""

    run: str
    config: dict[str, Any]
    rate_hz: float  # > 0
    phase: float = 0.0  # 0..1 of a period


class Paced(Source):
    """A clip as a camera would send it: in real time, for ever, whoever looks.

    Each frame is decoded when it is due, since a camera's frame cannot be decoded before it is sent.
    Who is more than MAX_LAG_S behind has lost the frames in between, as with a camera.
    """

    Config = PacedConfig
    config: PacedConfig

    def __init__(self, config: PacedConfig) -> None:
        super().__init__(config)
        self._source: Source = build(config.run, config.config)
        self.turn_s = self._source.turn_s
        self._due_s: float | None = None

    @classmethod
    def slot_bytes(cls, config: PacedConfig, frame_bytes: int) -> int:
        """As its source."""
        source = build(config.run, config.config)
        nbytes: int = source.slot_bytes(source.config, frame_bytes)
        return nbytes

    @classmethod
    def counters(cls, config: PacedConfig) -> tuple[str, ...]:
        """As its source."""
        source = build(config.run, config.config)
        names: tuple[str, ...] = source.counters(source.config)
        return names

    def setup(self) -> None:
        """Set the source up."""
        self._source.runtime = self.runtime
        self._source.setup()

    def open(self) -> None:
        """Begin the clip; the pace goes on from open to open."""
        self._source.open()

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def read(self, buffer: np.ndarray[Any, Any]) -> Picture | None:
        """The next frame, when it is due."""
        if not self._wait():
            return None
        try:
            return self._source.read(buffer)
        except EndOfStream:
            self._source.open()
            return self._source.read(buffer)

    def skip(self) -> bool:
        """Let one pass, when it is due."""
        if not self._wait():
            return False
        try:
            return self._source.skip()
        except EndOfStream:
            self._source.open()
            return self._source.skip()

    def _wait(self) -> bool:
        """Whether the next frame is due; waits for it, but not too long."""
        now_s, period_s = time.monotonic(), 1 / self.config.rate_hz
        if self._due_s is None:
            self._due_s = now_s + self.config.phase * period_s
        elif now_s - self._due_s > MAX_LAG_S:
            self._due_s = now_s
        wait_s = self._due_s - now_s
        time.sleep(min(max(0.0, wait_s), MAX_WAIT_S))
        if wait_s > MAX_WAIT_S:
            return False
        self._due_s += period_s
        return True
