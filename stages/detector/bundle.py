"""The facts of a model: what travels inside its file, and all that a process needs that never runs it.

A bundle is a TorchScript archive with `manyeyes.json` among its extra files, or an ONNX file with the
same text in `metadata_props`. A TorchScript archive may carry the same network as ONNX, its twin.
Reading facts runs nothing and imports no torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pipeline.errors import ModelError

Layout = Literal[
    "candidates", "yolox", "yolox-raw", "ultralytics", "torchvision", "detr", "final", "rows", "gfl",
    "yunet",
]  # fmt: skip
MAX_PICTURES = 65  # of one frame: the whole and 8x8 parts
Activation = Literal["none", "sigmoid", "softmax"]
Role = Literal["boxes", "scores", "labels", "rows", "count", "none"]  # of an output
Column = Literal["picture", "box", "score", "label"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFacts:
    """What the model takes. Input of floats is (pixel * scale - mean) / std."""

    width: int  # px
    height: int
    color: Literal["rgb", "bgr"] = "rgb"
    dtype: Literal["uint8", "float16", "float32"] = "uint8"
    order: Literal["nchw", "nhwc", "chw"] = "nchw"  # chw: one picture at a time
    scale: float = 1.0  # with floats only
    mean: tuple[float, float, float] | None = None  # in the order of `color`, after scale
    std: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeFacts:
    """How a picture of any size becomes the model's input."""

    mode: Literal["letterbox", "stretch"] = "letterbox"
    align: Literal["center", "top-left"] = "center"
    pad: int = 114  # grey level of the bars, 0..255
    # antialias: linear over all pixels that one of the result covers, as Pillow and torchvision have it
    interpolation: Literal["linear", "area", "nearest", "cubic", "antialias"] = "linear"
    # columns and rows of overlapping parts that are looked at, too, each as a picture; (1, 1): none
    tiles: tuple[int, int] = (1, 1)

    @property
    def pictures(self) -> int:
        """That the model sees of one frame: the whole, and its parts."""
        parts = self.tiles[0] * self.tiles[1]
        return 1 + parts if parts > 1 else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFacts:
    """Where boxes, scores and labels are in what the model returns, for the layouts that do not fix it."""

    roles: tuple[
        Role, ...
    ] = ()  # of the outputs; of layout final, rows with a count, detr with more
    columns: tuple[Column, ...] = ()  # of layout rows, in their order; a box takes four
    box: Literal["xyxy", "cxcywh", "yxyx"] = "xyxy"  # of layouts final and rows, as the next
    unit: Literal["px", "share"] = "px"  # pixels of the input, or shares of it
    centre: float = 0.5  # of layout gfl: what its sides are measured from, in cells; 0..1


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What postprocess uses where the configuration says nothing."""

    score_threshold: float = 0.35  # 0..1
    iou_threshold: float = 0.5  # 0..1, of NMS within a class
    max_detections: int = 100  # of one frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything about a model but its weights."""

    name: str
    architecture: str
    classes: tuple[str, ...]
    input: InputFacts
    layout: Layout
    resize: ResizeFacts = field(default_factory=ResizeFacts)
    output: OutputFacts = field(default_factory=OutputFacts)
    activation: Activation = "none"  # of layout detr: what makes scores of its logits
    ignored_rows: int = 0  # of layout ultralytics: masks or key points, behind the classes
    label_offset: int = 0  # what to subtract from the model's labels (1 where 0 is background)
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8)  # the largest is never exceeded
    defaults: Defaults = field(default_factory=Defaults)
    output_bytes_per_image: int = 0  # of all output arrays of one picture together
    provenance: dict[str, Any] = field(default_factory=dict)
    golden: dict[str, Any] | None = None
    twin: str | None = None  # sha256 of the same network as ONNX, which the bundle carries, too
    format: int = 1

    def to_json(self) -> str:
        """The text that travels in the bundle; `from_json` gives back an equal object."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, where: str = "facts") -> Facts:
        """Facts from their JSON text, every field checked. `where` starts the error's sentence.

        Raises ModelError: no JSON, an unknown or missing key, a wrong type, a value out of range.
        """
        try:
            table = json.loads(text, parse_constant=_no_number)
            json.dumps(table, ensure_ascii=False).encode()  # half a letter can't travel
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{where}: wanted JSON, got text that is none ({error})") from None
        version = table.get("format", 1) if isinstance(table, dict) else 1
        if version != 1:
            raise ModelError(
                f"{where}: format must be 1, got {version!r}; it was written by a later manyeyes, "
                "update this one"
            )
        facts: Facts = _build(cls, table, where)
        for ok, sentence in _ranges(facts):
            if not ok:
                raise ModelError(f"{where}: {sentence}")
        return facts


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def read_facts(path: str) -> Facts:
    """The facts inside a bundle; runs nothing of it. See `archive` for what it raises."""
    from stages.detector import archive

    return Facts.from_json(archive.read_text(path), where=str(path))


def with_tiles(facts: Facts, tiles: tuple[int, int]) -> Facts:
    """The same model, looking at so many columns and rows of parts. Raises ModelError: it can't be."""
    changed = dataclasses.replace(facts, resize=dataclasses.replace(facts.resize, tiles=tiles))
    return Facts.from_json(changed.to_json(), where=f"tiles of {facts.name!r}")


