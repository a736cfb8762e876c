"""What Hugging Face's transformers put beside a model: its classes, and how it wants its pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from stages.detector.signatures import Tensor, Told, canvas, queries

_SOFTMAX = ("detr", "yolos", "table-transformer")  # the others have sigmoids
_INTERPOLATION = {0: "nearest", 2: "antialias", 3: "cubic"}  # Pillow's numbers
_UNFILTERED = ("RfDetrImageProcessor",)  # when they make pictures smaller
_LONGEST_PX = 1333  # where only the shorter side is told


def read(
    path: str,
    config: Mapping[str, Any],
    outputs: Sequence[Tensor],
    given: Mapping[str, Any],
    told: Told,
) -> None:
    """Add to `told` what these files say; `signatures.of_input` came before.

    config: the content of config.json; outputs: of an ONNX file, none of others; given: options of a
    person. Raises ModelError: no detection, or the file that says how pictures are scaled is not there.
    """
    kind = str(config.get("model_type", "a model"))
    if (
        not queries(outputs, told)
        and outputs
        and not any(o.shape[-1:] in ((4,), (None,)) for o in outputs)
    ):
        called = ", ".join(config.get("architectures") or [kind])
        returned = ", ".join(output.name for output in outputs[:4])
        raise ModelError(
            f"{path}: it is {called}, no detection: it returns {returned}, and no boxes"
        )
    pictures = beside(path, "preprocessor_config.json") or beside(
        path, "processor_config.json"
    ).get("image_processor", {})
    if not pictures and not given.keys() & {"scale", "mean", "std"}:
        raise ModelError(
            f"{path}: config.json beside it is that of {kind}, and preprocessor_config.json, which says "
            "how pictures are scaled, is not there; put it there (`processor.save_pretrained(FOLDER)`), or "
            "pass --scale, and --mean and --std if it has them"
        )
    names = {int(index): str(name) for index, name in config["id2label"].items()}
    classes = [names.get(index, "N/A") for index in range(max(names) + 1)]
    told.options |= {"layout": "detr", "classes": classes, "color": "rgb"}
    told.options["activation"] = "softmax" if kind in _SOFTMAX else "sigmoid"
    told.options["scale"] = _scale(pictures)
    told.options["interpolation"] = _interpolation(pictures)
    if pictures.get("do_normalize", False):
        told.options |= {"mean": pictures["image_mean"], "std": pictures["image_std"]}
    _size(pictures, told)
    told.notes.append(
        f"config.json beside it: {kind}, {len(names)} classes, "
        f"{told.options['activation']}; {told.options.get('size', 'no size')}, "
        f"{told.options.get('mode', 'stretch')}"
    )


def beside(path: str, name: str) -> dict[str, Any]:
    """A JSON object in a file of this name, in the same folder, or the one around `onnx`; else nothing."""
    folder = Path(path).absolute().parent
    for place in (folder, folder.parent) if folder.name == "onnx" else (folder,):
        try:
            found = json.loads((place / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def _scale(pictures: Mapping[str, Any]) -> float:
    return (
        float(pictures.get("rescale_factor", 1 / 255)) if pictures.get("do_rescale", True) else 1.0
    )


def _interpolation(pictures: Mapping[str, Any]) -> str:
    name = _INTERPOLATION.get(pictures.get("resample", 2), "antialias")
    unfiltered = pictures.get("image_processor_type") in _UNFILTERED
    return "linear" if unfiltered and name == "antialias" else name


def _size(pictures: Mapping[str, Any], told: Told) -> None:
    """Stretched to a size, or kept in shape: then on a canvas for 16:9, unless the model has a size."""
    size = pictures.get("size", {})
    if isinstance(size, int):  # as it was once written
        size = {"shortest_edge": size, "longest_edge": pictures.get("max_size")}
    if "height" in size and "width" in size:
        told.options["mode"] = "stretch"
        told.options.setdefault("size", f"{size['width']}x{size['height']}")
    elif "shortest_edge" in size:
        grey = sum(pictures["image_mean"]) / 3 * 255 if pictures.get("do_normalize") else 0
        told.options |= {"mode": "letterbox", "align": "top-left", "pad": round(grey)}
        told.options.setdefault(
            "size", canvas(size["shortest_edge"], size.get("longest_edge") or _LONGEST_PX)
        )
