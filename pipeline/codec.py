"""Messages as bytes: msgpack, a version in front.

`decode` turns any bytes into Envelopes or raises MessageError, in bounded memory: it reads what strangers
send, too.
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
    Result,
    SlotRef,
    Tensor,
)

VERSION = 1

_KINDS: tuple[type[Message], ...] = (Frame, Tensor, Output, Result)
_BATCH, _DONE = 100, 101
_ARRAYS: dict[type[Message], int] = {Frame: 1, Tensor: 1, Result: 0}
_KNOWN = frozenset((*range(len(_KINDS)), _BATCH, _DONE))
# What strangers send must not cost memory: no nesting deeper or larger than our own messages.
_LIMITS: dict[str, Any] = {
    "raw": False, "strict_map_key": True, "max_str_len": 4096, "max_bin_len": MAX_MESSAGE_BYTES,
    "max_array_len": 1024, "max_map_len": 0, "max_ext_len": 0,
}  # fmt: skip


def encode(
    message: Message,
    ref: SlotRef | None = None,
    specs: Sequence[ArraySpec] = (),
    t_offered_ns: int = 0,
) -> bytes:
    """The wire form of a message whose arrays lie in slot `ref` at `specs`."""
    return _pack(_KINDS.index(type(message)), *_body(message, ref, specs), t_offered_ns)


def encode_batch(parts: Sequence[bytes]) -> bytes:
    """Several encoded messages as one, for a worker that takes a batch."""
    return _pack(_BATCH, list(parts))


def encode_done(refs: Sequence[SlotRef | None], cameras: Sequence[str]) -> bytes:
    """A reader is through with these slots (None: a message without pixels) of these cameras."""
    rows = [
        [camera, None if ref is None else _pack_ref(ref)]
        for ref, camera in zip(refs, cameras, strict=True)
    ]
    return _pack(_DONE, rows)


def decode(data: bytes) -> list[Envelope]:
    """The messages in `data`: one, or those of a batch in order. Raises MessageError for all else."""
    kind, body = _unpack(data)
    try:
        parts = [_unpack(part) for part in body[0]] if kind == _BATCH else [(kind, body)]
        # A batch in a batch has no kind: what strangers nest would cost memory at every level.
        return [_envelope(_KINDS[kind], body) for kind, body in parts]
    except _BAD as error:
        raise MessageError(f"message of kind {kind}: fields do not fit: {error!r:.200}") from error


def decode_done(data: bytes) -> list[tuple[str, SlotRef | None]]:
    """The (camera, slot) pairs of a DONE message. Raises MessageError for anything else."""
    kind, body = _unpack(data)
    if kind != _DONE:
        raise MessageError(f"wanted a DONE message (kind {_DONE}), got kind {kind}")
    try:
        return [(_text(camera), None if slot is None else _ref(slot)) for camera, slot in body[0]]
    except _BAD as error:
        raise MessageError(f"DONE message with fields that do not fit: {error!r:.200}") from error


_BAD = (
    TypeError, ValueError, IndexError, KeyError, OverflowError, AttributeError, RecursionError,
    struct.error,
)  # fmt: skip


def _pack(kind: int, *body: Any) -> bytes:
    data: bytes = msgpack.packb([VERSION, kind, *body])
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


def _body(message: Message, ref: SlotRef | None, specs: Sequence[ArraySpec]) -> list[Any]:
    extra: list[Any]
    if isinstance(message, Frame):
        extra = [message.format, message.matrix, message.full_range]
    elif isinstance(message, Tensor):
        extra = [_pack_fit(message.fit)]
    elif isinstance(message, Output):
        extra = [_pack_fit(message.fit), message.model_id]
    else:
        extra = [_pack_detections(message.detections), message.model_id]
    slot = None if ref is None else _pack_ref(ref)
    return [_pack_info(message.info), slot, [_pack_spec(spec) for spec in specs], extra]


def _envelope(kind: type[Message], body: list[Any]) -> Envelope:
    about, slot, layout, extra, t_offered_ns = body[:5]  # fields of a later build are ignored
    info = _info(about)
    specs = tuple(map(_spec, layout))
    wanted = _ARRAYS.get(kind, len(specs))
    if len(specs) != wanted or len(specs) > MAX_ARRAYS:
        raise ValueError(f"{len(specs)} arrays")
    if kind is Frame:
        pixel_format, matrix, full_range = extra[:3]
        facts = {"format": pixel_format, "matrix": matrix, "full_range": bool(full_range)}
        _check_frame(info, pixel_format, matrix, specs[0])
    elif kind is Tensor:
        facts = {"fit": _fit(extra[0])}
    elif kind is Output:
        facts = {"fit": _fit(extra[0]), "model_id": _text(extra[1])}
    else:
        facts = {"detections": _detections(extra[0]), "model_id": _text(extra[1])}
    ref = None if slot is None else _ref(slot)
    if specs and ref is None:
        raise ValueError("arrays without a slot")
    if type(t_offered_ns) is not int or t_offered_ns < 0:
        raise ValueError(f"offered at {t_offered_ns!r}")
    return Envelope(
        kind=kind, info=info, facts=facts, ref=ref, specs=specs, t_offered_ns=t_offered_ns
    )


def _check_frame(info: FrameInfo, pixel_format: Any, matrix: Any, spec: ArraySpec) -> None:
    width, height = info.width, info.height
    if pixel_format == "bgr24":
        wanted: tuple[int, ...] = (height, width, 3)
    elif pixel_format == "i420" and not (width % 2 or height % 2):
        wanted = (height * 3 // 2, width)
    else:
        raise ValueError(f"pixel format {pixel_format!r} of {width}x{height}")
    if spec.dtype != "|u1" or spec.shape != wanted:
        raise ValueError(f"{pixel_format} {width}x{height} in {spec.dtype} {spec.shape}")
    if matrix not in ("bt601", "bt709"):
        raise ValueError(f"matrix {matrix!r}")


# Numbers travel as one piece: what reads a header of a dozen msgpack fields, and checks each, costs
# more than all the rest of a hop. The types of the piece are the check.
_NUMBERS = struct.Struct("<QQQIIQqB")  # … and flags
_CORRUPT, _KEYFRAME, _HAS_PTS = 1, 2, 4
_SLOT = struct.Struct("<QHQ")
_FIT = struct.Struct("<4d")
_SPEC = struct.Struct("<BBQ")  # index of the dtype, dimensions, offset; then a uint32 a dimension
_DTYPES = ("|u1", "<f4", "<f2", "<i4", "<i8")
_MAX_DIMENSIONS = 8


def _pack_info(info: FrameInfo) -> list[Any]:
    pts_ns = info.pts_ns
    flags = info.corrupt * _CORRUPT + info.keyframe * _KEYFRAME + (pts_ns is not None) * _HAS_PTS
    numbers = _NUMBERS.pack(
        info.frame_id, info.t_capture_ns, info.t_wall_ns, info.width, info.height,
        info.stream_epoch, pts_ns or 0, flags,
    )  # fmt: skip
    truth = None if info.truth is None else _pack_detections(info.truth)
    return [info.camera, numbers, info.name, truth]


def _info(row: list[Any]) -> FrameInfo:
    camera, numbers, name, truth = row[:4]
    frame_id, t_capture_ns, t_wall_ns, width, height, epoch, pts_ns, flags = _NUMBERS.unpack_from(
        numbers
    )
    if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX):
        raise ValueError(f"a picture of {width}x{height} px")
    return FrameInfo(
        camera=_text(camera),
        frame_id=frame_id,
        t_capture_ns=t_capture_ns,
        t_wall_ns=t_wall_ns,
        width=width,
        height=height,
        stream_epoch=epoch,
        pts_ns=pts_ns if flags & _HAS_PTS else None,
        corrupt=bool(flags & _CORRUPT),
        keyframe=bool(flags & _KEYFRAME),
        name=None if name is None else _text(name),
        truth=None if truth is None else _detections(truth),
    )


def _pack_fit(fit: Fit) -> bytes:
    return _FIT.pack(fit.scale_x, fit.scale_y, fit.offset_x_px, fit.offset_y_px)


def _fit(data: bytes) -> Fit:
    row = _FIT.unpack_from(data)
    scale_x, scale_y, offset_x, offset_y = row
    if not (scale_x > 0 and scale_y > 0 and all(map(math.isfinite, row))):
        raise ValueError(f"a fit of {row!r}")
    return Fit(scale_x=scale_x, scale_y=scale_y, offset_x_px=offset_x, offset_y_px=offset_y)


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


def _pack_spec(spec: ArraySpec) -> bytes:
    head = _SPEC.pack(_DTYPES.index(spec.dtype), len(spec.shape), spec.offset)
    return head + struct.pack(f"<{len(spec.shape)}I", *spec.shape)


@lru_cache(maxsize=256)  # a camera's frames are all alike
def _spec(data: bytes) -> ArraySpec:
    code, dimensions, offset = _SPEC.unpack_from(data)
    if code >= len(_DTYPES) or dimensions > _MAX_DIMENSIONS or offset > 1 << 40:
        raise ValueError(f"an array of type {code} with {dimensions} dimensions at {offset}")
    if len(data) != _SPEC.size + 4 * dimensions:
        raise ValueError(f"{dimensions} sides in {len(data)} bytes")
    shape = struct.unpack_from(f"<{dimensions}I", data, _SPEC.size)
    if math.prod(shape) > 1 << 31:
        raise ValueError(f"an array of shape {shape}")
    return ArraySpec(dtype=_DTYPES[code], shape=shape, offset=offset)


def _pack_ref(ref: SlotRef) -> bytes:
    return _SLOT.pack(ref.pool_epoch, ref.slot, ref.generation)


def _ref(data: bytes) -> SlotRef:
    epoch, slot, generation = _SLOT.unpack_from(data)
    return SlotRef(pool_epoch=epoch, slot=slot, generation=generation)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"wanted text, got {type(value).__name__}")
    return value
