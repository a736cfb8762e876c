"""What travels between processes: records that nobody changes.

A message that carries pixels is sent as a descriptor of about 150 bytes (`hop.codec`): its facts, the slot
that holds the pixels, and where in the slot each array lies. That is an Envelope; `open` puts the arrays
back in.

Nothing here waits, and nothing is raised but where it is said.

    capture ─ Frame ─► preprocess ─ Tensor ─► batcher ─ Batch ─► inference ─ Output ─► postprocess
            └ Frame ─────────────────────────────────────► render ◄─ Result ─┴─ Result ─► events
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.detections import Detections, Fit
from pipeline.errors import FrameError
from pipeline.happenings import Happening

MAX_MESSAGE_BYTES = 64 * 1024
MAX_ARRAYS = 16  # of one message
ALIGN_BYTES = 64  # a cache line; each array of a slot begins on one
MAX_SIDE_PX = 1 << 15
SHADOW = "shadow:"  # begins the model_id of a result that is compared and not delivered

Array = npt.NDArray[Any]
Image = npt.NDArray[np.uint8]
PixelFormat = Literal["bgr24", "i420"]


# Of these one is made at each end of every hop, so they are the records that are made quickest: named
# tuples, and data classes that are not frozen by code. Nobody changes one; `with_image` makes another.


class FrameInfo(NamedTuple):
    """Which frame it is; goes unchanged from capture to the last sink.

    `t_capture_ns` is monotonic and the same clock in all processes of a host; `t_wall_ns` (since 1970)
    is a label only: it may jump.
    """

    camera: str
    frame_id: int  # counts every frame that the source delivered, from 0, over restarts
    t_capture_ns: int
    t_wall_ns: int
    width: int  # px, as the source has it; a frame that was scaled down has fewer pixels
    height: int  # px, of the source
    stream_epoch: int = 0  # another one after a reconnect, a change of size or format, a clock jump
    pts_ns: int | None = None  # of the source's own clock
    corrupt: bool = False
    keyframe: bool = False
    name: str | None = None  # file name of a picture
    truth: Detections | None = None
    recorded: bool = False  # pts_ns counts from the beginning of a recording


@dataclass(slots=True, kw_only=True)
class Frame:
    """One picture of one camera, uint8: (H, W, 3) if bgr24, (H * 3 // 2, W) planes Y U V if i420."""

    info: FrameInfo
    format: PixelFormat
    pixels: Image
    matrix: str = "bt601"
    full_range: bool = False
    to_bgr: Callable[[Frame], Image] | None = field(default=None, repr=False, compare=False)
    _bgr: Image | None = field(init=False, default=None, repr=False, compare=False)

    @property
    def width(self) -> int:
        """Of the pixels here; `info.width` is that of the source."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Of the pixels here; `info.height` is that of the source."""
        rows = int(self.pixels.shape[0])
        return rows if self.format == "bgr24" else rows * 2 // 3

    @property
    def image(self) -> Image:
        """The picture as uint8 (H, W, 3) BGR, read-only; valid until `process` returns.

        An i420 frame is converted on first use (about 1 ms for Full HD) and once. Raises FrameError for one
        that came without a converter: in a run it has one.
        """
        if self.format == "bgr24":
            return self.pixels
        bgr = self._bgr
        if bgr is None:
            if self.to_bgr is None:
                raise FrameError(
                    "Frame.image: this i420 frame came without a converter; "
                    "pass to_bgr=stages.imaging.pixels.to_bgr, or use frame.planes"
                )
            bgr = self._bgr = self.to_bgr(self)
        return bgr

    @property
    def planes(self) -> tuple[Image, Image, Image]:
        """Y uint8 (H, W), U and V uint8 (H/2, W/2) of an i420 frame: read-only views, nothing is converted.

        Raises FrameError for a bgr24 frame.
        """
        if self.format != "i420":
            raise FrameError(
                f"Frame.planes: wanted an i420 frame, got {self.format}; use frame.image"
            )
        height, width = self.height, self.width
        flat = self.pixels.reshape(-1)
        luma, chroma = height * width, (height // 2) * (width // 2)
        return (
            flat[:luma].reshape(height, width),
            flat[luma : luma + chroma].reshape(height // 2, width // 2),
            flat[luma + chroma : luma + 2 * chroma].reshape(height // 2, width // 2),
        )

    def with_image(self, image: Image) -> Frame:
        """The same frame with other pixels: uint8 (H, W, 3) BGR of the same size, not copied here.

        Pixels in memory of `runtime.empty` go on as they are; others are copied into a slot when the frame
        is sent. Raises FrameError for another type or size.
        """
        if image.dtype != np.uint8 or image.shape != (self.height, self.width, 3):
            raise FrameError(
                f"Frame.with_image: wanted uint8 {(self.height, self.width, 3)}, "
                f"got {image.dtype} {image.shape}; keep the size of the frame"
            )
        return replace(self, format="bgr24", pixels=image)


@dataclass(slots=True, kw_only=True)
class Tensor:
    """A frame as the model wants to see it: uint8 (height, width, 3) in the bundle's colour order.

    Where parts of it are looked at, too, uint8 (1 + T, height, width, 3): the whole first.
    """

    info: FrameInfo
    fit: Fit  # of the whole
    tiles: tuple[Fit, ...] = ()  # of each part, T of them
    pixels: Image


@dataclass(slots=True, kw_only=True)
class Output:
    """What the model returned for one frame, in the layout that the bundle declares.

    With tiles, arrays have one dimension more, in front, for the whole and its parts.
    """

    info: FrameInfo
    fit: Fit
    tiles: tuple[Fit, ...] = ()
    model_id: str  # hash of the bundle
    arrays: tuple[Array, ...]


@dataclass(slots=True, kw_only=True)
class Result:
    """What was found in one frame, and what happened. `model_id` tells which model said so.

    One with the frame_id NO_FRAME tells what happened to the camera; nothing was found, no sink has an
    account of it, and only those get it that say so (`Sink.takes_health`).
    """

    info: FrameInfo
    detections: Detections
    model_id: str = ""
    happenings: tuple[Happening, ...] = ()  # at most MAX_PER_RESULT
    # label and score of the best below the threshold, if known
    missed: tuple[int, float] | None = None


Message = Frame | Tensor | Output | Result


class SlotRef(NamedTuple):
    """A slot of shared memory as it was when its message was sent."""

    pool_epoch: int  # never used twice in a run
    slot: int
    generation: int  # of what is in it; even


class ArraySpec(NamedTuple):
    """Where an array lies in a slot."""

    dtype: str  # as numpy.dtype.str
    shape: tuple[int, ...]  # as numpy has it
    offset: int  # bytes from the beginning of the slot

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def end(self) -> int:
        """Offset of what may lie behind it."""
        return self.offset + self.nbytes


def lay_out(arrays: Sequence[Array]) -> tuple[ArraySpec, ...]:
    """A place in one slot for each array, one behind the other, each on cache lines of its own.

    Pure; of no array, no place.
    """
    specs, end = [], 0
    for array in arrays:
        specs.append(ArraySpec(array.dtype.str, array.shape, end))
        end += -(-array.nbytes // ALIGN_BYTES) * ALIGN_BYTES
    return tuple(specs)


def copies(
    arrays: Sequence[Array], specs: Sequence[ArraySpec], buffer: npt.NDArray[np.uint8]
) -> tuple[Array, ...]:
    """The arrays once more, at their specs in `buffer`: uint8, large enough for the last of them.

    Raises ValueError if there is not a spec for each, TypeError if the buffer is too small.
    """
    views = tuple(np.ndarray(spec.shape, spec.dtype, buffer, spec.offset) for spec in specs)
    for view, array in zip(views, arrays, strict=True):
        view[...] = array
    return views


class Envelope(NamedTuple):
    """A message whose arrays are still in their slot."""

    kind: type[Message]
    info: FrameInfo
    facts: dict[str, Any]  # the other fields of the message that are no arrays
    ref: SlotRef | None
    specs: tuple[ArraySpec, ...]
    t_offered_ns: int = 0  # monotonic: when its writer had it ready

    def open(
        self, arrays: Sequence[Array], to_bgr: Callable[[Frame], Image] | None = None
    ) -> Message:
        """The message with its arrays, one for each spec, in order. Raises IndexError if one is missing."""
        if self.kind is Frame:
            return Frame(info=self.info, **self.facts, pixels=arrays[0], to_bgr=to_bgr)
        if self.kind is Tensor:
            return Tensor(info=self.info, **self.facts, pixels=arrays[0])
        if self.kind is Output:
            return Output(info=self.info, **self.facts, arrays=tuple(arrays))
        return Result(info=self.info, **self.facts)


def frame_shape(pixel_format: PixelFormat, width: int, height: int) -> tuple[int, ...]:
    """Of the pixels of a frame; see Frame. width, height: px, of the picture."""
    return (height, width, 3) if pixel_format == "bgr24" else (height * 3 // 2, width)


def arrays_of(message: Message) -> tuple[Array, ...]:
    """The arrays of a message that travel in a slot."""
    if isinstance(message, (Frame, Tensor)):  # a union is made anew each time
        return (message.pixels,)
    return message.arrays if isinstance(message, Output) else ()
