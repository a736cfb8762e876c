"""For those who write stages: run one in a test, in this process, without sockets or shared memory.

def test_blur() -> None:
    (blurred,) = run_inline(Blur(BlurConfig(radius=3)), [frame(picture)])
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.messages import Frame, FrameInfo
from pipeline.runtime import LocalRuntime
from pipeline.stage import BatchStage, JoinStage, Stage


def frame(
    image: npt.NDArray[np.uint8], *, camera: str = "test", frame_id: int = 0, **facts: Any
) -> Frame:
    """A bgr24 frame of a picture, uint8 (H, W, 3), read-only like the ones that a stage gets.

    Pure. frame_id: counts from 0. facts: further fields of FrameInfo, such as t_capture_ns. Raises
    TypeError for one that it has not.
    """
    view = image.view()
    view.flags.writeable = False
    info: dict[str, Any] = {"t_capture_ns": 0, "t_wall_ns": 0, **facts}
    height, width = image.shape[:2]
    return Frame(
        info=FrameInfo(camera=camera, frame_id=frame_id, width=width, height=height, **info),
        format="bgr24",
        pixels=view,
    )


def run_inline(stage: Stage | BatchStage, items: Iterable[Any]) -> list[Any]:
    """What the runner does, without a process: setup, cameras, every item, close. Returns what came out.

    items: what `process` takes; for a JoinStage pairs (frame, detections); for a BatchStage lists.
    The stage's `runtime` is a LocalRuntime unless it was given another one. Raises what the stage raises,
    also FrameError, which in a run costs one item; `close` is called all the same. Blocks until it is done.
    """
    items = list(items)
    if isinstance(stage.runtime, LocalRuntime):
        cameras = {part.info.camera: None for item in items for part in _parts(item)}
        stage.runtime.cameras = tuple(cameras) or stage.runtime.cameras
    stage.setup()
    for camera in stage.runtime.cameras:
        stage.add(camera)
    results: list[Any] = []
    try:
        for item in items:
            if isinstance(stage, BatchStage):
                results += stage.process_batch(item)
            elif isinstance(stage, JoinStage):
                results.append(stage.process(*item))
            else:
                results.append(stage.process(item))
            stage.idle()
    finally:
        stage.close()
    return [result for result in results if result is not None]


def _parts(item: Any) -> list[Any]:
    parts = item if isinstance(item, list | tuple) else [item]
    return [part for part in parts if hasattr(part, "info")]
