"""Which family a model is of, by the names, types and shapes of its inputs and outputs.

Only what is unmistakable is recognised: two families with one signature would be wrong in silence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.detector.onnx_engine import CONSTANTS, DTYPES

_IMAGENET = {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
FAMILIES: dict[str, dict[str, Any]] = {  # how each family shows pictures to its models
    "ultralytics": {"color": "rgb", "scale": 1 / 255, "align": "center", "pad": 114},
    "yolox": {"color": "bgr", "scale": 1.0, "align": "top-left", "pad": 114},
    "yolox-raw": {"color": "bgr", "scale": 1.0, "align": "top-left", "pad": 114},
    "detr": {"color": "rgb", "scale": 1 / 255, "mode": "stretch", "interpolation": "antialias"},
    "torchvision": {"color": "rgb", "scale": 1 / 255},
    "candidates": {"color": "rgb", "dtype": "uint8"},
    "final": {"color": "rgb", "scale": 1 / 255, "mode": "stretch"},
    "rows": {"color": "rgb", "scale": 1 / 255, "align": "center", "pad": 114},
    "gfl": {
        "color": "bgr", "scale": 1.0, "mode": "stretch", "centre": 0.0,
        "mean": [103.53, 116.28, 123.675], "std": [57.375, 57.12, 58.395],
    },
    "yunet": {"color": "bgr", "scale": 1.0, "align": "top-left", "pad": 0, "classes": ["face"]},
    "RT-DETR": {"color": "rgb", "scale": 1 / 255, "mode": "stretch", "interpolation": "antialias"},
    "RF-DETR": {"color": "rgb", **_IMAGENET, "mode": "stretch", "interpolation": "antialias"},
    "TensorFlow": {"color": "rgb", "scale": 1.0, "mode": "stretch", "label_offset": 1},
    "Paddle": {"color": "rgb", **_IMAGENET, "mode": "stretch", "interpolation": "cubic"},
    "PicoDet": {
        "color": "rgb", **_IMAGENET, "mode": "stretch", "interpolation": "cubic", "centre": 0.5,
    },
    "OpenVINO": {"color": "bgr", "scale": 1.0, "mode": "stretch"},
    "YOLO-NAS": {"color": "bgr", "align": "center", "pad": 114},
}  # fmt: skip
_NAMES = {  # of outputs, by their makers
    "boxes": ("boxes", "det_boxes", "detection_boxes", "pred_boxes"),
    "scores": ("scores", "det_scores", "detection_scores", "pred_scores"),
    "labels": ("labels", "det_classes", "detection_classes", "pred_classes"),
    "count": ("count", "num_dets", "num_detections", "num_predictions"),
}
_QUERIES = {"logits": "scores", "pred_boxes": "boxes"}
OF_LAYOUT = ("roles", "columns", "box", "unit", "centre", "activation")
_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")
_BINS = 32  # of layout gfl: four sides of reg_max + 1 = 8, as its makers publish them


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or output, as the file declares it; a size that is free is None."""

    name: str
    type: str  # "tensor(float)"
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"({', '.join('?' if size is None else str(size) for size in self.shape)})"


@dataclass(slots=True, kw_only=True)
class Told:
    """Options of an import, and where each comes from, for a person."""

    options: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    family: str = ""  # one of FAMILIES; empty: that of the layout


def recognise(inputs: Sequence[Tensor], outputs: Sequence[Tensor], told: Told) -> None:
    """Add to `told` the layout, if it is unmistakable; `of_input` came before."""
    sees = (_final, _detr, _gfl, _yunet, _dense, _rows)
    if any(see(outputs, inputs, told) for see in sees):
        what = ", ".join(f"{output.name} {output}" for output in outputs[:4])
        maker = f", as {told.family} has it" if told.family else ""
        told.notes.append(f"its outputs {what}: layout {told.options['layout']}{maker}")
    if told.options.pop("n_classes", None) == 80:
        told.options["classes"] = "coco80"
        told.notes.append("its 80 classes are taken for COCO's, in the usual order")


