"""Preprocess: a frame becomes the model's input, resized and in its colour order, uint8."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.detections import Fit
from pipeline.messages import Frame, Image, Tensor
from pipeline.stage import Stage
from stages.detector.bundle import Facts

Box = tuple[int, int, int, int]

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
        """All pictures that the model sees of a frame."""
        facts = Facts.from_json(config.facts)
        return facts.resize.pictures * facts.input.width * facts.input.height * 3

    def setup(self) -> None:
        """Loads OpenCV."""
        import cv2

        from stages.imaging import letterbox, swscale, tiles

        cv2.setNumThreads(1)  # one picture is small: threads would wait for each other
        self._letterbox: Any = letterbox
        self._of_part = tiles.of_part
        self._to_bgr: Any = swscale.ToBgr()

    def process(self, frame: Frame) -> Tensor:
        """Never waits. Takes 0.3 to 0.5 ms a picture that the model sees, whatever the frame's size.

        A large i420 frame is resized plane by plane and converted when it is small. One that is not
        MAX_EXACT times the model's input is converted as it is, to the pixels that every other tool
        shows to the model.
        """
        size, resize, info = self._facts.input, self._facts.resize, frame.info
        whole = (0, 0, frame.width, frame.height)
        parts = (whole, *self._letterbox.tiles_of((frame.width, frame.height), resize))
        several = (len(parts),) if len(parts) > 1 else ()
        # as it is sent: what is only a view of it would have to be looked for in all slots
        pixels = self.runtime.empty((*several, size.height, size.width, 3), np.uint8)
        shrunk = (frame.width / info.width, frame.height / info.height)
        bgr = functools.cache(lambda: self._to_bgr(frame))  # at most once, for all parts
        fits = [
            self._of_part(self._show(frame, part, bgr, place), part).after(*shrunk)
            for part, place in zip(parts, pixels if several else [pixels], strict=True)
        ]
        return Tensor(info=info, fit=fits[0], tiles=tuple(fits[1:]), pixels=pixels)

    def _show(self, frame: Frame, part: Box, bgr: Callable[[], Image], out: Image) -> Fit:
        """Write a part of a frame as the model wants to see it; returns how it lies there."""
        size, resize = self._facts.input, self._facts.resize
        x1, y1, x2, y2 = part
        if frame.format == "bgr24":
            fit: Fit = self._letterbox.prepare(frame.pixels[y1:y2, x1:x2], size, resize, out)[1]
        elif max((x2 - x1) / size.width, (y2 - y1) / size.height) < MAX_EXACT:
            fit = self._letterbox.prepare(bgr()[y1:y2, x1:x2], size, resize, out)[1]
        else:
            luma, *chroma = frame.planes
            planes = luma[y1:y2, x1:x2], *(c[y1 // 2 : y2 // 2, x1 // 2 : x2 // 2] for c in chroma)
            fit = self._letterbox.prepare_i420(
                planes, frame.matrix, frame.full_range, size, resize, out
            )[1]
        return fit
