"""Health: looks at a picture of each camera now and then, and tells what happens to the camera itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.detections import Detections
from pipeline.errors import ConfigError
from pipeline.happenings import NO_FRAME, Happening, Kind
from pipeline.messages import Frame, FrameInfo, Result
from pipeline.stage import Stage
from stages.health.picture import Looks, sample

_NOWHERE = (0.0, 0.0, 0.0, 0.0)
_ASK_S = 0.5  # between two looks whether cameras are up


@dataclass(frozen=True, kw_only=True)
class HealthConfig:
    """When something is said."""

    run: str = "0"  # id of the run
    down_s: float = 3.0  # how long a camera has to be away, >= 0
    frozen_s: float = 10.0  # how long a picture may stay the same, > 0
    hold_s: float = 5.0  # how long it has to be dark, blinded or elsewhere, >= 0


class Health(Stage):
    """Takes about a picture a second of each camera, gives results of NO_FRAME. Knows no model.

    One that is killed forgets how the scene looked; that a camera is down it says once more.
    """

    Config = HealthConfig
    config: HealthConfig

    def __init__(self, config: HealthConfig) -> None:
        super().__init__(config)
        self._cameras: dict[str, _Camera] = {}
        self._ask_at = 0.0

    @classmethod
    def check(cls, config: HealthConfig) -> None:
        """Raises ConfigError for a time that can't be."""
        for name in ("down_s", "hold_s"):
            if getattr(config, name) < 0:
                raise ConfigError(f"[health] {name} must be >= 0, got {getattr(config, name)}")
        if not config.frozen_s > 0:
            raise ConfigError(f"[health] frozen_s must be > 0, got {config.frozen_s}")

    @classmethod
    def counters(cls, config: HealthConfig) -> tuple[str, ...]:
        """`health:<kind>` for each that was said."""
        return tuple(f"health:{kind}" for kind in ("down", "frozen", "dark", "blinded", "moved"))

    def process(self, frame: Frame) -> Result | None:
        """What is said after one more picture; under a millisecond."""
        info = frame.info
        camera = self._camera(info.camera)
        if camera.size_wh_px != (info.width, info.height):
            camera.size_wh_px = info.width, info.height
            camera.looks = self._new_looks()
        plane = frame.planes[0] if frame.format == "i420" else frame.pixels
        said = camera.looks.see(sample(plane), info.t_capture_ns)
        return self._result(info.camera, said) if said else None

    def remove(self, camera: str) -> None:
        """Forget how it looked."""
        self._cameras.pop(camera, None)

    def idle(self) -> Sequence[Result]:
        """Which cameras went or came back since the last time."""
        if (now_s := time.monotonic()) < self._ask_at:
            return ()
        self._ask_at = now_s + _ASK_S
        results = []
        for name in self.runtime.cameras:
            said = self._asked(name, now_s)
            if said is not None:
                results.append(self._result(name, [said]))
        return results

    def _asked(self, name: str, now_s: float) -> tuple[str, str, float] | None:
        camera, state = self._camera(name), self.runtime.camera(name)
        if state.is_up:
            was_said, camera.is_said, began_s = camera.is_said, False, camera.away_s
            camera.away_s = None
            if was_said and began_s is not None:
                camera.looks.forget()
                return "up", "", now_s - began_s
            return None
        if state.cause in ("", "paused") or camera.is_said:
            return None  # not opened yet, or nobody wants it
        camera.away_s = now_s if camera.away_s is None else camera.away_s
        if now_s - camera.away_s < self.config.down_s:
            return None
        camera.is_said = True
        return "down", state.cause, 0.0

    def _result(self, name: str, said: Sequence[tuple[str, str, float]]) -> Result:
        width, height = self._camera(name).size_wh_px
        happenings = []
        for kind, cause, seconds in said:
            if (counter := f"health:{kind}") in self.counters(self.config):
                self.runtime.count(counter, name)
            known: Kind = kind  # type: ignore[assignment]
            happenings.append(
                Happening(known, self.config.run, -1, "", 0.0, _NOWHERE, direction=cause, seconds=seconds)
            )  # fmt: skip
        info = FrameInfo(name, NO_FRAME, time.monotonic_ns(), time.time_ns(), width, height)
        return Result(info=info, detections=Detections.empty(), happenings=tuple(happenings))

    def _camera(self, name: str) -> _Camera:
        if name not in self._cameras:
            self._cameras[name] = _Camera(self._new_looks())
        return self._cameras[name]

    def _new_looks(self) -> Looks:
        return Looks(frozen_s=self.config.frozen_s, hold_s=self.config.hold_s)


@dataclass(slots=True)
class _Camera:
    looks: Looks
    size_wh_px: tuple[int, int] = (1, 1)
    away_s: float | None = None  # since when it is down
    is_said: bool = field(default=False)