def model_id(path: str) -> str:
    """The first 16 hex digits of the file's sha256: what travels with every result."""
    from stages.detector import archive

    return archive.sha256(path)[:16]


def runnable(path: str, facts: Facts) -> tuple[str, ...]:
    """The engines that can run this file, if they are installed: that of its own format first.

    Raises ModelError: no model.
    """
    from stages.detector import archive

    kind = archive.kind_of(path)
    if kind == "torchscript" and not facts.twin:
        return (kind,)
    return (kind, "openvino") if kind == "onnx" else (kind, "onnx", "openvino")


def _ranges(facts: Facts) -> list[tuple[bool, str]]:
    inp, resize, defaults = facts.input, facts.resize, facts.defaults
    sides = all(1 <= side <= 8192 for side in (inp.width, inp.height))
    unique = len(set(facts.classes)) == len(facts.classes)
    normalised = inp.scale != 1.0 or inp.mean is not None or inp.std is not None
    batches = facts.batch_sizes
    return [
        (sides, f"input must be 1..8192 px a side, got {inp.width}x{inp.height}"),
        (inp.scale > 0, f"input.scale must be above 0, got {inp.scale}"),
        (
            inp.dtype != "uint8" or not normalised,
            "input.scale, mean and std go with dtype float32 or float16, got uint8; "
            "such a model normalises inside",
        ),
        (inp.std is None or min(inp.std) > 0, f"input.std must be above 0, got {inp.std}"),
        (
            min(resize.tiles) >= 1 and resize.pictures <= MAX_PICTURES,
            f"resize.tiles must be columns and rows, each 1 or more and {MAX_PICTURES - 1} parts at most, "
            f"got {list(resize.tiles)}",
        ),
        (0 <= resize.pad <= 255, f"resize.pad must be within 0..255, got {resize.pad}"),
        (len(facts.classes) > 0, "classes must name at least one class, got none"),
        (unique and all(facts.classes), "classes must be different and not empty"),
        (
            (facts.layout == "detr") == (facts.activation != "none"),
            f"layout detr goes with the activation sigmoid or softmax, got {facts.layout!r} with "
            f"{facts.activation!r}",
        ),
        *_of_output(facts.layout, facts.output),
        (0 <= facts.label_offset <= 1, f"label_offset must be 0 or 1, got {facts.label_offset}"),
        (
            len(batches) > 0 and all(1 <= b <= 1024 for b in batches),
            f"batch_sizes must be at least one number within 1..1024, got {list(batches)}",
        ),
        (
            0 <= defaults.score_threshold <= 1,
            f"defaults.score_threshold must be within 0..1, got {defaults.score_threshold}",
        ),
        (
            0 <= defaults.iou_threshold <= 1,
            f"defaults.iou_threshold must be within 0..1, got {defaults.iou_threshold}",
        ),
        (
            1 <= defaults.max_detections <= 1000,
            f"defaults.max_detections must be within 1..1000, got {defaults.max_detections}",
        ),
        (
            0 <= facts.output_bytes_per_image <= 1 << 30,
            f"output_bytes_per_image must be within 0..1 GiB, got {facts.output_bytes_per_image}",
        ),
    ]


