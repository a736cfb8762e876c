"""Render: boxes, labels, camera, clock and frame rate on the picture, for those who look at it."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from datetime import datetime

from pipeline.detections import Detections
from pipeline.messages import Frame
from pipeline.stage import JoinStage

FPS_WINDOW_NS = 2_000_000_000  # frame rate is that of the last two seconds


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """What is drawn."""

    classes: tuple[str, ...] = ()  # name of each label
    show_title: bool = True  # the camera's name
    show_clock: bool = True  # local time of capture
    show_fps: bool = True  # frames a second that reach this stage


class Render(JoinStage):
    """Copies or converts a frame once, into its slot, and draws there."""

    Config = RenderConfig
    config: RenderConfig

    def __init__(self, config: RenderConfig) -> None:
        super().__init__(config)
        self._times_ns: defaultdict[str, deque[int]] = defaultdict(deque)

    @classmethod
    def slot_bytes(cls, config: RenderConfig, frame_bytes: int) -> int:
        """A bgr24 picture: twice the bytes of an i420 frame."""
        return 2 * frame_bytes

    def setup(self) -> None:
        """Load OpenCV, and its font by drawing once."""
        import numpy as np

        from stages.imaging.drawing import draw
        from stages.imaging.pixels import to_bgr

        self._draw, self._to_bgr = draw, to_bgr
        draw(np.zeros((64, 64, 3), np.uint8), None, (), title="0")

    def remove(self, camera: str) -> None:
        """Forget how fast it was."""
        self._times_ns.pop(camera, None)

    def process(  # type: ignore[override]  # as JoinStage
        self, frame: Frame, detections: Detections | None
    ) -> Frame:
        """The same frame as bgr24 with everything drawn on it."""
        info, config = frame.info, self.config
        image = self.runtime.empty((frame.height, frame.width, 3), "uint8")
        self._to_bgr(frame, image)
        fps = self._fps(info.camera, info.t_capture_ns)
        clock = datetime.fromtimestamp(info.t_wall_ns / 1e9).strftime("%Y-%m-%d %H:%M:%S")
        self._draw(
            image,
            _inside(frame, detections),
            config.classes,
            title=info.camera if config.show_title else "",
            clock=clock if config.show_clock else "",
            fps=fps if config.show_fps else None,
        )
        return frame.with_image(image)

    def _fps(self, camera: str, t_capture_ns: int) -> float | None:
        """Frames a second of a camera over the last two seconds; None before the second frame."""
        times = self._times_ns[camera]
        if times and t_capture_ns <= times[-1]:
            times.clear()
        times.append(t_capture_ns)
        while len(times) > 2 and t_capture_ns - times[0] > FPS_WINDOW_NS:
            times.popleft()
        return (len(times) - 1) * 1e9 / (t_capture_ns - times[0]) if len(times) > 1 else None


def _inside(frame: Frame, detections: Detections | None) -> Detections | None:
    """Detections in pixels of the source as detections in pixels of the frame."""
    source_wh, size_wh = (frame.info.width, frame.info.height), (frame.width, frame.height)
    if detections is None or size_wh == source_wh:
        return detections
    return detections.scaled(size_wh[0] / source_wh[0], size_wh[1] / source_wh[1])
