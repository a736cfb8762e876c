"""Sources and stages of which some frames can't be sent, for tests of what becomes of the others."""

from dataclasses import replace

import numpy as np
from parts import Pattern, Shrink

from pipeline.detections import Detections
from pipeline.errors import FrameError
from pipeline.messages import Frame, Tensor

ODD = {3, 5, 7, 9}  # of every ten


class OddSource(Pattern):
    """Gives what no message can say, or no picture at all."""

    def read(self, buffer):
        picture = super().read(buffer)
        n = (self._n - 1) % 10
        if n == 3:
            raise FrameError("a picture that can't be decoded")
        facts = {5: {"name": "\udcff.jpg"}, 7: {"pts_ns": 1 << 70}, 9: {"name": "x" * 70_000}}
        return replace(picture, **facts.get(n, {}))

    def skip(self):
        super().skip()
        if (self._n - 1) % 10 in ODD:
            raise FrameError("a packet that can't be decoded")
        return True


class OddStage(Shrink):
    """Gives pixels of a type that does not travel, too many of them, or a fit that can't be."""

    def process(self, frame: Frame) -> Tensor:
        n = frame.info.frame_id % 10
        if n == 5:
            self.runtime.empty((1 << 20,), np.uint8)
        tensor = super().process(frame)
        if n == 3:
            return replace(tensor, pixels=tensor.pixels.astype(np.complex64))
        if n == 7:
            return replace(tensor, fit=replace(tensor.fit, scale_x=float("nan")))
        if n == 9:
            return replace(tensor, pixels=np.zeros((64, 64, 3), np.uint8))
        return tensor


class CrowdedSource(Pattern):
    """Knows of so many objects that the messages of two frames are more than one may hold."""

    def read(self, buffer):
        n = 1_500
        truth = Detections(
            np.tile(np.array([0, 0, 4, 4], np.float32), (n, 1)),
            np.ones(n, np.float32),
            np.zeros(n, np.int32),
        )
        return replace(super().read(buffer), truth=truth)