def of_input(inputs: Sequence[Tensor], told: Told) -> None:
    """Add to `told` size, order and dtype of the one picture that a model takes."""
    pictures = [i for i in inputs if i.name not in CONSTANTS]
    if len(pictures) != 1 or len(pictures[0].shape) not in (3, 4):
        return
    [picture] = pictures
    *_, first, middle, last = picture.shape
    is_nhwc = len(picture.shape) == 4 and last == 3
    height, width = (first, middle) if is_nhwc else (middle, last)
    order = "nhwc" if is_nhwc else "nchw" if len(picture.shape) == 4 else "chw"
    for dtype, kind in DTYPES.items():
        if kind == picture.type != DTYPES["float32"]:
            told.options["dtype"] = dtype
    if order != "nchw":
        told.options["order"] = order
    if height and width:
        told.options["size"] = f"{width}x{height}"
        told.notes.append(f"its input: {width}x{height}")


def canvas(shortest_px: int, longest_px: int) -> str:
    """The size for models that keep the shape of pictures: what they would make of one of 16:9."""
    width = min(longest_px, round(shortest_px * 16 / 9))
    return f"{width}x{round(width * 9 / 16)}"


def _final(outputs: Sequence[Tensor], inputs: Sequence[Tensor], told: Told) -> bool:
    """Boxes, scores and labels, each by its name, or else by its type and rank."""
    roles = [
        next((role for role, names in _NAMES.items() if output.name.split(":")[0] in names), "none")
        for output in outputs
    ]
    if sorted(set(roles) - {"none", "count"}) != ["boxes", "labels", "scores"] or any(
        roles.count(role) > 1 for role in _NAMES
    ):
        roles = [_role(output, outputs) for output in outputs]
    if sorted(role for role in roles if role != "none") not in (
        ["boxes", "labels", "scores"],
        ["boxes", "count", "labels", "scores"],
    ):
        return False
    boxes = outputs[roles.index("boxes")]
    rank = len(boxes.shape)
    if not all(
        len(o.shape) in (rank - 1, 0) or o.shape[-1] == 1
        for o, role in zip(outputs, roles, strict=True)
        if role in ("scores", "labels")
    ):
        return False  # a column a class: logits of queries, or scores before NMS
    told.options |= {"layout": "final", "roles": roles}
    if boxes.name.startswith("detection_boxes"):
        told.family = "TensorFlow"
        told.options |= {"box": "yxyx", "unit": "share"}
    elif any(i.name == "orig_target_sizes" for i in inputs):
        told.family = "RT-DETR"
    elif boxes.name == "pred_boxes":
        told.family = "YOLO-NAS"
    elif boxes.name == "det_boxes":
        told.family = "ultralytics"
    return True


def _role(output: Tensor, outputs: Sequence[Tensor]) -> str:
    rank = max(len(o.shape) for o in outputs)
    if len(output.shape) == rank > 1:
        return "boxes" if output.shape[-1] == 4 else "none"
    if len(output.shape) != rank - 1:
        return "none"
    return "scores" if output.type in _FLOATS else "labels"


def _detr(outputs: Sequence[Tensor], inputs: Sequence[Tensor], told: Told) -> bool:
    """Boxes of queries, and a logit of each for each class; whether sigmoid or softmax, names tell."""
    if len(outputs) != 2 or any(len(o.shape) != 3 for o in outputs):
        return False
    boxes = [o for o in outputs if o.shape[2] == 4]
    logits = [o for o in outputs if (o.shape[2] or 0) > 4]
    if len(boxes) != 1 or len(logits) != 1 or boxes[0].shape[1] != logits[0].shape[1]:
        return False
    told.options["layout"] = "detr"
    if boxes[0].name == "dets":
        told.family = "RF-DETR"
        told.options["activation"] = "sigmoid"
    return True


