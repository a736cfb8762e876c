"""A trained detector becomes a bundle: one file, checked before it appears under its name."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import torchvision
from torch import nn

from pipeline.errors import ConfigError, ModelError
from stages.detector import archive, engines, golden
from stages.detector import twin as twins
from stages.detector.bundle import Defaults, Facts, InputFacts, ResizeFacts, read_facts
from stages.detector.engines import Engine
from stages.training import candidates_static, checkpoint, parity
from stages.training.candidates import ROW_BYTES, candidates, fold_batch_norms
from stages.training.candidates_detr import DetrCandidates
from stages.training.candidates_rcnn import RcnnCandidates
from stages.training.candidates_static import StaticRcnn
from stages.training.models import ModelConfig, layout

Image = npt.NDArray[np.uint8]
Format = Literal["torchscript", "onnx"]
Precision = Literal["fp32", "fp16", "bf16"]

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def export(
    model: nn.Module,
    config: ModelConfig,
    *,
    output: Path,
    pictures: Sequence[Image],
    name: str | None = None,
    resize: ResizeFacts | None = None,
    defaults: Defaults | None = None,
    provenance: dict[str, Any] | None = None,
    format: str = "torchscript",
    precision: str = "fp32",
    twin: bool = True,
    k: int = 1000,
) -> Facts:
    """Write `output`, or raise and write nothing.

    The file is written beside `output`, loaded back by the engine that the pipeline uses, compared
    with `model` on the pictures (`parity`) and given its golden record; only then it gets its name.

    Args:
        model: built by `models.build` from `config` and trained; not changed.
        pictures: uint8 (H, W, 3) BGR, any sizes, for the parity gate: at least one.
        name: of the model; None: the name of the file.
        resize: how training made its canvas; None: ResizeFacts().
        defaults: of postprocess, such as the score threshold that evaluation found best.
        provenance: goes into the facts: data hashes, metrics, commit, licence; plain values.
        format: "torchscript", or "onnx" for ONNX Runtime.
        precision: of the network's weights and arithmetic; decoding is always float32. TorchScript
            in fp32 can still be cast when it is loaded.
        twin: a TorchScript bundle in fp32 carries its ONNX form, too, if that passes the same gate.
        k: candidates a picture; from 500 on NMS loses nothing in practice.

    Returns:
        The facts as they are in the file; `provenance["parity"]` says what was compared.

    Raises:
        ModelError: the exported model differs from `model`; ConfigError: the format does not offer
        that, or the file cannot be written.
    """
    _check_options(format, precision)
    module: Any = candidates(model, config, k).eval()
    if queries := isinstance(module, DetrCandidates):
        _want_fp32(config, precision)
    fold_batch_norms(module)
    _cast(module, precision)
    facts = Facts(
        name=name or output.stem,
        architecture=config.architecture,
        classes=config.classes,
        input=InputFacts(width=config.width, height=config.height, color="rgb", dtype="uint8"),
        resize=resize or ResizeFacts(),
        **layout(config),
        defaults=defaults or Defaults(),
        output_bytes_per_image=(module.bytes_per_image if queries else int(module.k) * ROW_BYTES),
        provenance={
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "commit": checkpoint.commit(),
            "model": config.to_json(),
            "precision": precision,
            **(provenance or {}),
        },
    )
    with _parts(output) as (bare, whole):
        _save(module, config, bare, format)
        archive.write_text(bare, whole, facts.to_json())
        engine = engines.load(str(whole), facts, device="cpu", precision="fp32", threads=0)
        with _few_sweeps_named(format == "onnx" and isinstance(module, RcnnCandidates)):
            found = parity.compare(model, config, engine, facts, pictures, precision=precision)
        facts = dataclasses.replace(
            facts,
            golden=golden.record(facts, engine),
            provenance={**facts.provenance, "parity": dataclasses.asdict(found)},
        )
        archive.write_text(bare, whole, facts.to_json())
        facts = read_facts(str(whole))  # as everybody will read them
        golden.check(facts, engines.load(str(whole), facts, device="cpu", precision="fp32"))
        if twin and format == "torchscript" and precision == "fp32":
            facts = _with_twin(whole, facts, module, model, config, pictures)
        os.replace(whole, output)
    return facts


def _want_fp32(config: ModelConfig, precision: str) -> None:
    if precision != "fp32":
        raise ConfigError(
            f"export: {config.architecture} is exported in fp32, got precision {precision!r}: its boxes "
            "are sums along the network, which half precision blurs"
        )


def _check_options(format: str, precision: str) -> None:
    for option, got, known in (
        ("format", format, get_args(Format)),
        ("precision", precision, get_args(Precision)),
    ):
        if got not in known:
            raise ConfigError(f"export: {option} {got!r}: wanted one of {', '.join(known)}")
    if format == "onnx" and precision != "fp32":
        raise ConfigError(f"export: ONNX files are written in fp32, got precision {precision!r}")


def _with_twin(
    whole: Path,
    facts: Facts,
    module: nn.Module,
    model: nn.Module,
    config: ModelConfig,
    pictures: Sequence[Image],
) -> Facts:
    def check(paired: Facts, engine: Engine) -> None:
        golden.check(paired, engine)
        with _few_sweeps_named(isinstance(module, RcnnCandidates)):
            parity.compare(model, config, engine, paired, pictures)

    return twins.add(whole, facts, lambda path: _save_onnx(module, config, path), check)


def _cast(module: nn.Module, precision: str) -> None:
    for part in ("net", "box_head", "box_predictor"):
        if hasattr(module, part):
            getattr(module, part).to(_DTYPES[precision])


@contextlib.contextmanager
def _few_sweeps_named(unrolled: bool) -> Iterator[None]:
    """A difference may have one cause more where the NMS between two stages is unrolled."""
    try:
        yield
    except ModelError as error:
        if not unrolled:
            raise
        raise ModelError(
            f"{error}: the ONNX form of two stages unrolls only {candidates_static.SWEEPS} sweeps of "
            "the NMS between them, which may be too few here; export it as torchscript"
        ) from None


def _save(module: nn.Module, config: ModelConfig, path: Path, format: str) -> None:
    if format == "onnx":
        _save_onnx(module, config, path)
        return
    with warnings.catch_warnings():
        # TorchScript is deprecated upstream; this module and the engine are what knows about it
        warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        buffer = io.BytesIO()  # in memory, or the file's name would be inside, too
        torch.jit.save(_torchscript(module, config), buffer)
    path.write_bytes(buffer.getvalue())


def _torchscript(module: nn.Module, config: ModelConfig) -> Any:
    if not isinstance(module, DetrCandidates):
        return torch.jit.script(module)
    with (
        twins.quiet(),
        torch.no_grad(),
    ):  # a tracer warns of every shape, and the gate looks at them
        trace: Any = torch.jit.trace
        return trace(module, _example(config), check_trace=False)


def _example(config: ModelConfig) -> torch.Tensor:
    return torch.zeros(2, 3, config.height, config.width, dtype=torch.uint8)


def _save_onnx(module: nn.Module, config: ModelConfig, path: Path) -> None:
    if isinstance(module, DetrCandidates):
        _save_traced_onnx(module, config, path)
        return
    if isinstance(module, RcnnCandidates):
        module = StaticRcnn(module)
    example = _example(config)
    try:
        with twins.quiet():
            torch.onnx.export(
                module,
                (example,),
                str(path),
                dynamo=True,
                external_data=False,  # the weights inside the one file
                input_names=["images"],
                output_names=["boxes", "scores", "labels"],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},),
                verbose=False,
            )
    except ImportError as error:
        raise ConfigError(
            f"export: the format onnx needs {error.name}, which is not installed; "
            "pip install 'manyeyes[onnx]'"
        ) from error
    except torch.onnx.OnnxExporterError as error:
        raise ModelError(
            f"export: '{config.architecture}' has no ONNX form with this torch "
            f"({str(error).splitlines()[0]}); export it as torchscript"
        ) from error


def _save_traced_onnx(module: DetrCandidates, config: ModelConfig, path: Path) -> None:
    """By the older exporter, which follows a trace: the newer one fails on the queries."""
    names = ["images", "logits", "boxes"]
    try:
        with twins.quiet(), torch.no_grad():
            torch.onnx.export(
                module,
                (_example(config),),
                str(path),
                dynamo=False,
                input_names=names[:1],
                output_names=names[1:],
                dynamic_axes={name: {0: "batch"} for name in names},
                opset_version=17,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ModelError(
            f"export: '{config.architecture}' has no ONNX form with this torch "
            f"({str(error).splitlines()[0]}); export it as torchscript"
        ) from error


@contextlib.contextmanager
def _parts(output: Path) -> Iterator[tuple[Path, Path]]:
    """Two files beside `output`, gone afterwards: the bare model, and the bundle to be."""
    bare = output.with_name(f".{output.name}.{os.getpid()}.bare")
    whole = output.with_name(f".{output.name}.{os.getpid()}.whole")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        bare.touch()
        yield bare, whole
    except OSError as error:
        raise ConfigError(
            f"{output}: the bundle cannot be written ({error.strerror}); choose another folder"
        ) from error
    finally:
        for part in (bare, whole):
            with contextlib.suppress(OSError):
                part.unlink()
