"""What a model file tells of itself: its metadata, and the shapes of its inputs and outputs.

Nothing is guessed here that would be wrong in silence: what a file does not say is asked for, or assumed
aloud, after the family that its layout belongs to.
"""

from __future__ import annotations

import ast
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from stages.detector import archive
from stages.detector.engine import first_line

FAMILIES: dict[str, dict[str, Any]] = {  # how each family shows pictures to its models
    "ultralytics": {"color": "rgb", "scale": 1 / 255, "align": "center", "pad": 114},
    "yolox": {"color": "bgr", "scale": 1.0, "align": "top-left", "pad": 114},
    "yolox-raw": {"color": "bgr", "scale": 1.0, "align": "top-left", "pad": 114},
    "detr": {"color": "rgb", "scale": 1 / 255, "mode": "stretch"},
    "torchvision": {"color": "rgb", "scale": 1 / 255},
    "candidates": {"color": "rgb", "dtype": "uint8"},
}
MAX_CONFIG_BYTES = 1 << 20
_OTHER_TASKS = {
    "classify": "whole pictures are classified",
    "obb": "its boxes are turned, and would be shown unturned",
}
_SOFTMAX = ("detr", "yolos", "table-transformer")  # of transformers; the others have sigmoids
_BOXES_TOO = ("segment", "pose")  # rows behind box and scores, which are left alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or output, as the file declares it; a size that is free is None."""

    name: str
    type: str  # "tensor(float)"
    shape: tuple[int | None, ...]


@dataclass(slots=True, kw_only=True)
class Told:
    """Options of an import, and where each comes from, for a person."""

    options: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read(path: str, given: Mapping[str, Any]) -> Told:
    """What is given, for the rest what the file says, and for the rest what models of its layout do.

    Raises ModelError for a model that finds no boxes, or is of no kind that can be read.
    """
    kind = archive.kind_of(path)
    inputs, outputs, metadata = _onnx(path) if kind == "onnx" else ((), (), _config_txt(path))
    told = Told()
    config = _beside(path, "config.json")
    if "names" in metadata and "task" in metadata:
        _ultralytics(metadata, path, told)
    elif "id2label" in config:
        _shapes(inputs, outputs, told)
        _transformers(config, _beside(path, "preprocessor_config.json"), told)
    else:
        _shapes(inputs, outputs, told)
    told.options |= given
    family = FAMILIES.get(told.options.get("layout", ""), {})
    if any(key in given for key in ("scale", "mean", "std")):
        family = {"dtype": "float32", **{k: v for k, v in family.items() if k != "dtype"}}
    is_uint8 = told.options.get("dtype", family.get("dtype")) == "uint8"  # it scales inside
    assumed = {
        key: value
        for key, value in family.items()
        if key not in told.options and not (is_uint8 and key == "scale")
    }
    if assumed:
        words = ", ".join(f"{key} {_shown(value)}" for key, value in assumed.items())
        told.notes.append(f"as models of layout {told.options['layout']} have it: {words}")
    told.options |= assumed
    return told


def _ultralytics(metadata: dict[str, Any], path: str, told: Told) -> None:
    task = str(metadata["task"])
    if task in _OTHER_TASKS:
        raise ModelError(f"{path}: its task is {task!r}, no detection: {_OTHER_TASKS[task]}")
    names = metadata["names"]
    size = metadata.get("imgsz", [])
    classes = [str(name) for name in (names.values() if isinstance(names, dict) else names)]
    told.options |= {"layout": "ultralytics", "classes": classes}
    if isinstance(size, list | tuple) and len(size) == 2:
        told.options["size"] = f"{size[1]}x{size[0]}"  # it says height, width
    told.notes.append(
        f"its metadata: {metadata.get('description', 'a model of Ultralytics')}, {len(classes)} classes "
        f"({', '.join(classes[:3])}, …), {told.options.get('size', 'no size')}"
    )
    if task in _BOXES_TOO:
        told.notes.append(f"its task is {task!r}: its boxes are taken, the rest is left alone")
        told.options["more_rows"] = True


