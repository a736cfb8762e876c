"""The engine for ONNX files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, DeviceLost, ModelError
from stages.detector.bundle import Facts, InputFacts
from stages.detector.engine import (
    Array,
    BaseEngine,
    Image,
    OutOfMemory,
    Outputs,
    Settings,
    first_line,
    per_channel,
    precision_of,
)
from stages.detector.outputs import per_picture, wrong_batch

_TRAVELS = {"<f4", "<f2", "<i4", "<i8", "|u1"}  # dtypes that a message can carry
DTYPES = {"uint8": "tensor(uint8)", "float16": "tensor(float16)", "float32": "tensor(float)"}
CONSTANTS = ("orig_target_sizes", "scale_factor", "im_shape", "pixel_mask")
"""Inputs beside the picture that are the same for all, so that boxes come in pixels of the input."""


class OnnxFile(BaseEngine):
    """What engines share that run an ONNX file, or the twin in a bundle: all but the library."""

    _input: Input  # set by who has read the file

    def __init__(self, path: str, facts: Facts, settings: Settings) -> None:
        super().__init__(facts, settings)
        self._where = path
        self.precision = precision_of(settings.precision, cuda=False)

    def _infer(self, batch: Image) -> list[Outputs]:
        arrays = [travelling(array) for array in self._run(self._input.feed(batch), len(batch))]
        return per_picture(arrays, len(batch), self._facts, self._where)

    def _run(self, feed: dict[str, Array], n: int) -> Iterable[Array]:
        """All outputs for n pictures, valid until the next call. Raises as `infer` does."""
        raise NotImplementedError


class OnnxEngine(OnnxFile):
    """In ONNX Runtime; its threads wait without spinning."""

    def __init__(
        self, path: str, facts: Facts, settings: Settings, twin: bytes | None = None
    ) -> None:
        try:
            import onnxruntime as ort
        except ImportError:
            raise not_installed(path, "ONNX needs ONNX Runtime", "onnx") from None
        super().__init__(path, facts, settings)
        if self.precision != "fp32":
            raise ConfigError(f"{path}: ONNX has its precision inside; write precision = 'auto'")
        self.precision = inside(facts)
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
        inputs = [(i.name, i.type, tuple(i.shape)) for i in self._session.get_inputs()]
        self._input = Input(inputs, facts, self._max_batch, path)

    def _run(self, feed: dict[str, Array], n: int) -> Iterable[Array]:
        try:
            arrays: list[Array] = self._session.run(None, feed)
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
            raise self._meaning(error, n) from error
        return arrays

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
        return fails_on(self._where, n, self._facts.input, error)


class Input:
    """What a model of ONNX is fed with: the batch, ordered and scaled, and what never changes."""

    def __init__(
        self,
        inputs: Sequence[tuple[str, str, tuple[Any, ...]]],
        facts: Facts,
        max_batch: int,
        where: str,
    ) -> None:
        """inputs: (name, type such as "tensor(float)", shape) of each. Raises ModelError: no such."""
        self._facts = size = facts.input
        self._where = where
        pictures = [(name, kind) for name, kind, _ in inputs if name not in CONSTANTS]
        if len(pictures) != 1 or pictures[0][1] != DTYPES[size.dtype]:
            got = ", ".join(f"{name}: {kind}" for name, kind, _ in inputs)
            raise ModelError(
                f"{where}: its facts promise one input of {DTYPES[size.dtype]} (beside "
                f"{', '.join(CONSTANTS)}), the model has {got}; import it again"
            )
        self._name = pictures[0][0]
        self._constants = {
            name: _constant(name, kind, shape, size, max_batch)
            for name, kind, shape in inputs
            if name in CONSTANTS
        }
        nchw, nhwc = (3, size.height, size.width), (size.height, size.width, 3)
        self._batch = np.empty((max_batch, *(nhwc if size.order == "nhwc" else nchw)), size.dtype)
        self._affine = [
            (operate, np.array(values, size.dtype).reshape(per_channel(size)))
            for operate, values in ((np.subtract, size.mean), (np.divide, size.std))
            if values is not None
        ]

    def feed(self, batch: Image) -> dict[str, Array]:
        """By name; the same memory each time. batch: uint8 (B, H, W, 3), B at most max_batch."""
        facts, n = self._facts, len(batch)
        if facts.order == "chw" and n > 1:
            raise wrong_batch(self._where, n, 1)
        x = self._batch[:n]
        np.copyto(x, batch if facts.order == "nhwc" else batch.transpose(0, 3, 1, 2))
        if facts.scale != 1.0:
            x *= x.dtype.type(facts.scale)
        for operate, values in self._affine:
            operate(x, values, out=x)
        constants = {name: values[:n] for name, values in self._constants.items()}
        return {self._name: x[0] if facts.order == "chw" else x, **constants}


def not_installed(path: str, needs: str, extra: str) -> ConfigError:
    """The error of a library that an extra of the package brings; needs: "X needs Y"."""
    return ConfigError(f"{path}: {needs}, which is not installed; pip install 'manyeyes[{extra}]'")


def inside(facts: Facts) -> str:
    """The precision that an ONNX file has: its export says so, or else it is fp32."""
    return "int8" if facts.provenance.get("precision") == "int8" else "fp32"


def _constant(
    name: str, kind: str, shape: tuple[Any, ...], size: InputFacts, max_batch: int
) -> Array:
    """(max_batch, …): what `name` is wherever boxes are to come in pixels of the input."""
    dtype = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}.get(
        kind, np.float32
    )
    if name == "pixel_mask":  # DETR's may be smaller than the picture
        sides = (
            shape[1:] if len(shape) == 3 and all(isinstance(s, int) for s in shape[1:]) else None
        )
        return np.ones((max_batch, *(sides or (size.height, size.width))), dtype)
    pair = {
        "orig_target_sizes": (size.width, size.height),
        "im_shape": (size.height, size.width),
        "scale_factor": (1, 1),
    }[name]
    return np.tile(np.array(pair, dtype), (max_batch, 1))


def travelling(array: Array) -> Array:
    """The same numbers in a dtype that a message carries."""
    if array.dtype.str in _TRAVELS:
        return array
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)


def fails_on(where: str, n: int, size: InputFacts, error: Exception) -> ModelError:
    """The error of a model that does not take the batches that its facts promise."""
    return ModelError(
        f"{where}: the model fails on a batch of {n} pictures of {size.width}x{size.height}: "
        f"{first_line(error)}; check size and batch_sizes in its facts"
    )