def queries(outputs: Sequence[Tensor], told: Told) -> bool:
    """Add to `told` which outputs are the logits and the boxes of queries, as transformers names them.

    It returns what its layers pass on, too, and some of that has the same form.
    """
    roles = [_QUERIES.get(output.name, "none") for output in outputs]
    if sorted(set(roles) - {"none"}) != ["boxes", "scores"]:
        return False
    told.options |= {"layout": "detr", "roles": roles}
    return True


def _rows(outputs: Sequence[Tensor], inputs: Sequence[Tensor], told: Told) -> bool:
    tables = [o for o in outputs if o.shape and o.shape[-1] in (6, 7) and len(o.shape) > 1]
    if len(tables) != 1:
        return False
    [table] = tables
    rest = [o for o in outputs if o is not table]
    is_nhwc = told.options.get("order") == "nhwc"
    if table.shape[-1] == 7 and not rest and (is_nhwc or len(table.shape) != 3):
        told.options["layout"] = "rows"
        if len(table.shape) == 4:
            told.family = "OpenVINO"
            told.options |= {"columns": ["picture", "label", "score", "box"], "unit": "share"}
        elif is_nhwc:
            told.family = "TensorFlow"
            told.options |= {"columns": ["picture", "box", "score", "label"], "box": "yxyx"}
        elif told.options.get("dtype") == "uint8":
            told.family = "YOLO-NAS"
        return True  # the order of score and label is seen when it is run
    counts = [o for o in rest if len(o.shape) <= 1 and o.type not in _FLOATS]
    if table.shape[-1] == 6 and len(table.shape) == 2 and len(counts) == len(rest) == 1:
        told.family = "Paddle"
        told.options |= {"layout": "rows", "columns": ["label", "score", "box"]}
        told.options["roles"] = ["rows" if o is table else "count" for o in outputs]
        return True
    return False


def _gfl(outputs: Sequence[Tensor], inputs: Sequence[Tensor], told: Told) -> bool:
    cells = _cells(told, (8, 16, 32, 64))
    shapes = [o.shape for o in outputs]
    if cells is None or any(len(shape) != 3 for shape in shapes):
        return False
    if len(shapes) == 1 and shapes[0][1] == sum(cells) and (shapes[0][2] or 0) > _BINS:
        told.options |= {"layout": "gfl", "n_classes": int(shapes[0][2] or 0) - _BINS}
        return True
    sides = [shape[1] for shape in shapes if shape[2] == _BINS]
    scores = [shape for shape in shapes if shape[2] != _BINS]
    classes = {shape[2] for shape in scores}
    if sides == [shape[1] for shape in scores] == list(cells) and len(classes) == 1:
        told.family = "PicoDet"
        told.options |= {"layout": "gfl", "n_classes": classes.pop()}
        return True
    return False


def _yunet(outputs: Sequence[Tensor], inputs: Sequence[Tensor], told: Told) -> bool:
    """Faces, by the names of its twelve outputs."""
    wanted = {
        f"{part}_{stride}" for part in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)
    }
    if {output.name for output in outputs} != wanted:
        return False
    told.options["layout"] = "yunet"
    return True


def _dense(outputs: Sequence[Tensor], inputs: Sequence[Tensor], told: Told) -> bool:
    """YOLOX and Ultralytics by the number of their predictions."""
    cells = _cells(told, (8, 16, 32))
    shape = outputs[0].shape if len(outputs) == 1 else ()
    if cells is None or len(shape) != 3:
        return False
    if shape[1] == sum(cells) and (shape[2] or 0) > 5:
        told.options["layout"] = "yolox-raw"  # an import sees whether its boxes are decoded
        told.options["n_classes"] = int(shape[2] or 0) - 5
        return True
    if shape[2] == sum(cells) and (shape[1] or 0) > 4:
        told.options |= {"layout": "ultralytics", "n_classes": int(shape[1] or 0) - 4}
        return True
    return False


def _cells(told: Told, strides: tuple[int, ...]) -> tuple[int, ...] | None:
    if "size" not in told.options:
        return None
    width, height = map(int, told.options["size"].split("x"))
    return tuple(math.ceil(width / s) * math.ceil(height / s) for s in strides)
