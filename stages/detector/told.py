"""What a model file tells of itself: its metadata, and the shapes of its inputs and outputs.

Nothing is guessed here that would be wrong in silence: what a file does not say is asked for, or assumed
aloud, after the family that its layout belongs to.
"""

from __future__ import annotations

import ast
import json
import re
import zipfile
from collections.abc import Mapping
from typing import Any

from pipeline.errors import ModelError
from stages.detector import archive, hugging_face, torchvision_files
from stages.detector.engine import first_line
from stages.detector.signatures import FAMILIES, OF_LAYOUT, Tensor, Told, of_input, recognise

MAX_CONFIG_BYTES = 1 << 20
_OTHER_TASKS = {
    "classify": "whole pictures are classified",
    "obb": "its boxes are turned, and would be shown unturned",
}
_BOXES_TOO = ("segment", "pose")  # rows behind box and scores, which are left alone


def read(path: str, given: Mapping[str, Any]) -> Told:
    """What is given, for the rest what the file says, and for the rest what models of its layout do.

    Raises ModelError for a model that finds no boxes, or is of no kind that can be read.
    """
    kind = archive.kind_of(path)
    inputs, outputs, metadata = _onnx(path) if kind == "onnx" else ((), (), _config_txt(path))
    told = Told()
    of_input(inputs, told)
    config = hugging_face.beside(path, "config.json")
    if "names" in metadata and "task" in metadata:
        _ultralytics(metadata, path, told)
    elif "id2label" in config:
        hugging_face.read(path, config, outputs, given, told)
    elif not (kind == "torchscript" and torchvision_files.of_script(path, told)):
        recognise(inputs, outputs, told)
        if told.options.get("order") == "chw" and told.options.get("layout") == "final":
            torchvision_files.of_onnx(path, told)
    if given.get("layout", told.options.get("layout")) != told.options.get("layout"):
        told.family = ""  # what a layout needs does not hold for another
        told.options = {k: v for k, v in told.options.items() if k not in OF_LAYOUT}
    told.options |= given
    called = told.family or told.options.get("layout", "")
    family = FAMILIES.get(called, {})
    if any(key in given for key in ("scale", "mean", "std")):
        family = {"dtype": "float32", **{k: v for k, v in family.items() if k != "dtype"}}
    is_uint8 = told.options.get("dtype", family.get("dtype")) == "uint8"  # it scales inside
    skipped = ("scale", "mean", "std") if is_uint8 else ()
    assumed = {k: v for k, v in family.items() if k not in told.options and k not in skipped}
    if assumed:
        words = ", ".join(f"{key} {_shown(value)}" for key, value in assumed.items())
        told.notes.append(f"as models of {called} have it: {words}")
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


def _shown(value: Any) -> str:
    return "1/255" if value == 1 / 255 else str(value)
