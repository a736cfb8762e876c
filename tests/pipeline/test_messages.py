"""The wire: what is sent comes back, what strangers send is a MessageError in bounded memory."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from dataclasses import fields, replace

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.detections import Detections, Fit
from pipeline.errors import FrameError, MessageError
from pipeline.happenings import Happening
from pipeline.hop.codec import (
    decode,
    decode_done,
    encode_batch,
    encode_done,
    frame_front,
    message_front,
    pack_numbers,
)
from pipeline.messages import (
    ALIGN_BYTES,
    MAX_MESSAGE_BYTES,
    ArraySpec,
    Envelope,
    Frame,
    FrameInfo,
    Output,
    Result,
    SlotRef,
    Tensor,
    arrays_of,
    copies,
    lay_out,
)

FOUND = Detections(
    np.float32([[0, 0, 4, 2], [1, 1, 1, 1]]),
    np.float32([0.9, 0.0]),
    np.int32([1, 0]),
    np.int64([7, -1]),
)
INFO = FrameInfo(camera="gate", frame_id=120, t_capture_ns=5, t_wall_ns=6, width=6, height=4)
FULL_INFO = INFO._replace(
    stream_epoch=2,
    pts_ns=-3,
    corrupt=True,
    keyframe=True,
    name="a.jpg",
    truth=FOUND,
    recorded=True,
)
FIT = Fit(scale_x=0.5, scale_y=0.25, offset_x_px=1.0, offset_y_px=2.0)
REF = SlotRef(pool_epoch=3, slot=1, generation=8)
BGR, I420 = np.zeros((4, 6, 3), np.uint8), np.zeros((6, 6), np.uint8)
BOXES = (np.zeros((5, 4), np.float32), np.zeros(5, np.float32), np.zeros((0, 2), np.int64))
MESSAGES = {
    "bgr24": Frame(info=INFO, format="bgr24", pixels=BGR),
    "i420": Frame(info=FULL_INFO, format="i420", pixels=I420, matrix="bt709", full_range=True),
    "tensor": Tensor(info=FULL_INFO, fit=FIT, pixels=BGR),
    "output": Output(info=INFO, fit=FIT, model_id="m", arrays=BOXES),
    "output of nothing": Output(info=INFO, fit=FIT, model_id="", arrays=()),
    "frame of a clock before 1970": Frame(
        info=INFO._replace(t_wall_ns=-86_400_000_000_000), format="bgr24", pixels=BGR
    ),
    "result": Result(info=FULL_INFO, detections=FOUND, model_id="m"),
    "result with happenings": Result(
        info=INFO,
        detections=FOUND,
        happenings=(
            Happening("crossed", "5f3a", 7, "car", 0.9, (0.0, 0.0, 4.0, 2.0), "kerb", "in"),
            Happening("crowded", "5f3a", -1, "", 0.0, (0.0,) * 4, "door", "", 3, 0.0),
            Happening("left", "5f3a", 7, "тüр", 0.5, (0.0, 1.5, 4.0, 2.0), "door", "", 0, 2.5),
        ),
    ),
    "empty result": Result(info=INFO, detections=Detections.empty()),
}


def wire(message) -> bytes:
    """The message as a writer sends it: its arrays one after another in a slot."""
    specs, offset = [], 0
    for array in arrays_of(message):
        specs.append(ArraySpec(dtype=array.dtype.str, shape=array.shape, offset=offset))
        offset += array.nbytes
    return message_front(message, specs) + pack_numbers(message.info, REF if specs else None, 0)


def same(left, right) -> bool:
    """Equality of dataclasses with arrays in them."""
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if hasattr(left, "__dataclass_fields__"):
        return type(left) is type(right) and all(
            same(getattr(left, f.name), getattr(right, f.name)) for f in fields(left)
        )
    return left == right


@pytest.mark.parametrize("name", MESSAGES)
def test_what_is_sent_comes_back(name):
    message = MESSAGES[name]
    ((envelope, data),) = decode(wire(message))
    assert data == wire(message)
    assert envelope.info.camera == "gate"
    assert [spec.shape for spec in envelope.specs] == [a.shape for a in arrays_of(message)]
    assert [spec.nbytes for spec in envelope.specs] == [a.nbytes for a in arrays_of(message)]
    assert envelope.ref == (REF if envelope.specs else None)
    assert same(envelope.open(arrays_of(message)), message)


@pytest.mark.parametrize("name", ["bgr24", "i420"])
def test_what_a_camera_knows_of_its_stream_is_the_front_of_its_frames(name):
    frame = MESSAGES[name]
    spec = ArraySpec(dtype="|u1", shape=frame.pixels.shape, offset=0)
    front = frame_front(frame.info, frame.format, frame.matrix, frame.full_range, spec)
    assert front == message_front(frame, [spec])


def test_a_batch_comes_back_in_order_and_may_be_empty():
    parts = [wire(message) for message in MESSAGES.values()]
    found = decode(encode_batch(parts))
    assert [envelope.kind for envelope, _ in found] == [type(m) for m in MESSAGES.values()]
    assert [data for _, data in found] == parts
    assert decode(encode_batch([])) == []


def test_done_names_each_slot_with_its_camera():
    assert decode_done(encode_done([REF, None], ["gate", "yard"])) == [
        ("gate", REF),
        ("yard", None),
    ]
    assert decode_done(encode_done([], [])) == []
    with pytest.raises(MessageError, match="wanted a DONE message"):
        decode_done(wire(MESSAGES["result"]))
    with pytest.raises(MessageError):
        decode(encode_done([REF], ["gate"]))


def test_descriptors_are_small():
    assert len(wire(MESSAGES["bgr24"])) < 150


def test_another_version_and_more_fields_than_known_are_refused():
    later = msgpack.unpackb(wire(MESSAGES["tensor"]))
    with pytest.raises(MessageError):
        decode(msgpack.packb([*later, "new"]))
    later[0] = 2
    with pytest.raises(MessageError, match="message of version 2, this build knows 1"):
        decode(msgpack.packb(later))


def test_what_is_known_of_a_stream_does_not_stick_to_another_frame():
    for n in range(3):
        info = INFO._replace(frame_id=n, pts_ns=n or None, corrupt=n == 1, keyframe=n == 2)
        for width in (6, 2):
            frame = Frame(
                info=info._replace(width=width), format="bgr24", pixels=BGR[:, :width].copy()
            )
            ((envelope, _),) = decode(wire(frame))
            assert same(envelope.open([frame.pixels]), frame)
            assert envelope.ref == REF


def changed(name: str, path: tuple[int, ...], value) -> bytes:
    row = msgpack.unpackb(wire(MESSAGES[name]))
    inner = row
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return msgpack.packb(row)


def spec(code: int, *shape: int, offset: int = 0) -> bytes:
    return struct.pack(f"<BBQ{len(shape)}I", code, len(shape), offset, *shape)


CAMERA, WIDTH, HEIGHT, EPOCH, LAYOUT, FACTS, NAME, TRUTH, RESULT, NUMBERS = range(2, 12)


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("bgr24", (0,), "1"),
        ("bgr24", (1,), 77),
        ("bgr24", (1,), True),
        ("bgr24", (CAMERA,), 3),
        ("bgr24", (WIDTH,), 0),
        ("bgr24", (WIDTH,), True),
        ("bgr24", (HEIGHT,), 1 << 20),
        ("bgr24", (LAYOUT, 0), spec(0, 4, 6)),
        ("bgr24", (LAYOUT, 0), spec(0, 4, 6, 4)),
        ("bgr24", (LAYOUT, 0), spec(0, 0, 6, 3)),
        ("bgr24", (EPOCH,), -1),
        ("bgr24", (LAYOUT,), []),
        ("bgr24", (LAYOUT, 0), ["|u1"]),
        ("bgr24", (LAYOUT, 0), spec(9, 4, 6, 3)),
        ("bgr24", (LAYOUT, 0), spec(1, 4, 6, 3)),
        ("bgr24", (LAYOUT, 0), spec(0, 4, 6, 3)[:-1]),
        ("bgr24", (LAYOUT, 0), spec(0, 4, 6, 3, offset=1 << 50)),
        ("bgr24", (FACTS, 0), "rgb24"),
        ("bgr24", (FACTS, 1), "bt2020"),
        ("bgr24", (FACTS,), ["bgr24"]),
        ("bgr24", (NUMBERS,), -1),
        ("bgr24", (NUMBERS,), b"short"),
        ("bgr24", (NUMBERS,), bytes(64)),  # no slot
        ("bgr24", (NAME,), 3),
        ("i420", (LAYOUT, 0), spec(0, 5, 6)),
        ("i420", (LAYOUT, 0), spec(0, 6, 5)),
        ("i420", (LAYOUT, 0), spec(0, 6, 6, 3)),
        ("i420", (TRUTH, 0), b"123"),
        ("tensor", (FACTS, 0), struct.pack("<4d", 0, 1, 0, 0)),
        ("tensor", (FACTS, 0), struct.pack("<4d", np.nan, 1, 0, 0)),
        ("tensor", (FACTS, 0), struct.pack("<4d", 1, 1, np.inf, 0)),
        ("tensor", (FACTS, 0), struct.pack("<2d", 1, 1)),
        ("output", (LAYOUT, 0), spec(0, 1 << 20, 1 << 20)),
        ("output", (LAYOUT, 0), spec(0, *[1] * 9)),
        ("output", (LAYOUT,), [spec(0, 1)] * 17),
        ("result", (RESULT,), None),
        ("result", (RESULT, 1), b"\0\0\0\0"),
        ("result", (RESULT, 1), np.float32([0.5, np.nan]).tobytes()),
        ("result", (RESULT, 0), "text"),
        ("result", (FACTS, 0), None),
    ],
)
def test_fields_that_do_not_fit_are_refused(name, path, value):
    with pytest.raises(MessageError):
        decode(changed(name, path, value))


@given(st.binary(max_size=4096))
@settings(max_examples=300)
def test_arbitrary_bytes_are_a_message_or_a_message_error(data):
    for function in (decode, decode_done):
        with contextlib.suppress(MessageError):
            function(data)


@given(st.sampled_from(sorted(MESSAGES)), st.data())
@settings(max_examples=400)
def test_spoilt_messages_are_messages_or_a_message_error(name, data):
    spoilt = bytearray(wire(MESSAGES[name]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(spoilt) - 1))
        spoilt[at] = data.draw(st.integers(0, 255))
    spoilt = (
        spoilt[: data.draw(st.integers(0, len(spoilt)))] if data.draw(st.booleans()) else spoilt
    )
    for candidate in (bytes(spoilt), encode_batch([bytes(spoilt)] * 2)):
        try:
            found = decode(candidate)
        except MessageError:
            continue
        assert all(isinstance(envelope, Envelope) for envelope, _ in found)


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), 1 << 63)
    | st.floats()
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=12),
    max_leaves=40,
)


@given(st.integers(-1, 5) | st.sampled_from([100, 101]), st.lists(junk, max_size=5))
@settings(max_examples=300)
def test_lists_of_anything_are_a_message_or_a_message_error(kind, body):
    data = msgpack.packb([1, kind, *body])
    for function in (decode, decode_done):
        with contextlib.suppress(MessageError):
            function(data)


def nested_batches() -> bytes:
    data = wire(MESSAGES["result"])
    while len(outer := msgpack.packb([1, 100, [data]])) <= MAX_MESSAGE_BYTES:
        data = outer
    return data


@pytest.mark.parametrize(
    "data",
    [
        nested_batches(),
        b"\xdc\x04\x00" * 20000,  # each claims 1024 entries, inside the one before
        b"\xdd\xff\xff\xff\xff",  # claims four thousand million entries
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 60000,
        msgpack.packb([1, 100, [b""] * 1000]),
        b"\0" * (MAX_MESSAGE_BYTES + 1),
        b"",
    ],
    ids=["batches", "arrays", "long", "bytes", "deep", "empty parts", "large", "empty"],
)
def test_bombs_cost_no_memory(data):
    tracemalloc.start()
    try:
        with pytest.raises(MessageError) as error:
            decode(data)
        assert len(str(error.value)) < 400
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


def test_too_large_a_message_is_refused_where_it_is_made():
    many = Detections(
        np.zeros((4000, 4), np.float32), np.zeros(4000, np.float32), np.zeros(4000, np.int32)
    )
    with pytest.raises(MessageError, match="return fewer detections"):
        message_front(Result(info=INFO, detections=many))


def test_planes_are_views_and_pictures_are_converted_once():
    calls = []

    def to_bgr(frame):
        calls.append(frame)
        return BGR

    frame = replace(MESSAGES["i420"], to_bgr=to_bgr)
    luma, u, v = frame.planes
    assert (luma.shape, u.shape, v.shape) == ((4, 6), (2, 3), (2, 3))
    assert all(np.shares_memory(plane, I420) for plane in (luma, u, v))
    assert frame.image is BGR
    assert frame.image is BGR
    assert len(calls) == 1
    with pytest.raises(FrameError, match="without a converter"):
        _ = MESSAGES["i420"].image
    with pytest.raises(FrameError, match="wanted an i420 frame"):
        _ = MESSAGES["bgr24"].planes


def test_another_picture_must_have_the_size_of_the_frame():
    drawn = MESSAGES["i420"].with_image(BGR)
    assert (drawn.format, drawn.image is BGR, drawn.info) == ("bgr24", True, FULL_INFO)
    with pytest.raises(FrameError, match="keep the size"):
        MESSAGES["i420"].with_image(BGR[:2])


SHAPES = st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple)


@given(st.lists(st.tuples(SHAPES, st.sampled_from(["|u1", "<f4", "<i8"])), min_size=1, max_size=6))
def test_arrays_lie_in_one_slot_on_lines_of_their_own(looks):
    arrays = [np.full(shape, n + 1, dtype).T for n, (shape, dtype) in enumerate(looks)]
    specs = lay_out(arrays)
    buffer = np.zeros(specs[-1].end, np.uint8)
    views = copies(arrays, specs, buffer)  # all of them, before any is looked at
    for array, view, spec in zip(arrays, views, specs, strict=True):
        assert np.array_equal(view, array)
        assert view.dtype == array.dtype
        assert view.size == 0 or np.shares_memory(view, buffer)
        assert spec.offset % ALIGN_BYTES == 0
