"""A model that finds spots of a colour, and files of it, for tests."""

import json
import warnings

import numpy as np
import pytest
import torch


class Spots(torch.nn.Module):
    """(B, 6, 64): a box for each cell of 8 px; red ones are of class 0, blue ones of class 1."""

    def __init__(self, spoil=lambda boxes, scores: torch.cat([boxes, scores], dim=1)):
        super().__init__()
        y, x = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
        cells = torch.stack([8.0 * x + 4, 8.0 * y + 4, 8.0 + 0 * x, 8.0 + 0 * y])
        self.register_buffer("cells", cells.flatten(1)[None])  # (1, 4, 64)
        self.spoil = spoil

    def forward(self, x):
        mean = torch.nn.functional.avg_pool2d(x, 8).flatten(2)  # (B, 3, 64)
        above = mean[:, ::2] - mean[:, 1:2]  # green
        scores = (above * (2 - above)).clamp(0, 1)  # 1 at 1, and less where it is scaled wrongly
        return self.spoil(self.cells.expand(x.shape[0], -1, -1), scores)


def traced(path, module=None, config=None):
    extra = {} if config is None else {"config.txt": json.dumps(config)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(module or Spots(), torch.rand(1, 3, 64, 64))
        torch.jit.save(script, str(path), _extra_files=extra)
    return str(path)


SPOTS = {"layout": "ultralytics", "classes": "red,blue", "size": 64}


def constant_onnx(path, given, rows):
    """An ONNX file that answers every picture with the same rows."""
    onnx = pytest.importorskip("onnx")
    helper, numbers = onnx.helper, onnx.TensorProto
    value = onnx.numpy_helper.from_array(rows.numpy().astype("float32"), "rows")
    nothing = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "nothing")
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Add", ["rows", "zero"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", numbers.FLOAT, given[1])
    y = helper.make_tensor_value_info("y", numbers.FLOAT, list(rows.shape))
    graph = helper.make_graph(nodes, "g", [x], [y], [value, nothing])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return str(path)
