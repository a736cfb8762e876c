"""A bundle in 8-bit integers for CPUs: smaller and faster, and written only if it finds as much.

ONNX Runtime's static quantisation: pictures show which range the numbers of each layer have. Weights get a
scale for each channel. What follows the last convolutions is decoding, and stays as it is: a coordinate of
416 px in 256 steps would be off by a pixel.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, ModelError
from pipeline.messages import Image
from stages.detector import archive, engines, golden, twin
from stages.detector.bundle import Facts, read_facts
from stages.detector.engine import first_line
from stages.detector.onnx_engine import Input
from stages.imaging.letterbox import prepare
from stages.training import evaluate, predict, trained
from stages.training.datasets import DataSet, read_image
from stages.training.trained import Trained

PICTURES = 64  # that show the ranges: more changed nothing
MAX_LOSS = 0.005  # of AP on the validation data
_LAYERS = (
    "Conv",
    "Sigmoid",
    "Mul",
    "Add",
    "Concat",
    "MaxPool",
    "Relu",
)  # those between convolutions


def quantise(
    source: Path | Trained,
    output: Path,
    calibration: DataSet,
    validation: DataSet,
    *,
    rename: Mapping[str, str] | None = None,
    name: str | None = None,
) -> Facts:
    """Write `output`, an ONNX bundle in int8, or raise and write nothing. Takes minutes.

    source: a bundle in fp32, ONNX or with a twin, or a checkpoint. calibration: pictures of what the
    cameras see; their labels do not matter. validation: its AP, in `source` and in int8, decides. rename:
    class of the model → class of the data. Raises ModelError with the numbers where AP falls by more than
    MAX_LOSS.
    """
    if not calibration.samples:
        raise ConfigError(f"--calibrate {calibration.name}: wanted pictures, got none")
    with tempfile.TemporaryDirectory(prefix="manyeyes-int8-") as folder:
        if isinstance(source, Trained):
            written = Path(folder) / f"{output.name.partition('.')[0]}.bundle"
            trained.bundle(source, validation, written, name=name, format="onnx")
            source = written
        facts = read_facts(str(source))
        whole, small = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        whole.write_bytes(_network(source, facts))
        _write(whole, small, facts, _chosen(calibration))
        facts = dataclasses.replace(
            facts,
            name=name or facts.name,
            twin=None,
            golden=None,
            provenance={**facts.provenance, "precision": "int8", "source": source.name,
                        "source_sha256": archive.sha256(source)},
        )  # fmt: skip
        part = Path(folder) / "int8.bundle"
        archive.write_text(small, part, facts.to_json())
        before, after = (_ap(path, validation, rename) for path in (source, part))
        if not after >= before - MAX_LOSS:
            raise ModelError(
                f"{source}: in int8 its AP on {validation.name} is {after:.4f}, and {before:.4f} in fp32: "
                f"more than {MAX_LOSS} is lost, and nothing was written; stay with fp32, or calibrate with "
                "pictures that are more like those of the cameras"
            )
        engine = engines.load(str(part), facts, device="cpu", threads=0)
        facts = dataclasses.replace(
            facts,
            golden=golden.record(facts, engine),
            provenance={
                **facts.provenance,
                "int8": {"ap": after, "fp32_ap": before, "data": validation.name,
                         "pictures": len(validation.samples)},
            },
        )  # fmt: skip
        output.parent.mkdir(parents=True, exist_ok=True)
        archive.write_text(small, output, facts.to_json())
    return facts


def is_bundle(path: Path) -> bool:
    """Whether it is a model file with facts inside, and no checkpoint."""
    try:
        return path.is_file() and archive.carries_facts(path)
    except ModelError:
        return False


def said_of(facts: Facts) -> str:
    """What the gate measured, for a person."""
    found = facts.provenance["int8"]
    return (
        f"AP {found['ap']:.4f} in int8, {found['fp32_ap']:.4f} in fp32, on {found['pictures']} pictures of "
        f"{found['data']}"
    )


def _network(source: Path, facts: Facts) -> bytes:
    if archive.kind_of(source) == "onnx":
        return source.read_bytes()
    if facts.twin is None:
        raise ModelError(
            f"{source}: int8 is made of its ONNX form, and it has none: "
            f"{facts.provenance.get('twin', 'it was made without')}"
        )
    return archive.read_twin(source, facts.twin)


def _chosen(data: DataSet) -> Iterator[Image]:
    count = len(data.samples)
    for i in sorted({i * count // PICTURES for i in range(PICTURES)}):
        yield read_image(data.samples[i])


def _ap(bundle: Path, data: DataSet, rename: Mapping[str, str] | None) -> float:
    found = predict.found_by(bundle, data, rename=rename, device="cpu")
    return evaluate.evaluate(found.detections, data, score_threshold=found.score_threshold).coco[
        "AP"
    ]


def _write(whole: Path, small: Path, facts: Facts, pictures: Iterator[Image]) -> None:
    from onnxruntime import InferenceSession, quantization

    session = InferenceSession(str(whole), providers=["CPUExecutionProvider"])
    inputs = [(i.name, i.type, tuple(i.shape)) for i in session.get_inputs()]
    feeder = Input(inputs, facts, 1, str(whole))

    class Pictures(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            image = next(pictures, None)
            if image is None:
                return None
            pixels, _ = prepare(image, facts.input, facts.resize)
            return {name: np.array(array) for name, array in feeder.feed(pixels[None]).items()}

    try:
        with twin.quiet():
            ready = whole.with_suffix(".ready.onnx")
            # shapes of free sizes, which its symbolic inference can't follow, are not needed
            quantization.shape_inference.quant_pre_process(
                str(whole), str(ready), skip_symbolic_shape=True
            )
            quantization.quantize_static(
                str(ready),
                str(small),
                Pictures(),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(_LAYERS),
                nodes_to_exclude=decoding(ready),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
    except Exception as error:  # of ONNX Runtime, of onnx, of protobuf: they share no base class
        raise ModelError(f"{facts.name}: can't be quantised: {first_line(error)}") from error
    finally:
        whole.with_suffix(".ready.onnx").unlink(missing_ok=True)


def decoding(network: str | os.PathLike[str]) -> list[str]:
    """The names of the nodes of an ONNX file behind which no other convolution comes."""
    import onnx

    graph = onnx.load(network, load_external_data=False).graph
    leads: set[str] = set()  # tensors that lead to a convolution
    last: list[str] = []
    for node in reversed(graph.node):  # a graph's nodes are sorted
        if not leads.intersection(_made(node.output)):
            last.append(node.name)
            if node.op_type != "Conv":
                continue
        leads.update(_made(node.input))
    return last


def _made(names: Sequence[str]) -> list[str]:
    return [name for name in names if name]
