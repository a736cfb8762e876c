"""Frames and results for the tests of the sinks."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.detections import Detections
from pipeline.messages import Frame, FrameInfo, Result

STEP_NS = 40_000_000  # 25 frames a second


def info(n: int = 0, camera: str = "gate", size_wh=(160, 90), **facts) -> FrameInfo:
    facts = {"t_capture_ns": 5_000_000_000 + n * STEP_NS} | facts
    return FrameInfo(
        camera=camera, frame_id=n, t_wall_ns=1_763_805_600_123_456_789 + n * STEP_NS,
        width=size_wh[0], height=size_wh[1], **facts,
    )  # fmt: skip


def frame(n: int = 0, camera: str = "gate", size_wh=(160, 90), **facts) -> Frame:
    """A grey picture with a white bar whose place tells n modulo 16."""
    width, height = size_wh
    image = np.full((height, width, 3), 90, np.uint8)
    x = (n % 16) * width // 16
    cv2.rectangle(image, (x, 0), (x + width // 16 - 1, height), (255, 255, 255), cv2.FILLED)
    image.flags.writeable = False
    return Frame(info=info(n, camera, size_wh, **facts), format="bgr24", pixels=image)


def bar(image: np.ndarray) -> int:
    """Where the bar of `frame` is: n modulo 16."""
    width = image.shape[1]
    columns = image[..., 0].mean(axis=0)
    return int(
        np.argmax([columns[i * width // 16 : (i + 1) * width // 16].mean() for i in range(16)])
    )


def result(n: int = 0, found: int = 2, tracks: bool = False, **facts) -> Result:
    rng = np.random.default_rng(n)
    corners = np.sort(rng.uniform(0, 90, (found, 2, 2)), axis=1).astype(np.float32)
    detections = Detections(
        corners.reshape(found, 4),
        rng.random(found, np.float32),
        np.arange(found, dtype=np.int32),
        np.arange(found, dtype=np.int64) + 7 if tracks else None,
    )
    return Result(info=info(n, **facts), detections=detections)
