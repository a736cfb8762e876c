"""The engine that runs ONNX files in OpenVINO, on the CPU."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from pipeline.errors import ConfigError, ModelError
from stages.detector.bundle import Facts
from stages.detector.engine import Array, OutOfMemory, Settings, first_line
from stages.detector.onnx_engine import Input, OnnxFile, fails_on, inside, not_installed

_TYPES = {  # OpenVINO's names for what ONNX declares
    "u8": "tensor(uint8)", "f16": "tensor(float16)", "f32": "tensor(float)",
    "i32": "tensor(int32)", "i64": "tensor(int64)", "boolean": "tensor(bool)",
}  # fmt: skip
_HINTS = {"fp32": "f32", "bf16": "bf16"}


def is_installed() -> bool:
    """Whether the package is there; it is not loaded."""
    return find_spec("openvino") is not None


class OpenVinoEngine(OnnxFile):
    """In fp32, or bf16 in the layers that the CPU has it for."""

    def __init__(
        self, path: str, facts: Facts, settings: Settings, twin: bytes | None = None
    ) -> None:
        try:
            import openvino
        except ImportError:
            raise not_installed(path, "engine 'openvino' needs OpenVINO", "openvino") from None
        super().__init__(path, facts, settings)
        if settings.device not in ("auto", "cpu"):
            raise ConfigError(
                f"engine 'openvino' runs on the CPU, got device {settings.device!r}; write device = 'auto'"
            )
        if self.precision not in _HINTS:
            raise ConfigError(
                f"engine 'openvino' computes in {' or '.join(_HINTS)}, got precision {self.precision!r}"
            )
        precision = _HINTS[self.precision]
        if self.precision == "fp32":
            self.precision = inside(facts)
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": settings.threads,
            "ENABLE_CPU_PINNING": False,  # every process of a run would choose the same core
        }
        try:
            core = openvino.Core()
            model = core.read_model(path if twin is None else twin)
            compiled = core.compile_model(model, "CPU", options)
            self._request = compiled.create_infer_request()
        except RuntimeError as error:
            raise ModelError(f"{path}: OpenVINO cannot load it: {first_line(error)}") from None
        self._n_outputs = len(compiled.outputs)
        inputs = [
            (port.get_any_name(), _TYPES.get(kind, kind), _shape(port))
            for port in compiled.inputs
            for kind in [port.get_element_type().get_type_name()]
        ]
        self._input = Input(inputs, facts, self._max_batch, path)

    def _run(self, feed: dict[str, Array], n: int) -> Iterable[Array]:
        try:
            self._request.infer(feed, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            if "allocate" in str(error) or "out of memory" in str(error):
                raise OutOfMemory(f"batch of {n}: {first_line(error)}") from None
            raise fails_on(self._where, n, self._facts.input, error) from error
        return (self._request.get_output_tensor(i).data for i in range(self._n_outputs))


def _shape(port) -> tuple[int | str, ...]:  # type: ignore[no-untyped-def]  # openvino.ConstOutput
    shape = port.get_partial_shape()
    return tuple(side.get_length() if side.is_static else "?" for side in shape)
