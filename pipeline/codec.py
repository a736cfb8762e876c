"""Messages as bytes: msgpack, a version in front.

`decode` turns any bytes into Envelopes or raises MessageError, in bounded memory: it reads what strangers
send, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
        [camera] if ref is None else [camera, ref.pool_epoch, ref.slot, ref.generation]
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
        return [(_text(row[0]), _ref(row[1:]) if len(row) > 1 else None) for row in body[0]]
    except _BAD as error:
        raise MessageError(f"DONE message with fields that do not fit: {error!r:.200}") from error


_BAD = (TypeError, ValueError, IndexError, KeyError, OverflowError, AttributeError, RecursionError)


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
    if type(kind) is not int or kind not in (*range(len(_KINDS)), _BATCH, _DONE):
        raise MessageError(f"message of unknown kind {kind!r}")
    return kind, fields[2:]


def _body(message: Message, ref: SlotRef | None, specs: Sequence[ArraySpec]) -> list[Any]:
    slot = None if ref is None else [ref.pool_epoch, ref.slot, ref.generation]
    layout = [[spec.dtype, list(spec.shape), spec.offset] for spec in specs]
    extra: list[Any]
    if isinstance(message, Frame):
        extra = [message.format, message.matrix, message.full_range]
    elif isinstance(message, Tensor):
        extra = [_pack_fit(message.fit)]
    elif isinstance(message, Output):
        extra = [_pack_fit(message.fit), message.model_id]
    else:
        extra = [_pack_detections(message.detections), message.model_id]
    return [_pack_info(message.info), slot, layout, extra]


def _envelope(kind: type[Message], body: list[Any]) -> Envelope:
    info, slot, layout, extra, t_offered_ns = body[:5]  # fields of a later build are ignored
    facts: dict[str, Any] = {"info": _info(info)}
    if kind is Frame:
        pixel_format, matrix, full_range = extra[:3]
        if pixel_format not in ("bgr24", "i420") or matrix not in ("bt601", "bt709"):
            raise ValueError(f"pixel format {pixel_format!r}, matrix {matrix!r}")
        facts |= {"format": pixel_format, "matrix": matrix, "full_range": bool(full_range)}
    elif kind is Tensor:
        facts |= {"fit": _fit(extra[0])}
    elif kind is Output:
        facts |= {"fit": _fit(extra[0]), "model_id": _text(extra[1])}
    else:
        facts |= {"detections": _detections(extra[0]), "model_id": _text(extra[1])}
    specs = tuple(_spec(*row[:3]) for row in layout)
    wanted = {Frame: 1, Tensor: 1, Result: 0}.get(kind, len(specs))
    if len(specs) != wanted or len(specs) > MAX_ARRAYS:
        raise ValueError(f"{len(specs)} arrays")
    ref = None if slot is None else _ref(slot)
    if specs and ref is None:
        raise ValueError("arrays without a slot")
    if kind is Frame:
        _check_frame_shape(facts, specs[0])
    t_offered_ns = _number(t_offered_ns)
    return Envelope(kind=kind, facts=facts, ref=ref, specs=specs, t_offered_ns=t_offered_ns)


def _check_frame_shape(facts: dict[str, Any], spec: ArraySpec) -> None:
    width, height = facts["info"].width, facts["info"].height
    bgr = facts["format"] == "bgr24"
    wanted = (height, width, 3) if bgr else (height * 3 // 2, width)
    odd = not bgr and (width % 2 or height % 2)
    if spec.dtype != "|u1" or spec.shape != wanted or odd:
        raise ValueError(f"{facts['format']} {width}x{height} in {spec.dtype} {spec.shape}")


def _pack_info(info: FrameInfo) -> list[Any]:
    truth = None if info.truth is None else _pack_detections(info.truth)
    return [
        info.camera, info.frame_id, info.t_capture_ns, info.t_wall_ns, info.width, info.height,
        info.stream_epoch, info.pts_ns, info.corrupt, info.keyframe, info.name, truth,
    ]  # fmt: skip


def _info(row: list[Any]) -> FrameInfo:
    camera, frame_id, t_capture, t_wall, width, height, epoch, pts, corrupt, key, name, truth = row[
        :12
    ]
    return FrameInfo(
        camera=_text(camera),
        frame_id=_number(frame_id),
        t_capture_ns=_number(t_capture),
        t_wall_ns=_number(t_wall),
        width=_number(width, 1, MAX_SIDE_PX),
        height=_number(height, 1, MAX_SIDE_PX),
        stream_epoch=_number(epoch),
        pts_ns=None if pts is None else _number(pts, -(1 << 63)),
        corrupt=bool(corrupt),
        keyframe=bool(key),
        name=None if name is None else _text(name),
        truth=None if truth is None else _detections(truth),
    )


def _pack_fit(fit: Fit) -> list[float]:
    return [fit.scale_x, fit.scale_y, fit.offset_x_px, fit.offset_y_px]


def _fit(row: list[Any]) -> Fit:
    scale_x, scale_y, offset_x, offset_y = (float(value) for value in row[:4])
    if not (scale_x > 0 and scale_y > 0 and all(map(math.isfinite, row[:4]))):
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


def _spec(dtype: Any, shape: Any, offset: Any) -> ArraySpec:
    name = _text(dtype)
    if name not in ("|u1", "<f4", "<f2", "<i4", "<i8"):
        raise ValueError(f"an array of {name!r}")
    if len(shape) > 8:
        raise ValueError(f"an array of {len(shape)} dimensions")
    sides = tuple(_number(side, 0, 1 << 31) for side in shape)
    if math.prod(sides) > 1 << 31:
        raise ValueError(f"an array of shape {sides}")
    return ArraySpec(dtype=name, shape=sides, offset=_number(offset, 0, 1 << 40))


def _ref(row: Sequence[Any]) -> SlotRef:
    epoch, slot, generation = row[:3]
    return SlotRef(
        pool_epoch=_number(epoch), slot=_number(slot, 0, 1 << 16), generation=_number(generation)
    )


def _number(value: Any, low: int = 0, high: int = (1 << 63) - 1) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"wanted an integer in {low}..{high}, got {value!r}")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"wanted text, got {type(value).__name__}")
    return value