def _transformers(config: dict[str, Any], pictures: dict[str, Any], told: Told) -> None:
    """What Hugging Face's transformers put beside a model: its classes, and how it wants its pictures."""
    kind = str(config.get("model_type", "a model"))
    names = {int(index): str(name) for index, name in config["id2label"].items()}
    told.options |= {"layout": "detr", "classes": [names[index] for index in sorted(names)]}
    told.options["activation"] = "softmax" if kind in _SOFTMAX else "sigmoid"
    size = pictures.get("size", {})
    if "height" in size and "width" in size:
        told.options |= {"size": f"{size['width']}x{size['height']}", "mode": "stretch"}
    told.options |= {"color": "rgb", "interpolation": "area"}  # as Pillow makes pictures smaller
    told.options["scale"] = float(pictures.get("rescale_factor", 1 / 255))
    if pictures.get("do_normalize", False):
        told.options |= {"mean": pictures["image_mean"], "std": pictures["image_std"]}
    told.notes.append(
        f"config.json beside it: {kind}, {len(names)} classes, "
        f"{told.options['activation']}; {told.options.get('size', 'no size')}"
    )


def _shapes(inputs: Sequence[Tensor], outputs: Sequence[Tensor], told: Told) -> None:
    """Without metadata: the size of the one picture, and YOLOX by the number of its predictions."""
    pictures = [i for i in inputs if len(i.shape) == 4]
    if len(pictures) != 1:
        return
    _, channels, height, width = pictures[0].shape
    if channels != 3 or height is None or width is None:
        return
    told.options["size"] = f"{width}x{height}"
    told.notes.append(f"its input: {width}x{height}")
    if pictures[0].type == "tensor(uint8)":
        told.options["dtype"] = "uint8"
    cells = sum((height // stride) * (width // stride) for stride in (8, 16, 32))
    shape = outputs[0].shape if len(outputs) == 1 else ()
    if len(shape) == 3 and shape[1] == cells and (shape[2] or 0) > 5:
        told.notes.append(f"its output {_sizes(shape)} is that of YOLOX")
        told.options["layout"] = "yolox-raw"  # an import sees whether its boxes are decoded
        n_classes = int(shape[2] or 0) - 5
    elif len(shape) == 3 and shape[2] == cells and (shape[1] or 0) > 4:
        told.notes.append(f"its output {_sizes(shape)} is that of Ultralytics' models")
        told.options["layout"] = "ultralytics"
        n_classes = int(shape[1] or 0) - 4
    else:
        return
    if n_classes == 80:
        told.options["classes"] = "coco80"
        told.notes.append("its 80 classes are taken for COCO's, in the usual order")


def _beside(path: str, name: str) -> dict[str, Any]:
    """A JSON object in a file of this name in the same folder; nothing where there is none."""
    try:
        found = json.loads(Path(path).with_name(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _onnx(path: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], dict[str, Any]]:
    try:
        import onnxruntime as ort
    except ImportError:
        return (), (), {}  # the engine says what is missing
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is only read
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        raise ModelError(f"{path}: ONNX Runtime cannot load it: {first_line(error)}") from None
    inputs, outputs = (
        tuple(
            Tensor(
                name=t.name,
                type=t.type,
                shape=tuple(size if isinstance(size, int) else None for size in t.shape),
            )
            for t in tensors
        )
        for tensors in (session.get_inputs(), session.get_outputs())
    )
    text = session.get_modelmeta().custom_metadata_map
    return inputs, outputs, {key: _literal(value) for key, value in text.items()}


def _config_txt(path: str) -> dict[str, Any]:
    """What Ultralytics puts beside a TorchScript graph, among its extra files."""
    try:
        with zipfile.ZipFile(path) as file:
            for info in file.infolist():
                if (
                    info.filename.endswith("/extra/config.txt")
                    and info.file_size < MAX_CONFIG_BYTES
                ):
                    found = json.loads(file.read(info))
                    return found if isinstance(found, dict) else {}
    except (zipfile.BadZipFile, ValueError):
        pass
    return {}


def _literal(text: str) -> Any:
    """Python's way to write a list or a dict, as Ultralytics does; any other text is itself."""
    if re.match(r"[\[{(\d]", text) and len(text) < MAX_CONFIG_BYTES:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass
    return text


def _sizes(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("B" if size is None else str(size) for size in shape) + ")"


def _shown(value: Any) -> str:
    return "1/255" if value == 1 / 255 else str(value)
