"""A synthetic camera: seeded moving scenes that are sent with their truth, `synthetic://`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError, EndOfStream, FrameError
from pipeline.messages import MAX_SIDE_PX
from pipeline.redaction import shown
from pipeline.stage import Picture, Source

MAX_LAG_S = 1.0  # behind by more than this, go on from here instead of catching up in a burst
MAX_WAIT_S = 1.0  # longest time that one `read` waits


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Which scene; everything is in the URL."""

    url: str = "synthetic://"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a `synthetic://` URL says."""

    seed: int = 0
    width: int = 640  # px, 16 and more
    height: int = 360
    rate_hz: float = 15.0
    objects: int = 6  # that pass at a time, 0..100
    frames: int | None = None  # the source ends after so many; None: never
    realtime: bool = True  # False: as fast as asked


def parse(url: str) -> Settings:
    """The settings in a URL; what it leaves out keeps its default.

    Raises ConfigError for an unknown key or a value out of range.

    >>> parse("synthetic://?seed=1&size=320x180&rate=30&objects=4&frames=100&realtime=false")
    ... # doctest: +NORMALIZE_WHITESPACE
    Settings(seed=1, width=320, height=180, rate_hz=30.0, objects=4, frames=100, realtime=False)
    """
    try:
        parts = urlsplit(url)
        fits = parts.scheme == "synthetic" and not (parts.path.strip("/") or parts.netloc)
    except ValueError:  # half an IPv6 address
        fits = False
    if not fits:
        raise ConfigError(
            f"source {shown(url)}: wanted synthetic://?key=value&…, such as {EXAMPLE}"
        )
    settings: dict[str, Any] = {}
    for key, text in parse_qsl(parts.query, keep_blank_values=True):
        if key not in _KEYS:
            raise ConfigError(
                f"source {shown(url)}: unknown key {key!r}; it knows {', '.join(_KEYS)}"
            )
        wanted, read = _KEYS[key]
        try:
            settings |= read(text)
        except ValueError:
            raise ConfigError(
                f"source {shown(url)}: {key} must be {wanted}, got {text!r}"
            ) from None
    return Settings(**settings)


EXAMPLE = "synthetic://?seed=1&size=640x360&rate=15&objects=6&frames=100&realtime=true"


def _within(value: float, low: float, high: float) -> Any:
    if not low <= value <= high:
        raise ValueError
    return value


def _size(text: str) -> dict[str, Any]:
    width, height = (_within(int(side), 16, MAX_SIDE_PX) for side in text.split("x"))
    return {"width": width, "height": height}


def _realtime(text: str) -> dict[str, Any]:
    if text not in ("true", "false"):
        raise ValueError
    return {"realtime": text == "true"}


_KEYS: dict[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "seed": ("a whole number", lambda text: {"seed": int(text)}),
    "size": (f"WIDTHxHEIGHT, each 16..{MAX_SIDE_PX} px", _size),
    "rate": ("within 0.1..1000 Hz", lambda text: {"rate_hz": _within(float(text), 0.1, 1000)}),
    "objects": ("within 0..100", lambda text: {"objects": _within(int(text), 0, 100)}),
    "frames": ("1 or more", lambda text: {"frames": _within(int(text), 1, 10**12)}),
    "realtime": ("true or false", _realtime),
}


class Synthetic(Source):
    """Frame k of the scene is the same in every run, whoever skipped the ones before it.

    Drawn as bgr24 straight into the slot. Paced on the monotonic clock from one anchor, so that late
    sleeps never add up.
    """

    Config = SyntheticConfig
    config: SyntheticConfig

    def __init__(self, config: SyntheticConfig) -> None:
        super().__init__(config)
        self.settings = parse(config.url)
        self._index = self._first = 0
        self._anchor_s: float | None = None

    @classmethod
    def check(cls, config: SyntheticConfig) -> None:
        """Raises ConfigError if the URL is not valid."""
        parse(config.url)

    @classmethod
    def memory_bytes(cls, config: SyntheticConfig) -> int:
        """Measured: 38 MiB, with its scene."""
        return 38 << 20

    @classmethod
    def slot_bytes(cls, config: SyntheticConfig, frame_bytes: int) -> int:
        """One bgr24 picture."""
        settings = parse(config.url)
        return settings.width * settings.height * 3

    def setup(self) -> None:
        """Draw the background."""
        from stages.imaging.scenes import Scene

        settings = self.settings
        self._scene = Scene(settings.seed, (settings.width, settings.height), settings.objects)

    def resume(self, frames: int) -> None:
        """Go on at this frame of the scene."""
        self._first = frames

    def open(self) -> None:
        """Begin at frame 0, or where it was before."""
        self._index, self._anchor_s = self._first, None

    def read(self, buffer: npt.NDArray[np.uint8]) -> Picture | None:
        """The next frame as bgr24, with its truth; None if it is due more than a second from now."""
        settings = self.settings
        if not self._wait():
            return None
        n_bytes = settings.width * settings.height * 3
        if buffer.size < n_bytes:
            raise FrameError(f"synthetic: wanted a slot of {n_bytes} bytes, got {buffer.size}")
        image = buffer.reshape(-1)[:n_bytes].reshape(settings.height, settings.width, 3)
        t_s = self._index / settings.rate_hz
        _, truth = self._scene.render(t_s, image)
        self._index += 1
        return Picture(
            width=settings.width, height=settings.height, format="bgr24",
            pts_ns=round(t_s * 1e9), recorded=not settings.realtime, keyframe=True, truth=truth,
        )  # fmt: skip

    def skip(self) -> bool:
        """Let one frame pass when it is due; nothing is drawn."""
        passed = self._wait()
        self._index += passed
        return passed

    def _wait(self) -> bool:
        """Whether the next frame is due; waits for it, but not too long."""
        settings = self.settings
        if settings.frames is not None and self._index >= settings.frames:
            raise EndOfStream(f"synthetic: all {settings.frames} frames were delivered")
        if not settings.realtime:
            return True
        now_s, offset_s = time.monotonic(), self._index / settings.rate_hz
        if self._anchor_s is None or now_s - self._anchor_s - offset_s > MAX_LAG_S:
            self._anchor_s = now_s - offset_s
        wait_s = self._anchor_s + offset_s - now_s
        time.sleep(min(max(wait_s, 0.0), MAX_WAIT_S))
        return wait_s <= MAX_WAIT_S
