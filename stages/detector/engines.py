"""What runs a model: TorchScript, ONNX Runtime, or a stub with declared timing, behind one interface.

    engine = load(path, facts)              the only place where a model file is executed
    engine.warm_up((1, 2, 4))               seconds of the slowest batch
    engine.buffer(2)[:] = pixels            uint8 (2, H, W, 3), page-locked where the device wants it
    engine.infer(engine.buffer(2))          per picture a tuple of arrays, as the layout says

TorchScript is deprecated upstream; nothing outside this module and the exporter knows about it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError, DeviceLost, ManyeyesError, ModelError
from stages.detector import archive
from stages.detector.bundle import Facts

Array = npt.NDArray[Any]
Image = npt.NDArray[np.uint8]
Outputs = tuple[Array, ...]

ENGINES = ("auto", "torchscript", "onnx", "stub")
PRECISIONS = ("auto", "fp32", "fp16", "bf16")
WARM_UP_CALLS = 3  # TorchScript's profiling executor is slow in the first two of each batch size
MAX_FINAL_ROWS = 1000  # of the layout torchvision, whose number of boxes has no other bound
_TRAVELS = {"<f4", "<f2", "<i4", "<i8", "|u1"}  # dtypes that a message can carry


class OutOfMemory(ManyeyesError):
    """This batch did not fit into the memory of the device; a smaller one may."""


class Engine(Protocol):
    """A model, loaded. Used from one thread."""

    device: str
    precision: str

    def buffer(self, n: int) -> Image:
        """uint8 (n, H, W, 3): the same memory each time, to be filled before `infer`."""

    def infer(self, batch: Image) -> list[Outputs]:
        """Run the model on uint8 (B, H, W, 3) in the bundle's colour order; blocks until it is done.

        Any B; above the largest batch in parts.
        Returns B tuples of arrays, C-contiguous, valid until the next call. Raises OutOfMemory;
        DeviceLost when the device is unusable from now on; ModelError when the model itself fails.
        """

    def warm_up(self, sizes: Sequence[int]) -> float:
        """Run each batch size until it is fast; returns the seconds of the slowest batch when warm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StubTiming:
    """The stub takes alpha_ms + beta_ms * B for a batch of B."""

    alpha_ms: float = 1.0
    beta_ms: float = 1.0
    burn: bool = False  # True: keep the core busy meanwhile, False: sleep


def load(
    path: str,
    facts: Facts,
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int = 1,
    max_batch: int = 0,
    stub: StubTiming | None = None,
) -> Engine:
    """The model in `path`, ready to run; takes seconds.

    engine: one of ENGINES, auto by the file's content; device: auto, cpu, cuda or cuda:N; precision:
    one of PRECISIONS, auto being fp16 on CUDA; threads: of one inference, 0 for the library's choice;
    max_batch: largest batch that will come, 0 for the largest of the facts.
    Raises ModelError (not what it should be) or ConfigError (engine or device not there).
    """
    max_batch = max_batch or max(facts.batch_sizes)
    if engine == "stub":
        return StubEngine(facts, max_batch, stub or StubTiming())
    kind = archive.kind_of(path)
    if engine not in ("auto", kind):
        raise ModelError(
            f"{path}: engine {engine!r} cannot run a {kind} file; write engine = 'auto'"
        )
    if kind == "onnx":
        return OnnxEngine(path, facts, max_batch, device, precision, threads)
    return TorchScriptEngine(path, facts, max_batch, device, precision, threads)


class _Engine:
    """What the engines share: the batch buffer, batches of any size, and the warm-up."""

    device = "cpu"
    precision = "fp32"

    def __init__(self, facts: Facts, max_batch: int) -> None:
        max_batch = min(max_batch, max(facts.batch_sizes))
        self._facts = facts
        self._max_batch = max_batch
        self._shape = (max_batch, facts.input.height, facts.input.width, 3)
        self._buffer: Image = np.zeros(self._shape, np.uint8)

    def buffer(self, n: int) -> Image:
        return self._buffer[:n]

    def infer(self, batch: Image) -> list[Outputs]:
        if len(batch) <= self._max_batch:
            return self._infer(batch)
        parts = [batch[i : i + self._max_batch] for i in range(0, len(batch), self._max_batch)]
        return [tuple(a.copy() for a in arrays) for part in parts for arrays in self._infer(part)]

    def _infer(self, batch: Image) -> list[Outputs]:
        """Of at most max_batch pictures."""
        raise NotImplementedError

    def warm_up(self, sizes: Sequence[int]) -> float:
        slowest = 0.0
        for size in sizes:
            for call in range(WARM_UP_CALLS):
                start = time.perf_counter()
                self.infer(self.buffer(size))
                if call == WARM_UP_CALLS - 1:
                    slowest = max(slowest, time.perf_counter() - start)
        return slowest


