"""Messages as bytes: msgpack, a version in front.

    [version, kind, camera, width, height, stream epoch, layout, facts, name, truth, detections, numbers]

What differs from frame to frame is the last field, one piece of a fixed size. What stands before it
stays the same as long as a stream does, so it is packed and read once and then known by its bytes:
a process that slept for a frame's time has cold caches, and pays for all the code that it touches.

`decode` turns any bytes into Envelopes or raises MessageError, in bounded memory: strangers send, too.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgpack
import numpy as np

from pipeline.detections import Detections, Fit
from pipeline.errors import MessageError
from pipeline.happenings import from_rows, missed_from, to_rows
from pipeline.messages import (
    MAX_ARRAYS,
    MAX_MESSAGE_BYTES,
    MAX_SIDE_PX,
    ArraySpec,
    Envelope,
    Frame,
    FrameInfo,
    Message,
    Output,
    PixelFormat,
    Result,
    SlotRef,
    Tensor,
)

VERSION = 1

_KINDS: tuple[type[Message], ...] = (Frame, Tensor, Output, Result)
_BATCH, _DONE, _REFUSED = 100, 101, 102
_PACKER = msgpack.Packer()  # made anew for every message it would allocate its buffer of 256 KiB
_KNOWN = frozenset((*range(len(_KINDS)), _BATCH, _DONE, _REFUSED))
_DIGEST_BYTES = 16
_BATCH_MARK = bytes((VERSION, _BATCH))  # behind the byte that says how long the list is
# What strangers send must not cost memory: no nesting deeper or larger than our own messages.
_LIMITS: dict[str, Any] = {
    "raw": False, "strict_map_key": True, "max_str_len": 4096, "max_bin_len": MAX_MESSAGE_BYTES,
    "max_array_len": 1024, "max_map_len": 0, "max_ext_len": 0,
}  # fmt: skip


def message_front(message: Message, specs: Sequence[ArraySpec] = ()) -> bytes:
    """A message whose arrays lie at `specs`, without what `pack_numbers` puts behind it."""
    info, kind, found = message.info, type(message), None
    facts: tuple[Any, ...]
    if isinstance(message, Frame):
        facts = (message.format, message.matrix, message.full_range)
    elif isinstance(message, Tensor):
        facts = ((message.fit, *message.tiles),)
    elif isinstance(message, Output):
        facts = ((message.fit, *message.tiles), message.model_id)
    else:
        facts = (message.model_id, to_rows(message.happenings), message.missed)
        found = message.detections
    stream = (info.camera, info.width, info.height, info.stream_epoch)
    about: tuple[Any, ...] = (kind, *stream, tuple(specs), facts)
    if info.name is None and info.truth is None and found is None:
        return _known_front(about)
    return _front(about, info.name, info.truth, found)


def frame_front(
    info: FrameInfo, pixel_format: PixelFormat, matrix: str, full_range: bool, spec: ArraySpec
) -> bytes:
    """The same of a Frame; for all frames of a stream, if they have no name and no truth."""
    facts = (pixel_format, matrix, full_range)
    about = (Frame, info.camera, info.width, info.height, info.stream_epoch, (spec,), facts)
    return _front(about, info.name, info.truth)


def encode_batch(messages: Sequence[bytes]) -> bytes:
    """Several encoded messages as one: what a worker takes together, or what happens to travel together."""
    return messages[0] if len(messages) == 1 else _pack(_BATCH, list(messages))


def encode_done(refs: Sequence[SlotRef | None], cameras: Sequence[str]) -> bytes:
    """A reader is through with these slots (None: a message without pixels) of these cameras."""
    rows = [
        [camera, None if ref is None else _SLOT.pack(*ref)]
        for ref, camera in zip(refs, cameras, strict=True)
    ]
    return _pack(_DONE, rows)


def digest_of(message: bytes) -> bytes:
    """The name of an encoded message of which nothing else can be said, 16 bytes."""
    import hashlib  # OpenSSL, for what hardly any process ever does

    return hashlib.blake2b(message, digest_size=_DIGEST_BYTES).digest()


def encode_refused(messages: Sequence[bytes]) -> bytes:
    """A reader can make nothing of these messages, and is through with them."""
    return _pack(_REFUSED, list(map(digest_of, messages)))


def decode_refused(data: bytes) -> list[bytes]:
    """The digests of the messages that were refused. Raises MessageError for anything else."""
    kind, body = _unpack(data)
    if kind != _REFUSED:
        raise MessageError(f"wanted refused messages (kind {_REFUSED}), got kind {kind}")
    digests = body[0]
    if type(digests) is not list or any(
        type(d) is not bytes or len(d) != _DIGEST_BYTES for d in digests
    ):
        raise MessageError("refused messages with fields that do not fit")
    return digests


def parts_of(data: bytes) -> list[bytes]:
    """The bytes of each message that travels in `data`, whether they are messages or not."""
    try:
        if data[1:3] == _BATCH_MARK:
            parts = _unpack(data)[1][0]
            if type(parts) is list and all(type(part) is bytes for part in parts):
                return parts
    except (MessageError, *_BAD):
        pass
    return [data]


def decode(data: bytes) -> list[tuple[Envelope, bytes]]:
    """The messages in `data`, each with its bytes: one, or those of a batch in order.

    Raises MessageError for all else.
    """
    try:
        if data[1:3] != _BATCH_MARK:
            return [(_envelope(data), data)]
        # A batch in a batch is no message: what strangers nest would cost memory at every level.
        return [(_envelope(part), part) for part in _unpack(data)[1][0]]
    except _BAD as error:
        raise MessageError(f"message whose fields do not fit: {error!r:.200}") from error


def decode_done(data: bytes) -> list[tuple[str, SlotRef | None]]:
    """The (camera, slot) pairs of a DONE message. Raises MessageError for anything else."""
    kind, body = _unpack(data)
    if kind != _DONE:
        raise MessageError(f"wanted a DONE message (kind {_DONE}), got kind {kind}")
    try:
        return [
            (_text(camera), None if slot is None else SlotRef(*_SLOT.unpack_from(slot)))
            for camera, slot in body[0]
        ]
    except _BAD as error:
        raise MessageError(f"DONE message with fields that do not fit: {error!r:.200}") from error


_BAD = (
    TypeError, ValueError, IndexError, KeyError, OverflowError, AttributeError, RecursionError,
    struct.error,
)  # fmt: skip


def _pack(kind: int, *body: Any) -> bytes:
    try:
        data: bytes = _PACKER.pack([VERSION, kind, *body])
    except _BAD as error:  # what is not text, too large a number, …
        raise MessageError(f"message with a field that can't be sent: {error!r:.200}") from error
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageError(
            f"message of {len(data)} bytes: at most {MAX_MESSAGE_BYTES} travel over a socket; "
            "return fewer detections"
        )
    return data


def _unpack(data: bytes) -> tuple[int, list[Any]]:
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageError(f"message of {len(data)} bytes, wanted at most {MAX_MESSAGE_BYTES}")
    try:
        fields = msgpack.unpackb(data, **_LIMITS)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise MessageError(f"{len(data)} bytes that are no msgpack: {error!r:.200}") from error
    if not isinstance(fields, list) or len(fields) < 3 or type(fields[0]) is not int:
        raise MessageError("no message: wanted a list [version, kind, …]")
    if fields[0] != VERSION:
        raise MessageError(f"message of version {fields[0]}, this build knows {VERSION}")
    kind = fields[1]
    if type(kind) is not int or kind not in _KNOWN:
        raise MessageError(f"message of unknown kind {kind!r}")
    return kind, fields[2:]


def _envelope(data: bytes) -> Envelope:
    front = data[: -_NUMBERS.size]
    kind, camera, width, height, stream_epoch, specs, facts, name, truth = (
        _read_known(front) if len(front) <= _SHORT_BYTES else _read(front)
    )
    (
        frame_id, t_capture_ns, t_wall_ns, t_offered_ns, pts_ns, flags, *slot
    ) = _NUMBERS.unpack_from(data, len(front))  # fmt: skip
    info = FrameInfo(
        camera, frame_id, t_capture_ns, t_wall_ns, width, height, stream_epoch,
        pts_ns if flags & _HAS_PTS else None, flags & _CORRUPT != 0, flags & _KEYFRAME != 0,
        name, truth, flags & _RECORDED != 0,
    )  # fmt: skip
    ref = SlotRef(*slot) if flags & _HAS_SLOT else None
    if specs and ref is None:
        raise ValueError("arrays without a slot")
    return Envelope(kind, info, facts, ref, specs, t_offered_ns)


# -- numbers: their types are their check -----------------------------------------------------------

# frame_id, t_capture_ns, t_wall_ns, t_offered_ns, pts_ns, flags; pool epoch, slot, generation
_NUMBERS = struct.Struct("<QQqQqBQHQ")
_CORRUPT, _KEYFRAME, _HAS_PTS, _HAS_SLOT, _RECORDED = 1, 2, 4, 8, 16
_SLOT = struct.Struct("<QHQ")
_NOWHERE = SlotRef(0, 0, 0)


def pack_numbers(info: FrameInfo, ref: SlotRef | None, t_offered_ns: int) -> bytes:
    """The end of a message, after its front."""
    flags = (
        info.corrupt * _CORRUPT
        + info.keyframe * _KEYFRAME
        + (info.pts_ns is not None) * _HAS_PTS
        + (ref is not None) * _HAS_SLOT
        + info.recorded * _RECORDED
    )
    try:
        return _NUMBERS.pack(
            info.frame_id, info.t_capture_ns, info.t_wall_ns, t_offered_ns, info.pts_ns or 0, flags,
            *(ref or _NOWHERE),
        )  # fmt: skip
    except struct.error as error:
        raise MessageError(f"message with a number that can't be sent: {error}") from error


# -- the front: all that stands before the numbers --------------------------------------------------

_FIT = struct.Struct("<4d")
_SPEC = struct.Struct("<BBQ")  # index of the dtype, dimensions, offset; then a uint32 a dimension
_DTYPES = ("|u1", "<f4", "<f2", "<i4", "<i8")
_MAX_DIMENSIONS = 8
_ARRAYS: dict[type[Message], int] = {Frame: 1, Tensor: 1, Result: 0}
_SHORT_BYTES = 512  # fronts that are longer hold detections, which never come again
_KNOWN_FRONTS = 512  # several for each camera of a large run
_Front = tuple[
    type[Message], str, int, int, int, tuple[ArraySpec, ...], dict[str, Any],
    str | None, Detections | None,
]  # fmt: skip


def _front(
    about: tuple[Any, ...],
    name: str | None = None,
    truth: Detections | None = None,
    found: Detections | None = None,
) -> bytes:
    """about: kind, camera, width, height, stream epoch, specs, facts."""
    kind, camera, width, height, stream_epoch, specs, facts = about
    data = _pack(
        _KINDS.index(kind),
        camera,
        width,
        height,
        stream_epoch,
        [_pack_spec(spec) for spec in specs],
        facts if kind in (Frame, Result) else [_pack_fits(facts[0]), *facts[1:]],
        name,
        None if truth is None else _pack_detections(truth),
        None if found is None else _pack_detections(found),
        bytes(_NUMBERS.size),
    )
    return data[: -_NUMBERS.size]


_known_front = lru_cache(maxsize=_KNOWN_FRONTS)(_front)


def _read(front: bytes) -> _Front:
    """What `_front` was given, of a Result with its detections among the facts."""
    code, body = _unpack(front + bytes(_NUMBERS.size))
    kind = _KINDS[code]
    camera, width, height, stream_epoch, layout, extra, name, truth, found, numbers = body
    _number(width, 1, MAX_SIDE_PX), _number(height, 1, MAX_SIDE_PX)
    specs = tuple(map(_spec, layout))
    if len(specs) != _ARRAYS.get(kind, len(specs)) or len(specs) > MAX_ARRAYS:
        raise ValueError(f"{len(specs)} arrays")
    if type(numbers) is not bytes or len(numbers) != _NUMBERS.size:
        raise ValueError("no numbers")
    if kind is Frame:
        facts = dict(zip(("format", "matrix", "full_range"), extra, strict=True))
        _check_frame(facts, specs[0])
    elif kind is Tensor:
        facts = _fits(extra[0])
    elif kind is Output:
        facts = {**_fits(extra[0]), "model_id": _text(extra[1])}
    else:
        facts = {"model_id": _text(extra[0]), "happenings": from_rows(extra[1])}
        facts |= {"missed": missed_from(extra[2]), "detections": _detections(found)}
    return (
        kind, _text(camera), width, height, _number(stream_epoch), specs, facts,
        None if name is None else _text(name), None if truth is None else _detections(truth),
    )  # fmt: skip


_read_known = lru_cache(maxsize=_KNOWN_FRONTS)(_read)


def _check_frame(facts: dict[str, Any], spec: ArraySpec) -> None:
    rows, columns, *depth = spec.shape
    pixel_format = facts["format"]
    if pixel_format == "i420":
        good = not depth and rows > 0 and rows % 3 == columns % 2 == 0
    else:
        good = pixel_format == "bgr24" and depth == [3] and rows > 0
    if not good or not columns or spec.dtype != "|u1":
        raise ValueError(f"pixel format {pixel_format!r} in {spec.dtype} {spec.shape}")
    if facts["matrix"] not in ("bt601", "bt709") or type(facts["full_range"]) is not bool:
        raise ValueError(f"matrix {facts['matrix']!r}, full range {facts['full_range']!r}")


def _pack_fits(fits: tuple[Fit, ...]) -> bytes:
    rows = ((f.scale_x, f.scale_y, f.offset_x_px, f.offset_y_px) for f in fits)
    return b"".join(_FIT.pack(*row) for row in rows)


def _fits(data: bytes) -> dict[str, Any]:
    rows = list(_FIT.iter_unpack(data))
    if not all(min(row[:2]) > 0 and all(map(math.isfinite, row)) for row in rows):
        raise ValueError(f"fits of {rows!r:.100}")
    fit, *tiles = (
        Fit(scale_x=x, scale_y=y, offset_x_px=left, offset_y_px=top) for x, y, left, top in rows
    )
    return {"fit": fit, "tiles": tuple(tiles)}


def _pack_spec(spec: ArraySpec) -> bytes:
    if spec.dtype not in _DTYPES or len(spec.shape) > _MAX_DIMENSIONS:
        raise MessageError(
            f"an array {spec.dtype} {spec.shape} can't be sent; it must have one of the types "
            f"{', '.join(_DTYPES)} and at most {_MAX_DIMENSIONS} dimensions"
        )
    head = _SPEC.pack(_DTYPES.index(spec.dtype), len(spec.shape), spec.offset)
    return head + struct.pack(f"<{len(spec.shape)}I", *spec.shape)


def _spec(data: bytes) -> ArraySpec:
    code, dimensions, offset = _SPEC.unpack_from(data)
    if code >= len(_DTYPES) or dimensions > _MAX_DIMENSIONS or offset > 1 << 40:
        raise ValueError(f"an array of type {code} with {dimensions} dimensions at {offset}")
    shape = struct.unpack_from(f"<{dimensions}I", data, _SPEC.size)
    if math.prod(shape) > 1 << 31:
        raise ValueError(f"an array of shape {shape}")
    return ArraySpec(dtype=_DTYPES[code], shape=shape, offset=offset)


# -- values ----------------------------------------------------------------------------------------


def _pack_detections(detections: Detections) -> list[Any]:
    tracks = detections.track_ids
    return [
        detections.xyxy.tobytes(),
        detections.scores.tobytes(),
        detections.labels.tobytes(),
        None if tracks is None else tracks.tobytes(),
    ]


def _detections(row: list[Any]) -> Detections:
    xyxy, scores, labels, tracks = row[:4]
    return Detections(
        np.frombuffer(xyxy, np.float32).reshape(-1, 4),
        np.frombuffer(scores, np.float32),
        np.frombuffer(labels, np.int32),
        None if tracks is None else np.frombuffer(tracks, np.int64),
    )


def _number(value: Any, low: int = 0, high: int = (1 << 63) - 1) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"wanted an integer in {low}..{high}, got {value!r}")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"wanted text, got {type(value).__name__}")
    return value
