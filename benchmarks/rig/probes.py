"""The stages of the detect path, each noting when it had which frame in hand.

    with_probes(plan, file)     the plan with recording subclasses in it
    Rows(file, cameras)         what they noted, a row a frame

A row is found by camera and frame_id, and each of its cells has one writer, so nothing is locked, sent
or joined. What a stage notes it keeps until nobody waits for its result; while somebody does, a note is a
tenth of a microsecond.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.messages import Frame, FrameInfo, Output, Result, Tensor
from pipeline.plan.detecting import INFERENCE, POSTPROCESS, PREPROCESS
from pipeline.plan.graph import Plan
from stages.inference import Inference, InferenceConfig
from stages.postprocess import Postprocess, PostprocessConfig
from stages.preprocess import Preprocess, PreprocessConfig

MAX_FRAMES = 1 << 16  # of a camera; later ones are not noted
TIMES = (
    "t_capture_ns",
    "t_preprocess_ns",  # preprocess was called
    "t_in_ns",  # its tensor was offered to the batcher's mailbox
    "t_engine_ns",  # inference was called; frames of one batch have it in common
    "t_out_ns",  # the engine returned
    "t_postprocess_ns",  # postprocess was called
    "t_result_ns",  # its detections are there
)
ROW = np.dtype([("camera", "u4"), ("frame_id", "u4"), *((name, "i8") for name in TIMES)])


class Rows:
    """The notes, in a file that its writers and its reader map; pages without notes do not exist."""

    def __init__(self, path: Path | str, cameras: Sequence[str]) -> None:
        mode: Any = "r+" if os.path.exists(path) else "w+"
        shape = (len(TIMES), len(cameras), MAX_FRAMES)
        cells: Any = np.memmap(path, np.int64, mode, shape=shape)
        self._cells = np.asarray(cells)
        self._camera = {name: i for i, name in enumerate(cameras)}

    def note(self, name: str, t_ns: int, info: FrameInfo) -> None:
        """One time of one frame."""
        if info.frame_id < MAX_FRAMES:
            self._cells[TIMES.index(name), self._camera[info.camera], info.frame_id] = t_ns

    def table(self, frames: int) -> np.ndarray[Any, Any]:
        """One ROW for each frame of which all is noted, in order of t_result_ns.

        frames: how many of a camera to look at, from the first. The newest may be missing for as long as
        a stage keeps its notes, a tenth of a second.
        """
        camera, frame_id = np.nonzero(self._cells[:, :, :frames].all(axis=0))
        rows = np.empty(len(camera), ROW)
        rows["camera"], rows["frame_id"] = camera, frame_id
        for cells, name in zip(self._cells, TIMES, strict=True):
            rows[name] = cells[camera, frame_id]
        return rows[np.argsort(rows["t_result_ns"], kind="stable")]


def with_probes(plan: Plan, path: Path) -> Plan:
    """The plan with stages that note into `path`."""
    names = {PREPROCESS: Preprocessing, INFERENCE: Inferring, POSTPROCESS: Postprocessing}
    more = {"rows": str(path), "row_cameras": list(plan.cameras)}
    processes = tuple(
        replace(spec, run=f"{__name__}:{names[spec.run].__name__}", config={**spec.config, **more})
        if spec.run in names
        else spec
        for spec in plan.processes
    )
    return replace(plan, processes=processes)


@dataclass(frozen=True, kw_only=True)
class _Notes:
    """Where to note."""

    rows: str
    row_cameras: tuple[str, ...]


class _Noting:
    """A stage with rows."""

    config: Any

    def setup(self) -> None:
        """And map the rows."""
        super().setup()  # type: ignore[misc]  # of the stage
        self._rows = Rows(self.config.rows, self.config.row_cameras)
        self._notes: list[tuple[str, int, FrameInfo]] = []

    def idle(self) -> None:
        """Write down what was noted."""
        for name, t_ns, info in self._notes:
            self._rows.note(name, t_ns, info)
        self._notes.clear()

    def close(self) -> None:
        """Write down the rest."""
        self.idle()
        super().close()  # type: ignore[misc]  # of the stage


@dataclass(frozen=True)
class PreprocessingConfig(PreprocessConfig, _Notes):
    """And where to note."""


class Preprocessing(_Noting, Preprocess):
    """Notes t_preprocess_ns and t_in_ns."""

    Config = PreprocessingConfig  # type: ignore[assignment]  # with more in it

    def process(self, frame: Frame) -> Tensor:
        """As it does."""
        begun_ns = time.monotonic_ns()
        tensor = super().process(frame)
        ended_ns = time.monotonic_ns()
        self._notes += (
            ("t_preprocess_ns", begun_ns, frame.info),
            ("t_in_ns", ended_ns, frame.info),
        )
        return tensor


@dataclass(frozen=True)
class InferringConfig(InferenceConfig, _Notes):
    """And where to note."""


class Inferring(_Noting, Inference):
    """Notes t_engine_ns and t_out_ns."""

    Config = InferringConfig  # type: ignore[assignment]  # with more in it

    def process_batch(self, items: Sequence[Tensor]) -> list[Output]:
        """As it does."""
        begun_ns = time.monotonic_ns()
        outputs = super().process_batch(items)
        ended_ns = time.monotonic_ns()
        for item in items:
            self._notes += (
                ("t_engine_ns", begun_ns, item.info),
                ("t_out_ns", ended_ns, item.info),
            )
        return outputs


@dataclass(frozen=True)
class PostprocessingConfig(PostprocessConfig, _Notes):
    """And where to note."""


class Postprocessing(_Noting, Postprocess):
    """Notes t_capture_ns, t_postprocess_ns and t_result_ns."""

    Config = PostprocessingConfig  # type: ignore[assignment]  # with more in it

    def process(self, output: Output) -> Result:
        """As it does."""
        begun_ns = time.monotonic_ns()
        result = super().process(output)
        ended_ns = time.monotonic_ns()
        self._notes += (
            ("t_capture_ns", output.info.t_capture_ns, output.info),
            ("t_postprocess_ns", begun_ns, output.info),
            ("t_result_ns", ended_ns, output.info),
        )
        return result
