"""The engine for ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, DeviceLost, ModelError
from stages.detector.bundle import Facts
from stages.detector.engine import (
    Array,
    BaseEngine,
    Image,
    OutOfMemory,
    Outputs,
    Settings,
    first_line,
    per_picture,
    precision_of,
)

_TRAVELS = {"<f4", "<f2", "<i4", "<i8", "|u1"}  # dtypes that a message can carry


class OnnxEngine(BaseEngine):
    """An ONNX file, or the twin in a bundle, in ONNX Runtime; its threads wait without spinning."""

    def __init__(
        self, path: str, facts: Facts, settings: Settings, twin: bytes | None = None
    ) -> None:
        try:
            import onnxruntime as ort
        except ImportError:
            raise ConfigError(
                f"{path}: ONNX needs ONNX Runtime, which is not installed; "
                "pip install 'manyeyes[onnx]'"
            ) from None
        super().__init__(facts, settings)
        self._where = path
        self.precision = precision_of(settings.precision, cuda=False)
        if self.precision != "fp32":
            raise ConfigError(f"{path}: ONNX has its precision inside; write precision = 'auto'")
        providers = self._providers(settings.device, ort.get_available_providers())
        options = ort.SessionOptions()
        options.intra_op_num_threads = settings.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(
                path if twin is None else twin, options, providers=providers
            )
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
            raise ModelError(
                f"{path}: ONNX Runtime cannot load it: {first_line(error)}; export it again"
            ) from None
        inputs = self._session.get_inputs()
        wanted = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}[facts.input.dtype]
        if len(inputs) != 1 or inputs[0].type != wanted:
            got = ", ".join(f"{i.name}: {i.type}" for i in inputs)
            raise ModelError(
                f"{path}: its facts promise one input of {wanted}, the model has {got}; import it again"
            )
        self._input_name = inputs[0].name
        shape = (self._max_batch, 3, facts.input.height, facts.input.width)
        self._nchw = np.empty(shape, facts.input.dtype)

    def _infer(self, batch: Image) -> list[Outputs]:
        x = self._nchw[: len(batch)]
        np.copyto(x, batch.transpose(0, 3, 1, 2))
        facts = self._facts.input
        if facts.scale != 1.0:
            x *= np.float32(facts.scale)
        for operate, values in ((np.subtract, facts.mean), (np.divide, facts.std)):
            if values is not None:
                operate(x, np.array(values, np.float32).reshape(1, 3, 1, 1), out=x)
        try:
            arrays = self._session.run(None, {self._input_name: x})
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
            raise self._meaning(error, len(batch)) from error
        return per_picture([_travelling(array) for array in arrays], len(batch), self._where)

    def _providers(self, device: str, available: Sequence[str]) -> list[Any]:
        cuda = "CUDAExecutionProvider"
        if device == "cpu" or (device == "auto" and cuda not in available):
            return ["CPUExecutionProvider"]
        if cuda not in available:
            raise ConfigError(
                f"device {device!r}: this ONNX Runtime offers {', '.join(available)}; "
                "install onnxruntime-gpu, or write device = 'cpu'"
            )
        self.device = "cuda" if device == "auto" else device
        index = int(self.device.partition(":")[2] or 0)
        return [(cuda, {"device_id": index}), "CPUExecutionProvider"]

    def _meaning(self, error: Exception, n: int) -> Exception:
        text = str(error)
        if "Failed to allocate memory" in text or "out of memory" in text:
            return OutOfMemory(f"batch of {n}: {first_line(error)}")
        if self.device != "cpu" and any(s in text for s in ("CUDA", "CUDNN", "CUBLAS")):
            return DeviceLost(f"{self.device}: {first_line(error)}")
        return ModelError(
            f"{self._where}: the model fails on a batch of {n} pictures of {self._facts.input.width}x"
            f"{self._facts.input.height}: {first_line(error)}; check size and batch_sizes in its facts"
        )


def _travelling(array: Array) -> Array:
    if array.dtype.str in _TRAVELS:
        return array
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
