"""Small ONNX models of every form of output, which find what a test says: an oracle is a few lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

KINDS = {
    "float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8,
    "int64": TensorProto.INT64, "int32": TensorProto.INT32,
}  # fmt: skip


def save(
    path: Path,
    outputs: dict[str, np.ndarray],
    *,
    shape: tuple[int | str, ...] = (1, 3, 64, 64),
    dtype: str = "float32",
    extra: dict[str, tuple[str, tuple[int, ...]]] | None = None,
    scored: tuple[str, ...] = (),
    shapes: dict[str, list[int | str]] | None = None,
    name: str = "images",
) -> str:
    """A model that answers any picture with these arrays.

    extra: further inputs, name → dtype and shape: answers that are floats come times the mean of each.
    scored: outputs that come times the mean of the picture, too. shapes: as outputs are declared.
    """
    nodes, values, declared = [], [], []
    inputs = [helper.make_tensor_value_info(name, KINDS[dtype], shape)]
    nodes += [
        helper.make_node("Cast", [name], ["picture"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["picture"], ["bright"], keepdims=0),
        helper.make_node("Constant", [], ["nothing"], value=numpy_helper.from_array(np.float32(0))),
        helper.make_node("Mul", ["bright", "nothing"], ["seen"]),
    ]
    factors = []
    for other, (kind, size) in (extra or {}).items():
        inputs.append(helper.make_tensor_value_info(other, KINDS[kind], size))
        nodes += [
            helper.make_node("Cast", [other], [f"{other}_f"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", [f"{other}_f"], [f"{other}_mean"], keepdims=0),
        ]
        factors.append(f"{other}_mean")
    for key, array in outputs.items():
        values.append(numpy_helper.from_array(array.astype(np.float32), f"{key}_value"))
        nodes.append(helper.make_node("Add", [f"{key}_value", "seen"], [f"{key}_0"]))
        last, of_inputs = f"{key}_0", factors if array.dtype.kind == "f" else []
        for i, factor in enumerate([*of_inputs, *(["bright"] if key in scored else [])]):
            nodes.append(helper.make_node("Mul", [last, factor], [f"{key}_{i + 1}"]))
            last = f"{key}_{i + 1}"
        kind = KINDS[str(array.dtype)]
        nodes.append(helper.make_node("Cast", [last], [key], to=kind))
        size = (shapes or {}).get(key, list(array.shape))
        declared.append(helper.make_tensor_value_info(key, kind, size))
    graph = helper.make_graph(nodes, "g", inputs, declared, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return str(path)