class StubEngine(_Engine):
    """No model, layout `candidates`: one box around the pixels whose channels are all above 200.

    Score 0.9, label 0; a picture without such pixels gives one padding row of score 0.
    """

    def __init__(self, facts: Facts, max_batch: int, timing: StubTiming) -> None:
        if facts.layout != "candidates":
            raise ConfigError(
                f"engine 'stub' returns the layout 'candidates', the facts say {facts.layout!r}"
            )
        super().__init__(facts, max_batch)
        self._timing = timing

    def _infer(self, batch: Image) -> list[Outputs]:
        end = (
            time.perf_counter() + (self._timing.alpha_ms + self._timing.beta_ms * len(batch)) / 1e3
        )
        outputs = [self._box(pixels) for pixels in batch]
        while (left := end - time.perf_counter()) > 0:
            if not self._timing.burn:
                time.sleep(left)
        return outputs

    def _box(self, pixels: Image) -> Outputs:
        bright = (pixels > 200).all(axis=2)  # (H, W)
        rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
        found = len(rows) > 0
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if found else (0, 0, 0, 0)
        score = np.array([0.9 if found else 0.0], np.float32)
        return np.array([box], np.float32), score, np.zeros(1, np.int64)


class TorchScriptEngine(_Engine):
    """A scripted or traced model, frozen and channels_last, on the CPU or a CUDA device."""

    def __init__(
        self, path: str, facts: Facts, max_batch: int, device: str, precision: str, threads: int
    ) -> None:
        import torch

        super().__init__(facts, max_batch)
        self._torch = torch
        self._where = path
        if threads:
            torch.set_num_threads(threads)
        self._device = self._choose(device)
        self.device = str(self._device)
        self.precision = _precision(precision, cuda=self._device.type == "cuda")
        self._dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[
            self.precision
        ]
        self._module = self._load(path)
        self._pinned: dict[tuple[int, Any], Any] = {}
        if self._device.type == "cuda":
            # page-locked, so that the upload is one asynchronous DMA
            self._page_locked = torch.empty(self._shape, dtype=torch.uint8, pin_memory=True)
            self._buffer = self._page_locked.numpy()
        inp = facts.input
        self._mean = self._constant(inp.mean or (0.0, 0.0, 0.0)) if inp.mean or inp.std else None
        self._std = self._constant(inp.std or (1.0, 1.0, 1.0)) if inp.mean or inp.std else None

    def _infer(self, batch: Image) -> list[Outputs]:
        torch = self._torch
        try:
            with torch.inference_mode():
                found = self._run(self._input(batch))
                return self._split(self._to_host(found), len(batch))
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(f"batch of {len(batch)}: {error}") from None
        except RuntimeError as error:
            raise self._meaning(error, len(batch)) from error

    def _choose(self, device: str) -> Any:
        torch = self._torch
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device != "cpu" and not device.startswith("cuda"):
            raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}")
        chosen = torch.device(device)
        if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
            raise ConfigError(
                f"device {device!r}: this machine offers {torch.cuda.device_count()} CUDA devices; "
                "write device = 'cpu', or 'auto'"
            )
        return chosen

    def _load(self, path: str) -> Any:
        torch = self._torch
        try:
            with _quiet():
                module = torch.jit.load(path, map_location=self._device).eval()
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise ModelError(
                    f"{path}: torch cannot load it as TorchScript: {_first_line(error)}; export it again"
                ) from None
            import torchvision  # noqa: F401  registers the operators that Faster R-CNN scripts use

            with _quiet():
                module = torch.jit.load(path, map_location=self._device).eval()
        if self.precision != "fp32":
            # our own models keep decoding in float32: only the parts named here may be cast
            parts = [getattr(module, n, None) for n in ("net", "box_head", "box_predictor")]
            for part in [p for p in parts if p is not None] or [module]:
                part.to(self._dtype)
            self._cast_input = parts[0] is None
        else:
            self._cast_input = False
        with _quiet():
            module = module.to(memory_format=torch.channels_last)
            if self._device.type == "cuda":
                torch.jit.set_fusion_strategy([("DYNAMIC", 1)])
            return torch.jit.freeze(module)

    def _constant(self, values: tuple[float, float, float]) -> Any:
        return self._torch.tensor(values, device=self._device).view(1, 3, 1, 1)

    def _input(self, batch: Image) -> Any:
        """(B, 3, H, W) on the device; NHWC permuted is channels_last already: nothing is copied."""
        torch, facts = self._torch, self._facts.input
        x = torch.from_numpy(batch).to(self._device, non_blocking=True).permute(0, 3, 1, 2)
        if facts.dtype == "uint8":
            return x
        x = x.float()
        if facts.scale != 1.0:
            x = x * facts.scale
        if self._mean is not None:
            x = (x - self._mean) / self._std
        return x.to(self._dtype) if self._cast_input else x

    def _run(self, x: Any) -> list[Any]:
        """The tensors of the batch: one (B, …) for each output, or for torchvision three for each picture."""
        if self._facts.layout != "torchvision":
            found = self._module(x)
            tensors = [found] if self._torch.is_tensor(found) else list(found)
            if not all(self._torch.is_tensor(tensor) for tensor in tensors):
                raise self._misfit("tensors", found)
            return tensors
        found = self._module(list(x.unbind(0)))
        dicts = found[1] if isinstance(found, tuple) and len(found) == 2 else found  # (losses, …)
        if not isinstance(dicts, list) or not all(isinstance(item, dict) for item in dicts):
            raise self._misfit("a list of dicts", found)
        try:
            return [
                item[key][:MAX_FINAL_ROWS]
                for item in dicts
                for key in ("boxes", "scores", "labels")
            ]
        except KeyError as error:
            raise self._misfit(f"dicts with {error}", found) from None

    def _misfit(self, wanted: str, found: Any) -> ModelError:
        return ModelError(
            f"{self._where}: layout {self._facts.layout!r} needs {wanted} from the model, got "
            f"{type(found).__name__}; declare the layout that it really has"
        )

    def _to_host(self, tensors: list[Any]) -> list[Array]:
        torch = self._torch
        plain = [
            t if t.dtype in (torch.int64, torch.int32, torch.uint8) else t.float() for t in tensors
        ]
        if self._device.type != "cuda":
            return [tensor.contiguous().numpy() for tensor in plain]
        host = []
        for index, tensor in enumerate(plain):
            key = (index, tuple(tensor.shape))
            if key not in self._pinned or self._facts.layout == "torchvision":
                self._pinned[key] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            host.append(self._pinned[key].copy_(tensor, non_blocking=True))
        torch.cuda.current_stream(self._device).synchronize()  # the only wait of the batch
        return [tensor.numpy() for tensor in host]

    def _split(self, arrays: list[Array], n: int) -> list[Outputs]:
        if self._facts.layout == "torchvision":
            if len(arrays) != 3 * n:
                raise self._wrong_batch(n, len(arrays) // 3)
            return [tuple(arrays[3 * i : 3 * i + 3]) for i in range(n)]
        return _per_picture(arrays, n, self._where)

    def _wrong_batch(self, wanted: int, got: int) -> ModelError:
        return _wrong_batch(self._where, wanted, got)

    def _meaning(self, error: RuntimeError, n: int) -> Exception:
        text = str(error)
        if "can't allocate memory" in text or "out of memory" in text:
            return OutOfMemory(f"batch of {n}: {_first_line(error)}")
        if self._device.type == "cuda" and any(s in text for s in ("CUDA", "cuDNN", "cuBLAS")):
            return DeviceLost(f"{self.device}: {_first_line(error)}")
        return ModelError(
            f"{self._where}: the model fails on a batch of {n} pictures of {self._facts.input.width}x"
            f"{self._facts.input.height}, {self._facts.input.dtype}: {_first_line(error)}; "
            "check size, dtype and layout in its facts"
        )


class OnnxEngine(_Engine):
    """An ONNX file in ONNX Runtime; its threads wait without spinning."""

    def __init__(
        self, path: str, facts: Facts, max_batch: int, device: str, precision: str, threads: int
    ) -> None:
        try:
            import onnxruntime as ort
        except ImportError:
            raise ConfigError(
                f"{path}: ONNX files need ONNX Runtime, which is not installed; "
                "pip install 'manyeyes[onnx]'"
            ) from None
        super().__init__(facts, max_batch)
        self._where = path
        self.precision = _precision("fp32" if precision == "auto" else precision, cuda=False)
        if self.precision != "fp32":
            raise ConfigError(
                f"{path}: an ONNX file has its precision inside; write precision = 'auto'"
            )
        providers = self._providers(device, ort.get_available_providers())
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(path, options, providers=providers)
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
            raise ModelError(
                f"{path}: ONNX Runtime cannot load it: {_first_line(error)}; export it again"
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
        return _per_picture([_travelling(array) for array in arrays], len(batch), self._where)

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
            return OutOfMemory(f"batch of {n}: {_first_line(error)}")
        if self.device != "cpu" and any(s in text for s in ("CUDA", "CUDNN", "CUBLAS")):
            return DeviceLost(f"{self.device}: {_first_line(error)}")
        return ModelError(
            f"{self._where}: the model fails on a batch of {n} pictures of {self._facts.input.width}x"
            f"{self._facts.input.height}: {_first_line(error)}; check size and batch_sizes in its facts"
        )


def _precision(precision: str, *, cuda: bool) -> str:
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    return ("fp16" if cuda else "fp32") if precision == "auto" else precision


def _travelling(array: Any) -> Array:
    if not isinstance(array, np.ndarray) or array.dtype.str in _TRAVELS:
        return array
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)


def _per_picture(arrays: list[Array], n: int, where: str) -> list[Outputs]:
    for array in arrays:
        if array.ndim < 1 or len(array) != n:
            raise _wrong_batch(where, n, len(array) if array.ndim else 0)
    return [tuple(array[i] for array in arrays) for i in range(n)]


def _wrong_batch(where: str, wanted: int, got: int) -> ModelError:
    return ModelError(
        f"{where}: a batch of {wanted} pictures must give results for {wanted}, got {got}; "
        "a traced model may have one batch size baked in: script it, or import it with batch 1"
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (
        lines[-1][:300] if lines and "Traceback" in lines[0] else (lines or [repr(error)])[0][:300]
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the deprecation of torch.jit, which is known here; any other warning stays."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", r"`torch\.jit\.", category, r"torch\.jit")
        yield
