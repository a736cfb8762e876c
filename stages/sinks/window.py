"""Window: all cameras as tiles of one live window; q or Esc ends the run."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.messages import Frame
from pipeline.stage import Sink

_NO_DISPLAY = (
    "sink window: there is no display to open a window on; "
    "start in a graphical session, set DISPLAY, or leave the window out"
)
_QUIT_KEYS = (ord("q"), ord("Q"), 27)  # 27: Esc


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """How large and how often."""

    title: str = "manyeyes"
    width: int = 1280  # px of the picture in the window, 64..8192
    height: int = 720
    max_hz: float = 15.0  # pictures a second and camera, 1..60


def tiles(n: int, size_wh_px: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """Where n pictures go in a window: (x1, y1, x2, y2) in px each, in rows, without overlap.

    >>> tiles(3, (100, 60))
    [(0, 0, 50, 30), (50, 0, 100, 30), (0, 30, 50, 60)]
    """
    width, height = size_wh_px
    columns = max(1, math.ceil(math.sqrt(n)))
    rows = max(1, math.ceil(n / columns))
    xs = [width * i // columns for i in range(columns + 1)]
    ys = [height * i // rows for i in range(rows + 1)]
    cells = [(xs[i], ys[j], xs[i + 1], ys[j + 1]) for j in range(rows) for i in range(columns)]
    return cells[:n]


class Wall:
    """The picture in the window: the newest frame of each camera, letterboxed into its tile."""

    def __init__(self, cameras: Sequence[str], size_wh_px: tuple[int, int]) -> None:
        import numpy as np

        width, height = size_wh_px
        self.image = np.zeros((height, width, 3), np.uint8)  # BGR
        self._tiles = dict(zip(cameras, tiles(len(cameras), size_wh_px), strict=True))

    def put(self, frame: Frame) -> bool:
        """Show a frame; False if its camera has no tile."""
        from stages.detector.bundle import InputFacts, ResizeFacts
        from stages.imaging.letterbox import prepare

        if frame.info.camera not in self._tiles:
            return False
        x1, y1, x2, y2 = self._tiles[frame.info.camera]
        tile = InputFacts(width=x2 - x1, height=y2 - y1, color="bgr")
        prepare(frame.image, tile, ResizeFacts(pad=24), self.image[y1:y2, x1:x2])
        return True


class Window(Sink):
    """Shows what render has drawn."""

    Config = WindowConfig
    config: WindowConfig

    def __init__(self, config: WindowConfig) -> None:
        super().__init__(config)
        self.max_hz = config.max_hz
        self._changed = False

    @classmethod
    def check(cls, config: WindowConfig) -> None:
        """Raises ConfigError if a number is out of range or there is no display."""
        if not (64 <= config.width <= 8192 and 64 <= config.height <= 8192):
            raise ConfigError(
                "sink window: width and height must be within 64..8192 px, "
                f"got {config.width}x{config.height}"
            )
        if not 1 <= config.max_hz <= 60:
            raise ConfigError(f"sink window: max_hz must be within 1..60, got {config.max_hz}")
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise ConfigError(_NO_DISPLAY)

    def setup(self) -> None:
        """Open the window. Raises ConfigError if the display can't be reached."""
        self.check(self.config)
        _try_display()
        import cv2

        self._cameras: list[str] = []
        self._new_wall()
        cv2.namedWindow(self.config.title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        cv2.resizeWindow(self.config.title, self.config.width, self.config.height)
        cv2.imshow(self.config.title, self._wall.image)
        cv2.waitKey(1)

    def add(self, camera: str) -> None:
        """Make room for it."""
        self._cameras.append(camera)
        self._new_wall()

    def remove(self, camera: str) -> None:
        """Give its room to the others."""
        self._cameras.remove(camera)
        self._new_wall()

    def _new_wall(self) -> None:
        self._wall = Wall(self._cameras, (self.config.width, self.config.height))
        self._changed = True

    def process(self, frame: Frame) -> None:
        """Put a frame into its tile; `idle` shows it."""
        self._changed |= self._wall.put(frame)

    def idle(self) -> None:
        """Show what is new, and see whether somebody wants to leave: q, Esc, or the window closed."""
        import cv2

        if not self._is_open():
            self.runtime.quit()  # and show nothing more: that would open the window again
            return
        if self._changed:
            cv2.imshow(self.config.title, self._wall.image)
            self._changed = False
        if cv2.pollKey() & 0xFF in _QUIT_KEYS:
            self.runtime.quit()

    def _is_open(self) -> bool:
        import cv2

        try:
            return bool(cv2.getWindowProperty(self.config.title, cv2.WND_PROP_VISIBLE) >= 1)
        except cv2.error:  # Qt has no window left
            return False

    def close(self) -> None:
        """Close the window."""
        import cv2

        if hasattr(self, "_wall"):
            cv2.destroyAllWindows()


def _try_display() -> None:
    """Open a window in another process first: without a display OpenCV's Qt aborts, uncatchably."""
    code = "import cv2; cv2.namedWindow('manyeyes'); cv2.destroyAllWindows()"
    try:
        subprocess.run(
            [sys.executable, "-P", "-c", code], check=True, capture_output=True, timeout=30
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise ConfigError(_NO_DISPLAY) from error
