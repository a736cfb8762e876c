"""Foreign models become bundles: declared facts, checked by running the model once, written inside it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pipeline.errors import ConfigError, ModelError
from stages.detector import archive, bundle, engines, golden, layouts, twin
from stages.detector.bundle import Facts, InputFacts, Layout, ResizeFacts

BATCH_SIZES = (1, 2, 4, 8)
FINAL_ROW_BYTES = 4 * 4 + 4 + 8  # box, score and label of the layout torchvision

COCO80 = tuple(
    name.strip()
    for line in """
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light
    fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow
    elephant, bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee
    skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard
    tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple
    sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch
    potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone
    microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear
    hair drier, toothbrush""".strip().splitlines()
    for name in line.split(",")
)


def inspect(path: str) -> tuple[Facts, dict[str, Any]]:
    """The facts of a bundle, and what else the file tells; runs nothing of it. Raises ModelError."""
    facts = bundle.read_facts(path)
    file = {
        "file": str(path),
        "kind": archive.kind_of(path),
        "bytes": Path(path).stat().st_size,
        "sha256": archive.sha256(path),
        "model_id": bundle.model_id(path),
    }
    return facts, file


def import_model(
    path: str,
    output: str,
    *,
    layout: str,
    classes: str | Sequence[str],
    size: str | int | tuple[int, int],
    color: str = "rgb",
    dtype: str = "float32",
    scale: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pad: int = 114,
    align: str = "center",
    interpolation: str = "linear",
    resize: str = "letterbox",
    label_offset: int = 0,
    name: str | None = None,
    provenance: dict[str, Any] | None = None,
) -> Facts:
    """Write `output`: the model of `path` with these facts inside. **Executes the model**, on the CPU.

    classes: "coco80", a text file with a name a line, "a,b,c", or a list; size: 416, "640x384" or
    (width, height) px; the rest as in `InputFacts` and `ResizeFacts`. The model runs once for each
    batch size; which sizes it takes, its bytes of output and its golden record are measured, and the
    bundle is loaded back and has to pass its golden test.
    Raises ModelError (no model, facts that it does not bear out) or ConfigError, in one sentence;
    `output` then stays as it was.
    """
    if layout not in get_args(Layout):
        raise ConfigError(f"layout must be one of {', '.join(get_args(Layout))}, got {layout!r}")
    archive.kind_of(path)
    width, height = parse_size(size)
    table = {
        "name": name or Path(output).name.partition(".")[0] or "model",
        "architecture": f"imported from {Path(path).name}",
        "classes": list(parse_classes(classes)),
        "label_offset": label_offset,
        "layout": layout,
        "batch_sizes": list(BATCH_SIZES),
        "input": dataclasses.asdict(InputFacts(width=width, height=height))
        | {
            "color": color,
            "dtype": dtype,
            "scale": scale,
            "mean": None if mean is None else list(mean),
            "std": None if std is None else list(std),
        },
        "resize": dataclasses.asdict(ResizeFacts())
        | {"mode": resize, "align": align, "pad": pad, "interpolation": interpolation},
        "provenance": {
            "source": Path(path).name,
            "source_sha256": archive.sha256(path),
            **(provenance or {}),
        },
    }
    declared = Facts.from_json(json.dumps(table), where=str(path))
    return _write(path, output, measured(path, declared))


def _write(path: str, output: str, facts: Facts) -> Facts:
    """The bundle, whole and with its twin, or not at all; the facts as they are in it."""
    part = Path(f"{output}.part")
    try:
        archive.write_text(path, part, facts.to_json())
        golden.check(
            facts, engines.load(str(part), facts, device="cpu", precision="fp32", threads=0)
        )
        if archive.kind_of(path) == "torchscript":
            facts = twin.add(part, facts, twin.of_script(path, facts), twin.finds_the_same)
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
    return facts


def measured(path: str, facts: Facts) -> Facts:
    """The same facts with what only a run can tell: batch sizes, bytes of output, golden record."""
    engine = engines.load(path, facts, device="cpu", precision="fp32", threads=0)
    sizes: list[int] = []
    n_bytes = 0
    for batch in facts.batch_sizes:
        try:
            results = engine.infer(golden.pattern(batch, facts.input.height, facts.input.width))
        except ModelError:
            if not sizes:
                raise
            break  # a model traced for one batch size takes no other
        for arrays in results:
            _check(arrays, facts, path)
            n_bytes = max(n_bytes, sum(array.nbytes for array in arrays))
        sizes.append(batch)
    if facts.layout == "torchvision":  # as many rows as it finds, up to the engine's limit
        n_bytes = max(n_bytes, engines.MAX_FINAL_ROWS * FINAL_ROW_BYTES)
    facts = dataclasses.replace(facts, batch_sizes=tuple(sizes), output_bytes_per_image=n_bytes)
    engine = engines.load(path, facts, device="cpu", precision="fp32", threads=0)
    record = golden.record(facts, engine)
    # a foreign model with a threshold inside may find nothing there, which would test nothing
    found = all([*record["pattern"], record["picture"]])
    return dataclasses.replace(facts, golden=record if found else None)


def _check(arrays: engines.Outputs, facts: Facts, path: str) -> None:
    layouts.check(arrays, facts, str(path))
    labels = layouts.candidates(arrays, facts, 0.0).labels
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(facts.classes):
        raise ModelError(
            f"{path}: wanted labels 0..{len(facts.classes) - 1} after label_offset "
            f"{facts.label_offset}, got {labels.min()}..{labels.max()}; name all classes of the "
            "model, or change label_offset"
        )


def parse_size(size: str | int | tuple[int, int]) -> tuple[int, int]:
    """(width, height) px of 416, "416", "640x384" or (640, 384). Raises ConfigError."""
    if isinstance(size, tuple):
        return size
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", str(size).strip())
    if not found:
        raise ConfigError(f"size must be like 416 or 640x384 (width x height), got {size!r}")
    return int(found[1]), int(found[2] or found[1])


def parse_classes(classes: str | Sequence[str]) -> tuple[str, ...]:
    """Class names of "coco80", a file with one a line, "a,b,c" or a list. Raises ConfigError."""
    if not isinstance(classes, str):
        return tuple(classes)
    if classes == "coco80":
        return COCO80
    file = Path(classes)
    if file.is_file():
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{classes}: wanted a text file of class names: {error}") from None
        return tuple(line.strip() for line in lines if line.strip())
    if re.search(r"[/\\]|\.(txt|names)$", classes):
        raise ConfigError(f"{classes}: no such file of class names; write one name a line into it")
    return tuple(name.strip() for name in classes.split(","))
