"""What a detector of torchvision says in a file: that it is one, its size, and its classes if COCO's."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from typing import Any

from stages.detector.signatures import Told, canvas

_CODE = "/code/__torch__/torchvision/models/detection/transform.py"  # of every scripted one
_SCORES = re.compile(r"(box_predictor\.cls_score|classification_head\.[\w.]+)\.bias$")
_ANCHORS = (1, 4, 6, 9)  # of a cell, with a score each for every class
_COCO_ROWS = 91


def of_script(path: str, told: Told) -> bool:
    """Add to `told` what a scripted detector says; False: it is none. Loads it, and runs nothing."""
    try:
        with zipfile.ZipFile(path) as file:
            if not any(name.endswith(_CODE) for name in file.namelist()):
                return False
    except zipfile.BadZipFile:
        return False
    from stages.detector import engines

    module = engines.script(path)
    told.options["layout"] = "torchvision"
    told.notes.append("its code is that of a detector of torchvision")
    _size(module.transform, told)
    _classes(((k, tuple(v.shape)) for k, v in module.state_dict().items()), told)
    return True


def of_onnx(path: str, told: Told) -> None:
    """Add to `told` the classes of an ONNX file of one picture, (3, H, W), as torchvision writes it."""
    try:
        import onnx
    except ImportError:
        return  # they are asked for
    graph = onnx.load(path, load_external_data=False).graph
    _classes(((tensor.name, tuple(tensor.dims)) for tensor in graph.initializer), told)


def _size(transform: Any, told: Told) -> None:
    """What it would make of a picture of 16:9, or the one size of an SSD."""
    fixed = getattr(transform, "fixed_size", None)
    if fixed:
        told.options |= {"size": f"{fixed[0]}x{fixed[1]}", "mode": "stretch"}
    else:
        told.options["size"] = canvas(int(transform.min_size[-1]), int(transform.max_size))
    told.notes.append(f"its size: {told.options['size']}")


def _classes(shapes: Iterable[tuple[str, tuple[int, ...]]], told: Told) -> None:
    rows = {shape[0] for name, shape in shapes if _SCORES.search(name)}
    if rows & {_COCO_ROWS * anchors for anchors in _ANCHORS}:
        told.options["classes"] = "coco91"
        told.notes.append("its 91 classes are taken for COCO's, in torchvision's order")
