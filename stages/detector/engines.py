"""What runs a model: TorchScript, ONNX Runtime, OpenVINO, or a stub with declared timing.

    engine = load(path, facts)              the only place where a model file is executed
    engine.warm_up((1, 2, 4))               seconds of the slowest batch
    engine.buffer(2)[:] = pixels            uint8 (2, H, W, 3), page-locked where the device wants it
    engine.infer(engine.buffer(2))          per picture a tuple of arrays, as the layout says

TorchScript is deprecated upstream; nothing outside this module and the exporter knows about it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from pipeline.errors import ConfigError, DeviceLost, ModelError
from stages.detector import archive, bundle, golden, ways
from stages.detector.bundle import Facts
from stages.detector.engine import (
    Array,
    BaseEngine,
    Engine,
    Image,
    OutOfMemory,
    Outputs,
    Settings,
    StubEngine,
    StubTiming,
    first_line,
    per_channel,
    precision_of,
)
from stages.detector.onnx_engine import OnnxEngine
from stages.detector.openvino_engine import OpenVinoEngine
from stages.detector.outputs import MAX_FINAL_ROWS, per_picture, wrong_batch

__all__ = ["ENGINES", "Engine", "OutOfMemory", "Outputs", "StubTiming", "load"]

ENGINES = ("auto", "torchscript", "onnx", "openvino", "stub")
MAX_SEARCHED = 16  # batch sizes for each of which cuDNN tries its algorithms
_CASTABLE = (
    "net",
    "box_head",
    "box_predictor",
)  # what our own exports let be cast; decoding is not


def load(
    path: str,
    facts: Facts,
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int = 1,
    max_batch: int = 0,
    cuda_graphs: bool = False,
    stub: StubTiming | None = None,
) -> Engine:
    """The model in `path`, ready to run; takes seconds.

    engine: one of ENGINES, auto by the file's content, onnx and openvino also for the twin; device: auto,
    cpu, cuda or cuda:N; precision: auto, fp32, fp16 or bf16, auto being fp16 on CUDA; threads: of one
    inference on the CPU, 0 for the library's choice, and torch keeps the number for the whole process;
    max_batch: largest batch run at once, 0 for the largest of the facts, which it never exceeds;
    cuda_graphs: see cuda.Graphs.
    Raises ModelError (not what it should be) or ConfigError (engine or device not there).
    """
    settings = Settings(
        device=device,
        precision=precision,
        threads=threads,
        max_batch=max_batch,
        cuda_graphs=cuda_graphs,
    )
    if engine == "stub":
        return StubEngine(facts, settings, stub or StubTiming())
    runs = bundle.runnable(path, facts)
    name = runs[0] if engine == "auto" else engine
    if name not in runs:
        raise ModelError(
            f"{path}: engine {engine!r} cannot run it, {' and '.join(runs)} can; "
            "write engine = 'auto'"
        )
    if name == "torchscript":
        return TorchScriptEngine(path, facts, settings)
    twin = archive.read_twin(path, facts.twin) if facts.twin and "torchscript" in runs else None
    kind = OnnxEngine if name == "onnx" else OpenVinoEngine
    return kind(path, facts, settings, twin)


def torch_facts() -> tuple[str, list[str]]:
    """Version of torch, and the names of the CUDA devices that it can use."""
    import torch

    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return torch.__version__, [torch.cuda.get_device_name(i) for i in range(n)]


class Prepared(NamedTuple):
    """A model in the precision in which it runs."""

    module: Any
    takes: Any  # torch.dtype of its input, if that is one of floats


class TorchScriptEngine(BaseEngine):
    """A scripted or traced model, frozen and channels_last, on the CPU or a CUDA device."""

    def __init__(self, path: str, facts: Facts, settings: Settings) -> None:
        import torch

        super().__init__(facts, settings)
        self._torch = torch
        self._where = path
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self._device = self._choose(settings.device)
        self._cuda = self._device.type == "cuda"
        self.device = str(self._device)
        self.precision = precision_of(settings.precision, cuda=self._cuda)
        self._affine = [
            None
            if values is None
            else torch.tensor(values, device=self._device).view(per_channel(facts.input))
            for values in (facts.input.mean, facts.input.std)
        ]
        if self._cuda:
            self._ways = self._climbed(settings)
        else:
            self._model = self.prepared(self.precision)

    def _climbed(self, settings: Settings) -> ways.Ways:
        """On CUDA: the plain way, and the steps from there that work with this driver and this model."""
        from stages.detector import cuda

        # one specialisation, for all batch sizes: no compilation in mid-run
        self._torch.jit.set_fusion_strategy([("DYNAMIC", 1)])
        # the warm-up pays for the search, which a start with many batch sizes can't wait for
        self._torch.backends.cudnn.benchmark = self._max_batch <= MAX_SEARCHED
        self._torch.cuda.set_device(self._device)
        plain = "fp32" if settings.precision == "auto" else self.precision
        parts = cuda.Parts(self, self._device, self._shape, plain)
        found = ways.Ways(parts, self._split, self._max_batch)
        steps = [
            step
            for step in ways.STEPS
            if not (step == "fp16" and settings.precision != "auto")
            and not (step == "graphs" and not settings.cuda_graphs)
            and not (step == "downloads" and self._facts.layout == "torchvision")  # ever new shapes
        ]
        try:
            with self._torch.inference_mode():
                found.climb(steps, self._facts, self.device)
        except RuntimeError as error:  # of the plain way, or one that took the device with it
            raise self._meaning(error, golden.BATCH) from error
        if settings.precision == "auto":
            self.precision = "fp16" if "fp16" in found.taken else "fp32"
        if parts.buffer is not None:
            self._buffer = parts.buffer
        return found

    def infer_pictures(self, pictures: Sequence[Image]) -> list[Outputs]:
        """See Engine; on CUDA each picture is uploaded from where it lies."""
        if self._cuda and len(pictures) <= self._max_batch:
            return self._infer(pictures)
        return super().infer_pictures(pictures)

    def _infer(self, batch: Image | Sequence[Image]) -> list[Outputs]:
        torch = self._torch
        try:
            with torch.inference_mode():
                if self._cuda:
                    return self._ways.infer(batch)
                tensors = self.run(self._model, torch.from_numpy(batch))
                arrays = [tensor.contiguous().numpy() for tensor in self.travelling(tensors)]
                return self._split(arrays, len(batch))
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(f"batch of {len(batch)}: {first_line(error)}") from None
        except (RuntimeError, torch.jit.Error) as error:  # Error: raised by the model's own code
            raise self._meaning(error, len(batch)) from error

    def _split(self, arrays: list[Array], n: int) -> list[Outputs]:
        if self._facts.layout != "torchvision":
            return per_picture(arrays, n, self._facts, self._where)
        if len(arrays) != 3 * n:
            raise wrong_batch(self._where, n, len(arrays) // 3)
        return [tuple(arrays[3 * i : 3 * i + 3]) for i in range(n)]

    def _choose(self, device: str) -> Any:
        torch = self._torch
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        name, _, index = device.partition(":")
        if name not in ("cpu", "cuda") or not (index or "0").isdecimal():
            raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}")
        if name == "cuda" and int(index or 0) >= torch.cuda.device_count():
            raise ConfigError(
                f"device {device!r}: this machine offers {torch.cuda.device_count()} CUDA devices; "
                "write device = 'cpu', or 'auto'"
            )
        return torch.device(name, int(index or 0)) if name == "cuda" else torch.device(name)

    def prepared(
        self, precision: str, *, channels_last: bool = True, frozen: bool = True
    ) -> Prepared:
        """Loaded, cast, then channels_last, then frozen: a frozen module cannot be cast any more."""
        torch, module = self._torch, script(self._where, self._device)
        takes = torch.float32
        with _quiet():
            if precision != "fp32":
                dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
                parts = [getattr(module, name) for name in _CASTABLE if hasattr(module, name)]
                for part in parts or [module]:
                    part.to(dtype)
                if not parts:  # a foreign model, which casts nothing itself
                    takes = dtype
            if channels_last:
                module = module.to(memory_format=torch.channels_last)
            if frozen:
                module = torch.jit.freeze(module)
                if not self._cuda:
                    from stages.detector import group_norm

                    group_norm.rewrite(module)
        return Prepared(module, takes)

    def _input(self, batch: Any, takes: Any) -> Any:
        """As the facts order it; NHWC permuted is channels_last already: nothing is copied."""
        torch, facts = self._torch, self._facts.input
        x = batch if facts.order == "nhwc" else batch.permute(0, 3, 1, 2)
        if facts.order == "chw":
            if len(x) > 1:
                raise wrong_batch(self._where, len(x), 1)
            x = x[0]
        if facts.dtype == "uint8":
            return x
        x = x.float()
        if facts.scale != 1.0:
            x = x * facts.scale
        mean, std = self._affine  # each of a shape that fits the order
        if mean is not None:
            x = x - mean
        if std is not None:
            x = x / std
        return x.to(torch.float16 if facts.dtype == "float16" else takes)

    def run(self, model: Prepared, batch: Any) -> list[Any]:
        """Uint8 (B, H, W, 3) on the device to tensors: one (B, …) an output; for torchvision three a
        picture."""
        x = self._input(batch, model.takes)
        is_tensor = self._torch.is_tensor
        if self._facts.layout != "torchvision":
            found = model.module(x)
            tensors = [found] if is_tensor(found) else found
            if not isinstance(tensors, list | tuple) or not all(map(is_tensor, tensors)):
                raise self._misfit("tensors", found)
            return list(tensors)
        found = model.module(list(x.unbind(0)))
        dicts = found[1] if isinstance(found, tuple) and len(found) == 2 else found  # (losses, …)
        keys = ("boxes", "scores", "labels")
        if not isinstance(dicts, list) or not all(
            isinstance(item, dict) and item.keys() >= set(keys) for item in dicts
        ):
            raise self._misfit(f"a list of dicts of {', '.join(keys)}", found)
        return [item[key][:MAX_FINAL_ROWS] for item in dicts for key in keys]

    def _misfit(self, wanted: str, found: Any) -> ModelError:
        return ModelError(
            f"{self._where}: layout {self._facts.layout!r} needs {wanted} from the model, got "
            f"{type(found).__name__}; declare the layout that it really has"
        )

    def travelling(self, tensors: Sequence[Any]) -> list[Any]:
        """The tensors in dtypes that a message carries."""
        torch = self._torch
        kept = (torch.float32, torch.int64, torch.int32, torch.uint8)
        return [t if t.dtype in kept else t.float() for t in tensors]

    def _meaning(self, error: Exception, n: int) -> Exception:
        text = str(error)
        if "can't allocate memory" in text or "out of memory" in text:
            return OutOfMemory(f"batch of {n}: {first_line(error)}")
        if self._cuda and any(name in text for name in ("CUDA", "cuDNN", "CUDNN", "CUBLAS")):
            return DeviceLost(f"{self.device}: {first_line(error)}")
        size = self._facts.input
        return ModelError(
            f"{self._where}: the model fails on a batch of {n} pictures of {size.width}x{size.height}, "
            f"{size.dtype}: {first_line(error)}; check size, dtype and layout in its facts"
        )


def script(path: str, device: Any = "cpu") -> Any:
    """The module of a TorchScript file, in eval mode; raises ModelError if it can't be loaded."""
    import torch

    archive.check_sums(path)
    try:
        with _quiet():
            return torch.jit.load(path, map_location=device).eval()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise ModelError(
                f"{path}: torch cannot load it as TorchScript: {first_line(error)}; export it again"
            ) from None
    import torchvision  # noqa: F401  registers the operators that Faster R-CNN scripts use

    with _quiet():
        return torch.jit.load(path, map_location=device).eval()  # type: ignore[no-untyped-call]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the deprecation of torch.jit, which is known here; any other warning stays."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", r"`torch\.jit\.", category, r"torch\.jit")
        yield
