"""Preprocess: a frame becomes the model's input, resized and in its colour order, uint8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.messages import Frame, Tensor
from pipeline.stage import Stage
from stages.detector.bundle import Facts

MAX_EXACT = 2.0
"""Reduction from which on planes are resized before they are converted: below it that saves next to
nothing (0.30 against 0.37 ms at 640x352 to 416), and changed 2 of 41 boxes of a published YOLOX."""


@dataclass(frozen=True)
class PreprocessConfig:
    """What preprocess has to know of the model."""

    facts: str  # JSON, `Facts.to_json`: input size, colour order, how to resize


class Preprocess(Stage):
    """Resizes and letterboxes straight into the slot that inference reads."""

    Config = PreprocessConfig
    config: PreprocessConfig

    def __init__(self, config: PreprocessConfig) -> None:
        super().__init__(config)
        self._facts = Facts.from_json(config.facts)

    @classmethod
    def check(cls, config: PreprocessConfig) -> None:
        """Raises ModelError if the facts are not valid."""
        Facts.from_json(config.facts)

    @classmethod
    def slot_bytes(cls, config: PreprocessConfig, frame_bytes: int) -> int:
        """One picture of the model's input."""
        size = Facts.from_json(config.facts).input
        return size.width * size.height * 3

    def setup(self) -> None:
        """Loads OpenCV."""
        import cv2

        from stages.imaging import letterbox, swscale

        cv2.setNumThreads(1)  # one picture is small: threads would wait for each other
        self._letterbox: Any = letterbox
        self._to_bgr: Any = swscale.ToBgr()

    def process(self, frame: Frame) -> Tensor:
        """Never waits. Takes 0.3 to 0.5 ms, whatever the size of the frame.

        A large i420 frame is resized plane by plane and converted when it is small. One that is not
        MAX_EXACT times the model's input is converted as it is, to the pixels that every other tool
        shows to the model.
        """
        size, resize, info = self._facts.input, self._facts.resize, frame.info
        shrunk_x, shrunk_y = frame.width / info.width, frame.height / info.height
        out = self.runtime.empty((size.height, size.width, 3), np.uint8)
        if frame.format == "bgr24":
            pixels, fit = self._letterbox.prepare(frame.pixels, size, resize, out)
        elif max(frame.width / size.width, frame.height / size.height) < MAX_EXACT:
            pixels, fit = self._letterbox.prepare(self._to_bgr(frame), size, resize, out)
        else:
            pixels, fit = self._letterbox.prepare_i420(
                frame.planes, frame.matrix, frame.full_range, size, resize, out
            )
        return Tensor(info=info, fit=fit.after(shrunk_x, shrunk_y), pixels=pixels)
