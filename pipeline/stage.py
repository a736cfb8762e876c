"""The whole contract for writing a stage; what it may ask for is in `runtime.py`.

A stage is a class with a frozen dataclass as its `config`. The runner of the process it lives in calls

    stage = Blur(config)        nothing heavy: no I/O, no big imports
    stage.setup()               once, in the stage's own process: load, open, allocate
    stage.add(camera) …         for each camera, at the start and whenever one joins
    stage.process(item) …       one item at a time, from one thread, until the run drains
    stage.idle() …              between items, at least ten times a second
    stage.remove(camera) …      when one leaves
    stage.close()               once, also after an error

What a stage takes and gives is read from the annotations of `process`: Frame → Frame, Frame → Tensor,
Result → Result, … → None for a sink. `import`s of heavy libraries (cv2, av, torch) belong into
`setup()`, so that the supervisor can read the annotations without paying for them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.detections import Detections
from pipeline.messages import (
    Frame,
    FrameInfo,
    PixelFormat,
    Result,
    Tensor,
    frame_shape,
)
from pipeline.runtime import LocalRuntime, Runtime


class _Part:
    """What sources and stages have in common.

    Class methods are called in the supervisor, before any process starts and whenever another plan is
    made: they leave nothing behind, import nothing heavy and take at most some milliseconds.
    """

    Config: ClassVar[type]
    """A frozen dataclass; each field commented with unit and range. Sent to the process as JSON."""

    turn_s: float = 1.0
    """Longest time that one call may take, in seconds; a process over it counts as hung and is
    replaced. `setup()` of a stage may raise it after measuring; that of a source is read after
    `__init__`, and `open`, `read` and `skip` have 15 s at least."""

    about: str = ""
    """What does the work, such as "onnx cpu fp32", where that is found out by `setup()`; in the metrics."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.runtime: Runtime = LocalRuntime()

    @classmethod
    def check(cls, config: Any) -> None:
        """Whether this can work. Called first of all class methods, also by `manyeyes check`.

        Raises ConfigError (ResourceError for what the machine lacks) with what is wrong and what to do.
        """

    @classmethod
    def slot_bytes(cls, config: Any, frame_bytes: int) -> int:
        """Bytes of one result in shared memory; 0: results carry no pixels. Called as `check` is.

        frame_bytes: the largest frame that any camera of the run can deliver. May raise ConfigError, if
        that depends on a file, for instance.
        """
        return 0

    @classmethod
    def memory_bytes(cls, config: Any) -> int:
        """Bytes that a process of it takes beside shared memory, about. Called as `check` is.

        The default is an interpreter with numpy, ZeroMQ and OpenCV, as measured (24 to 30 MiB). May raise
        ConfigError.
        """
        return 30 << 20

    @classmethod
    def counters(cls, config: Any) -> tuple[str, ...]:
        """Names of counters per camera, served as metrics; they survive a restart of the stage.

        Called as `check` is. May raise ConfigError.
        """
        return ()

    @classmethod
    def histograms(cls, config: Any) -> tuple[str, ...]:
        """Names of histograms of durations (0.1 ms to 100 s), served as metrics; they survive a restart.

        Called as `check` is. May raise ConfigError.
        """
        return ()

    @classmethod
    def files(cls, config: Any) -> tuple[str, ...]:
        """Paths of what `setup` reads through `runtime.original`: a run keeps them as it found them.

        They stay in memory until its end, so they are models and not films. Called as `check` is. May
        raise ConfigError.
        """
        return ()

    @classmethod
    def secrets(cls, config: Any) -> tuple[str, ...]:
        """Names of environment variables that no other process of the run may know.

        They are set from `setup` on; the environment that any process starts with has none of them.
        Called as `check` is. May raise ConfigError.
        """
        return ()

    def setup(self) -> None:
        """Load, open, allocate. May block for as long as it works. Raises ConfigError to end the run.

        Who only waits says so, with `runtime.alive`, or counts as hung after two minutes. Called once in
        each process, first of all; anything else that it raises is tried again in a new one.
        """

    def close(self) -> None:
        """Flush and close; called once at the end, also after an error; must return within a second.

        Of a source, called after each `open`, also one that failed. What it raises ends the process.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What a source wrote into the buffer it was given, upright and with square pixels.

    bgr24: uint8 (height, width, 3); i420: uint8 (height * 3 // 2, width), planes Y, U, V in a row,
    width and height even. Both start at the first byte of the buffer, without padding.
    """

    width: int
    height: int
    format: PixelFormat
    matrix: str = "bt601"  # bt601 | bt709: how YUV was made of RGB
    full_range: bool = False  # luma 0..255 and not 16..235
    source_size: tuple[int, int] | None = None  # (width, height) in px before it was scaled down
    pts_ns: int | None = None  # the source's own clock
    recorded: bool = False  # pts_ns counts from the beginning of a recording
    corrupt: bool = False  # the decoder concealed damage
    keyframe: bool = False
    truth: Detections | None = None  # known boxes of a rendered scene
    name: str | None = None  # file name of a picture

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its pixels. Pure; raises nothing."""
        return frame_shape(self.format, self.width, self.height)

    def frame(
        self, buffer: npt.NDArray[np.uint8], *, camera: str = "test", frame_id: int = 0
    ) -> Frame:
        """The frame that the buffer holds now, a view of it; for who reads a source without a run.

        buffer: as `Source.read` was given it. frame_id: from 0. Pure but for the time of capture, which is
        now. Raises ValueError if the buffer is too small for the picture.
        """
        width, height = self.source_size or (self.width, self.height)
        info = FrameInfo(
            camera=camera,
            frame_id=frame_id,
            t_capture_ns=time.monotonic_ns(),
            t_wall_ns=0,
            width=width,
            height=height,
        )
        return Frame(
            info=info,
            format=self.format,
            pixels=buffer[: math.prod(self.shape)].reshape(self.shape),
            matrix=self.matrix,
            full_range=self.full_range,
        )


class Source(_Part):
    """A camera. `open`, `read` and `skip` are called from one thread of the camera's own process.

    What raises SourceError is closed and opened again, for ever; EndOfStream ends the camera, and so
    does BrokenSource, after which the run fails at its end.
    """

    live: bool = True
    """A camera, which may come back. What is not live is a recording: under `every`, any SourceError
    ends it."""

    def open(self) -> None:
        """Connect. May block for up to 5 s. Raises SourceError; is called again later, by the same thread.

        Also called to connect anew after a SourceError of `read`; `close` was called between the two.
        """

    def resume(self, frames: int) -> None:
        """Called before `open` if the source was read before, by a process that died or up to a
        SourceError: `frames` came of it, read, skipped or unusable, and each of them is accounted for.

        What has an end goes on behind them, so that each of its frames comes once. By default, and for
        what is live, nothing has to be done. Must not block; raises nothing: what is wrong is said by
        `open`.
        """

    def read(self, buffer: npt.NDArray[np.uint8]) -> Picture | None:
        """Wait for the next frame and write its pixels into `buffer`: uint8 (slot_bytes,).

        Called again and again after `open`, whenever the frame that comes next is wanted. Blocks until
        there is a frame, at most about 2 s, and paces itself (a file in real time). Returns None if none
        came yet and asking again is right. Raises SourceError when the camera is lost (a mute one within
        2 s), FrameError when this one frame is unusable, EndOfStream after the last. A frame larger than
        the buffer is scaled down.
        """
        raise NotImplementedError

    def skip(self) -> bool:
        """Like read, but the pixels are not wanted: spend as little as possible. True: one passed.

        Called in place of `read` while the picture is above `max_fps`, or nobody has room for it.
        Blocks, paces itself and raises as `read` does; False where `read` would return None.
        """
        raise NotImplementedError


class _Shared(_Part):
    """What stages of many cameras have in common. Cameras join and leave while a run goes on."""

    def add(self, camera: str) -> None:
        """A camera joins: items of it may come. Called after `setup`, between items; must not block.

        What it raises ends the process, which is replaced.
        """

    def remove(self, camera: str) -> None:
        """A camera leaves: nothing of it is here, and nothing will come, unless it is added again.

        The place to forget it, and to close what is open for it alone. Called between items; must
        return within a second. What it raises ends the process, which is replaced.
        """


class Stage(_Shared):
    """One item in, at most one out. None drops the item on purpose (reason `filtered`)."""

    def process(self, item: Any) -> Any:
        """Called once per item, in frame order within a camera.

        Arrays of the item are read-only views of shared memory, valid until `process` returns: copy what
        is kept. May block for as long as `turn_s`; meanwhile newer frames take the place of those that
        wait, or under `every` all before it wait, too. Raises FrameError when this item is unusable
        (counted, the run goes on); anything else ends the process, which is replaced.
        """
        raise NotImplementedError

    def idle(self) -> Sequence[Result] | None:
        """Called between items, at least ten times a second; must not block.

        What it returns is sent on as what `process` returns: results of NO_FRAME. What it raises ends the
        process, which is replaced.
        """

    def save(self, camera: str) -> bytes | None:
        """What this stage has to know of a camera to go on; at most 64 KiB. None: nothing new.

        Called after each item of the camera, before it is sent on. Should the process be killed, the
        next one gets it, and goes on with the item after that one: for items that come again the process
        sends what was given for them, if those are Results. Must not block. What it raises ends the
        process.
        """
        raise NotImplementedError

    def restore(self, camera: str, state: bytes) -> None:
        """What `save` of a process before this one returned last. Called after `add`, once a camera.

        Must not block. Raises ValueError for what can't be used, by another version, perhaps: then the
        camera begins anew.
        """
        raise NotImplementedError


class JoinStage(Stage):
    """Pictures and what was found in them."""

    def process(self, frame: Frame, detections: Detections | None) -> Frame | None:  # type: ignore[override]
        """Called once per frame of the view path, in order within a camera.

        detections: of this very frame, or (`newest`, where it has no result) those of other frames moved
        on to its time. None: nothing is known. May block and raises as `Stage.process`.
        """
        raise NotImplementedError


class BatchStage(_Shared):
    """Many items at once, of many cameras."""

    def process_batch(self, items: Sequence[Tensor]) -> Sequence[Any]:
        """One result per item, in the same order. None drops that item.

        Called whenever the batcher has a batch, of `max_batch` items at most. May block and raises as
        `Stage.process`: a FrameError costs all items of the batch; DeviceLost ends the process with 70.
        """
        raise NotImplementedError

    def idle(self) -> None:
        """Called between batches, at least ten times a second; must not block.

        What it raises ends the process, which is replaced.
        """


class Sink(Stage):
    """A stage at the end: takes Result or Frame, gives nothing."""

    max_hz: float | None = None
    """Most items a second and camera that are wanted; None: all. Read after __init__."""

    takes_health: ClassVar[bool] = False
    """Whether it wants results of NO_FRAME, too: what happens to cameras."""

    settles: ClassVar[bool] = False
    """Whether what it was given is taken only when it says so: see `Runtime.settle`."""