def _of_output(layout: str, output: OutputFacts) -> list[tuple[bool, str]]:
    roles, columns = sorted(set(output.roles) - {"none"}), sorted(output.columns)
    named = [role for role in output.roles if role != "none"]
    whole = (["boxes", "labels", "scores"], ["boxes", "count", "labels", "scores"])
    return [
        (
            layout != "final" or (roles in whole and len(named) == len(roles)),
            "layout final needs output.roles with boxes, scores and labels, once each, and perhaps "
            f"count and none, got {list(output.roles)}",
        ),
        (
            layout != "rows"
            or columns in (["box", "label", "score"], ["box", "label", "picture", "score"]),
            "layout rows needs output.columns with box, score and label, once each, and perhaps "
            f"picture, got {list(output.columns)}",
        ),
        (
            layout != "rows" or roles in ([], ["rows"], ["count", "rows"]),
            f"layout rows takes the output.roles rows, count and none, got {list(output.roles)}",
        ),
        (
            layout != "detr" or roles in ([], ["boxes", "scores"]),
            "layout detr takes the output.roles boxes, scores for its logits, and none, got "
            f"{list(output.roles)}",
        ),
        (0 <= output.centre <= 1, f"output.centre must be within 0..1, got {output.centre}"),
    ]


def _build(kind: Any, value: Any, where: str) -> Any:
    """`value`, as parsed from JSON, as an object of type `kind`; raises ModelError."""
    origin, args = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    if origin in (Union, types.UnionType):  # only `X | None` occurs
        return None if value is None else _build(args[0], value, where)
    if origin is Literal:
        _want(value in args, where, f"one of {', '.join(map(repr, args))}", value)
        return value
    if origin is tuple:
        length = None if args[-1] is Ellipsis else len(args)
        wanted = "a list" if length is None else f"a list of {length}"
        _want(
            isinstance(value, list) and len(value) == (length or len(value)), where, wanted, value
        )
        return tuple(_build(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if kind is float:
        number = type(value) in (int, float) and math.isfinite(value)
        _want(number, where, "a number", value)
        return float(value)
    wanted_type = origin or kind
    names = {int: "an integer", str: "text", dict: "an object"}
    _want(type(value) is wanted_type, where, names.get(wanted_type, str(kind)), value)
    return value


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
    _want(isinstance(value, dict), where, "an object", value)
    fields = {item.name: item for item in dataclasses.fields(kind)}
    for key in value:
        if key not in fields:
            close = difflib.get_close_matches(key, fields, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(fields)}"
            raise ModelError(f"{where}: unknown key {key!r}; {hint}")
    for name, item in fields.items():
        optional = (
            item.default is not dataclasses.MISSING
            or item.default_factory is not dataclasses.MISSING
        )
        if name not in value and not optional:
            raise ModelError(f"{where}: the key {name!r} is missing; write the model's facts anew")
    hints = get_type_hints(kind)
    return kind(**{key: _build(hints[key], item, f"{where}: {key}") for key, item in value.items()})


def _want(ok: bool, where: str, wanted: str, got: Any) -> None:
    if not ok:
        shown = json.dumps(got)
        raise ModelError(f"{where} must be {wanted}, got {shown[:80]}")
