"""Sources and stages of tests that need no picture library: every pixel of frame n is n mod 251."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np

from pipeline.detections import Detections, Fit
from pipeline.errors import EndOfStream, FrameError
from pipeline.messages import Frame, Output, Result, Tensor
from pipeline.stage import BatchStage, JoinStage, Picture, Sink, Source, Stage
from stages.sinks.lines import LinesFile

SIDE = 64


@dataclass(frozen=True, kw_only=True)
class PatternConfig:
    frames: int = 0  # 0: for ever
    rate_hz: float = 100.0


class Pattern(Source):
    Config = PatternConfig

    @classmethod
    def slot_bytes(cls, config, frame_bytes):
        return SIDE * SIDE * 3

    def open(self):
        self._n = getattr(self, "_n", 0)
        self._due = time.monotonic()

    def _pace(self):
        if self.config.frames and self._n >= self.config.frames:
            raise EndOfStream
        self._due += 1 / self.config.rate_hz if self.config.rate_hz else 0
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._n += 1

    def read(self, buffer):
        self._pace()
        buffer[:] = (self._n - 1) % 251
        return Picture(width=SIDE, height=SIDE, format="bgr24", pts_ns=self._n)

    def skip(self):
        self._pace()
        return True


class Counted(Pattern):
    """Counts the frames that cost decoding."""

    @classmethod
    def counters(cls, config):
        return ("decoded",)

    def read(self, buffer):
        self.runtime.count("decoded", self.runtime.cameras[0])
        return super().read(buffer)


@dataclass(frozen=True, kw_only=True)
class NoConfig:
    pass


def value_of(pixels):
    value = int(pixels.flat[0])
    if not (pixels == value).all():
        raise FrameError("torn: pixels of two frames in one slot")
    return value


class Shrink(Stage):
    Config = NoConfig

    @classmethod
    def slot_bytes(cls, config, frame_bytes):
        return 32 * 32 * 3

    def process(self, frame: Frame) -> Tensor:
        out = self.runtime.empty((32, 32, 3), np.uint8)
        out[:] = value_of(frame.image)
        return Tensor(info=frame.info, fit=Fit(scale_x=0.5, scale_y=0.5), pixels=out)


class Same(Stage):
    """For after capture."""

    Config = NoConfig

    @classmethod
    def slot_bytes(cls, config, frame_bytes):
        return frame_bytes

    def process(self, item: Frame) -> Frame:
        return item


class Blind(Shrink):
    """Can use no frame of the second camera."""

    def process(self, frame: Frame) -> Tensor:
        if frame.info.camera == "c1":
            raise FrameError("not this one")
        return super().process(frame)


@dataclass(frozen=True, kw_only=True)
class LateConfig:
    wanted: str  # a file


class Late(Shrink):
    """Is ready once a file is there."""

    Config = LateConfig

    def setup(self):
        while not os.path.exists(self.config.wanted):
            time.sleep(0.01)


@dataclass(frozen=True, kw_only=True)
class SlowConfig(LateConfig):
    how: str


class Slow(Shrink):
    """As Late, and meanwhile it works, says that it lives, or does neither."""

    Config = SlowConfig

    def setup(self):
        while not os.path.exists(self.config.wanted):
            if self.config.how == "says":
                self.runtime.alive()
            if self.config.how != "works":
                time.sleep(0.01)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    alpha_ms: float = 0.0
    beta_ms: float = 0.0


class Model(BatchStage):
    Config = ModelConfig

    @classmethod
    def slot_bytes(cls, config, frame_bytes):
        return 64

    def process_batch(self, items: list[Tensor]) -> list[Output]:
        time.sleep((self.config.alpha_ms + self.config.beta_ms * len(items)) / 1e3)
        outputs = []
        for item in items:
            out = self.runtime.empty((1,), np.float32)
            out[0] = value_of(item.pixels)
            outputs.append(Output(info=item.info, fit=item.fit, model_id="pattern", arrays=(out,)))
        return outputs


@dataclass(frozen=True, kw_only=True)
class TurnConfig:
    turn: int = 0  # of settings that change nothing


class KnownBoxes(Stage):
    """Finds what a rendered scene says to be there."""

    Config = NoConfig

    def process(self, output: Output) -> Result:
        truth = output.info.truth
        return Result(
            info=output.info, detections=Detections(truth.xyxy, truth.scores, truth.labels)
        )


class Decode(Stage):
    Config = TurnConfig

    def process(self, output: Output) -> Result:
        value = float(output.arrays[0][0])
        box = Detections(
            np.array([[0, 0, value, value]], np.float32),
            np.ones(1, np.float32),
            np.zeros(1, np.int32),
        )
        return Result(info=output.info, detections=box, model_id=output.model_id)


class Between(Stage):
    Config = NoConfig

    def process(self, result: Result) -> Result:
        return result


class Draw(JoinStage):
    Config = TurnConfig

    @classmethod
    def slot_bytes(cls, config, frame_bytes):
        return frame_bytes

    def process(self, frame: Frame, detections: Detections | None) -> Frame:
        out = self.runtime.empty(frame.image.shape, np.uint8)
        out[:] = value_of(frame.image)
        return frame.with_image(out)


@dataclass(frozen=True, kw_only=True)
class WriteConfig:
    path: str
    turn: int = 0


class WriteResults(Sink):
    """One line a result: camera, frame_id, value; as events do it, so that kills leave whole lines."""

    Config = WriteConfig

    def setup(self):
        self._lines = LinesFile("results", self.config.path)
        self._lines.open()

    def process(self, result: Result) -> None:
        value = int(result.detections.xyxy[0, 2])
        info = result.info
        self._lines.append(f"{info.camera} {info.frame_id} {value} {info.pts_ns}\n".encode())

    def close(self):
        self._lines.close()


class Leisurely(WriteResults):
    """Takes its time for every result."""

    def process(self, result: Result) -> None:
        time.sleep(0.06)
        super().process(result)


class WriteFrames(WriteResults):
    def process(self, frame: Frame) -> None:
        info = frame.info
        line = f"{info.camera} {info.frame_id} {value_of(frame.image)} {info.pts_ns}\n"
        self._lines.append(line.encode())


class DrawHalf(Draw):
    """Gives every second picture."""

    def process(self, frame: Frame, detections: Detections | None) -> Frame | None:
        return None if frame.info.frame_id % 2 else super().process(frame, detections)


class Forgetful(Decode):
    """A planted fault: the process loses every tenth frame without a word."""

    def setup(self):
        process = self.runtime._process
        finish = process._finish

        def forget(delivery, result):
            if delivery.frame_id % 10 != 9:
                finish(delivery, result)

        process._finish = forget


class Contradicting(Decode):
    """A planted fault: every tenth frame is dropped by one who has passed it on."""

    def setup(self):
        process = self.runtime._process
        finish = process._finish

        def contradict(delivery, result):
            finish(delivery, result)
            if delivery.frame_id % 10 == 9:
                process._drop(delivery, "filtered")

        process._finish = contradict


class Full(WriteResults):
    """A disk that is full from the tenth result on."""

    def process(self, result: Result) -> None:
        if result.info.frame_id >= 10:
            raise FrameError("no space left")
        super().process(result)


class Broken(WriteResults):
    """Dies of every result."""

    def process(self, result: Result) -> None:
        raise RuntimeError("a bug")
