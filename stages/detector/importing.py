"""Foreign models become bundles: declared facts, checked by running the model once, written inside it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from pipeline.errors import ConfigError, ModelError
from stages.detector import (
    archive,
    bundle,
    engines,
    folding,
    gates,
    golden,
    layouts,
    proof,
    signatures,
    told,
    twin,
)
from stages.detector.bundle import Column, Facts, Layout
from stages.detector.engine import Image
from stages.detector.outputs import FINAL_ROW_BYTES, MAX_FINAL_ROWS

BATCH_SIZES = (1, 2, 4, 8)
FINAL = ("torchvision", "final", "rows")  # layouts of as many rows as there are boxes
COLUMNS: tuple[tuple[Column, ...], ...] = (  # of seven, where only a run shows which they are
    ("picture", "box", "score", "label"),
    ("picture", "box", "label", "score"),
)
_MORE = {  # how a model is exported that takes several pictures
    "onnx": "one with a free batch axis takes several: dynamic=True in Ultralytics' and transformers' "
    "exporters, dynamic_axes={'images': {0: 'batch'}} in torch.onnx.export",
    "torchscript": "one that is scripted, or traced with a batch of 2, may take several",
    "chw": "torchvision's take several as torch.jit.script(model)",
}
LARGEST_LOG = 8.0  # exp(8) strides of 8 px are more than any picture

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
_MISSING = {  # of COCO's 90 numbers, which name nothing
    12, 26, 29, 30, 45, 66, 68, 69, 71, 83,
}  # fmt: skip
_NAMED = iter(COCO80)
COCO91 = ("background", *("N/A" if i in _MISSING else next(_NAMED) for i in range(1, 91)))
LISTS = {"coco80": COCO80, "coco91": COCO91}


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
    layout: str | None = None,
    classes: str | Sequence[str] | None = None,
    size: str | int | tuple[int, int] | None = None,
    color: str | None = None,
    dtype: str | None = None,
    order: str | None = None,
    scale: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pad: int | None = None,
    align: str | None = None,
    interpolation: str | None = None,
    resize: str | None = None,
    label_offset: int | None = None,
    activation: str | None = None,
    roles: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    box: str | None = None,
    unit: str | None = None,
    centre: float | None = None,
    name: str | None = None,
    provenance: dict[str, Any] | None = None,
    pictures: Sequence[Image] = (),
    expected: Sequence[str] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> Facts:
    """Write `output`: the model of `path` with these facts inside. **Executes the model**, on the CPU.

    What is None is what the file says (`told`), or else what its family does; `tell` gets both in words.
    classes: "coco80", "coco91" (with a background, and numbers that name nothing), a text file with a
    name a line, "a,b,c", or a list; size: 416, "640x384" or (width, height) px; the rest as in
    `InputFacts`, `ResizeFacts` and `OutputFacts`. The model runs on golden pictures and on `pictures`,
    uint8 (H, W, 3) BGR, and has to pass the `gates`; which batch sizes it takes, its bytes of output and
    its golden record are measured, and the bundle is loaded back and has to pass its golden test.
    expected: classes that it has to find in `pictures`.
    Raises ModelError (no model, facts that it does not bear out) or ConfigError, in one sentence;
    `output` then stays as it was.
    """
    if layout is not None and layout not in get_args(Layout):
        raise ConfigError(f"layout must be one of {', '.join(get_args(Layout))}, got {layout!r}")
    given = {
        "layout": layout, "classes": classes, "size": size, "color": color, "dtype": dtype,
        "order": order, "scale": scale, "mean": mean, "std": std, "pad": pad, "align": align,
        "interpolation": interpolation, "mode": resize, "label_offset": label_offset,
        "activation": activation, "roles": roles, "columns": columns, "box": box, "unit": unit,
        "centre": centre,
    }  # fmt: skip
    said = told.read(path, {key: value for key, value in given.items() if value is not None})
    unseen = said.options.get("layout") == "rows" and "columns" not in said.options
    if unseen:
        said.options["columns"] = COLUMNS[0]
    declared = _declared(path, name or Path(output).name.partition(".")[0] or "model", said.options)
    source = {"source": Path(path).name, "source_sha256": archive.sha256(path)}
    declared = dataclasses.replace(declared, provenance={**source, **(provenance or {})})
    declared = _seen(path, declared, said, layout is None, unseen, pictures)
    with folding.whole(path) as model:
        facts = measured(model, declared, pictures)
        for note in said.notes:
            tell(note)
        if facts.batch_sizes == (1,):
            tell(f"it takes one picture at a time; {_MORE[_form(path, facts)]}")
        if pictures:
            _prove(model, facts, pictures, expected, tell)
        return _write(model, output, facts)


def _form(path: str, facts: Facts) -> str:
    return "chw" if facts.input.order == "chw" else archive.kind_of(path)


def _declared(path: str, name: str, options: dict[str, Any]) -> Facts:
    """Facts of options by their names; raises ConfigError for what nobody said."""
    needed = (
        "layout",
        "classes",
        "size",
        *(("roles",) if options.get("layout") == "final" else ()),
    )
    asked = [key for key in needed if key not in options]
    if asked:
        raise ConfigError(
            f"{path}: the file does not say its {' and '.join(asked)}; "
            f"pass {' and '.join(f'--{key}' for key in asked)} to `manyeyes model import`"
        )
    width, height = parse_size(options["size"])
    names, offset = parse_classes(options["classes"]), options.get("label_offset")
    if offset is None and len(names) > 1 and names[0].strip("_").lower() == "background":
        names, offset = names[1:], 1  # torchvision's list begins with it
    of_input: dict[str, Any] = {
        k: options[k] for k in ("color", "dtype", "order", "scale", "mean", "std") if k in options
    }
    of_resize = {k: options[k] for k in ("mode", "align", "pad", "interpolation") if k in options}
    of_input = {"width": width, "height": height, "dtype": "float32", **of_input}
    of_output = {
        k: options[k] for k in ("roles", "columns", "box", "unit", "centre") if k in options
    }
    table = {
        "name": name,
        "architecture": f"imported from {Path(path).name}",
        "classes": list(names),
        "label_offset": offset or 0,
        "layout": options["layout"],
        "activation": options.get("activation", "none"),
        "batch_sizes": list(BATCH_SIZES),
        "input": of_input,
        "resize": of_resize,
        "output": of_output,
    }
    return Facts.from_json(json.dumps(table), where=str(path))


def _seen(
    path: str,
    declared: Facts,
    said: signatures.Told,
    may_be_decoded: bool,
    unseen: bool,
    pictures: Sequence[Image],
) -> Facts:
    """The facts with what only a run shows of the layout; `unseen`: its columns are a guess so far."""
    if may_be_decoded and declared.layout == "yolox-raw":
        declared = dataclasses.replace(declared, layout=_yolox_of(path, declared))
    if said.options.get("more_rows"):
        declared = dataclasses.replace(declared, ignored_rows=_ignored_rows(path, declared))
    if unseen:
        columns = _columns_of(path, declared, pictures)
        placed = dataclasses.replace(declared.output, columns=columns)
        declared = dataclasses.replace(declared, output=placed)
        said.notes.append(f"its columns, by what they hold: {', '.join(columns)}")
    return declared


def _yolox_of(path: str, facts: Facts) -> Layout:
    """Whether the boxes are decoded: the largest is many pixels wide, its logarithm in strides small."""
    [rows, *_] = _looks(path, facts)[0]
    return "yolox" if rows[:, 2:4].max() > LARGEST_LOG else "yolox-raw"


def _ignored_rows(path: str, facts: Facts) -> int:
    """Of masks or key points, behind box and scores; or behind box, score and label."""
    n_rows, n_columns = _looks(path, facts)[0][0].shape
    is_dense = 4 + len(facts.classes) < n_rows < n_columns
    return int(max(0, n_rows - 4 - len(facts.classes) if is_dense else n_columns - 6))


def _columns_of(path: str, facts: Facts, pictures: Sequence[Image]) -> tuple[Column, ...]:
    """Labels are whole numbers, and scores are not; which of the last two of seven columns are."""
    found = _looks(path, facts, pictures)
    is_whole = []
    for column in (1, 2):
        numbers = np.concatenate([arrays[column] for arrays in found])
        is_whole.append(bool((numbers == np.round(numbers)).all()))
    if is_whole[0] == is_whole[1]:
        either = " or ".join(f"--columns {','.join(columns)}" for columns in COLUMNS)
        raise ConfigError(
            f"{path}: what it finds does not show which column holds the score; pass {either}, or show it "
            "what it knows with --check PICTURE"
        )
    return COLUMNS[int(is_whole[0])]


def _looks(path: str, facts: Facts, pictures: Sequence[Image] = ()) -> list[engines.Outputs]:
    """What it returns for the golden pictures, and others."""
    engine = engines.load(path, facts, device="cpu", precision="fp32", threads=0)
    probes = golden.inputs(facts, pictures)
    return [tuple(a.copy() for a in engine.infer(probe[None])[0]) for probe in probes]


def _prove(
    path: str,
    facts: Facts,
    pictures: Sequence[Image],
    expected: Sequence[str],
    tell: Callable[[str], None],
) -> None:
    def load(other: Facts) -> engines.Engine:
        return engines.load(path, other, device="cpu", precision="fp32", threads=0, max_batch=1)

    engine = load(facts)
    detections = [proof.found(engine, facts, picture) for picture in pictures]
    for found in detections:
        counts = Counter(facts.classes[label] for label in found.labels)
        tell(
            "found: " + (", ".join(f"{n} {name}" for name, n in counts.most_common()) or "nothing")
        )
    hints, alike = proof.judged(load, facts, pictures)
    for hint in hints:
        tell(f"warning: {hint}")
    if alike:
        tell(
            f"these pictures do not show that {' or '.join(alike)} would be wrong: show more of them, in "
            "colour and of several scenes"
        )
    if absent := proof.missing(detections, facts, expected):
        raise ModelError(
            f"{path}: wanted {', '.join(expected)} in the pictures, did not find {', '.join(absent)}; "
            + (
                hints[0]
                if hints
                else "look at the order of --classes, --label-offset and the score"
            )
        )


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


def measured(path: str, facts: Facts, pictures: Sequence[Image] = ()) -> Facts:
    """The same facts with what only a run can tell: batch sizes, bytes of output, golden record.

    pictures: uint8 (H, W, 3) BGR that show what the model knows, beside the golden ones. Raises
    ModelError for a model that does not pass its gates.
    """
    engine = engines.load(path, facts, device="cpu", precision="fp32", threads=0)
    probes = golden.inputs(facts, pictures)
    outputs = []
    for probe in probes:
        arrays = tuple(array.copy() for array in engine.infer(probe[None])[0])
        layouts.check(arrays, facts, str(path))
        arrays = tuple(layouts.used(arrays, facts))
        gates.whole_labels(arrays, facts, str(path))
        outputs.append(arrays)
    gates.check(outputs, facts, str(path))
    n_bytes = max(sum(array.nbytes for array in arrays) for arrays in outputs)
    if facts.layout in FINAL:  # as many rows as it finds, up to the engine's limit
        n_bytes = max(n_bytes, MAX_FINAL_ROWS * FINAL_ROW_BYTES)
    sizes = gates.batches(engine, probes, facts.batch_sizes, facts)
    facts = dataclasses.replace(facts, batch_sizes=sizes, output_bytes_per_image=n_bytes)
    engine = engines.load(path, facts, device="cpu", precision="fp32", threads=0)
    record = golden.record(facts, engine)
    # a foreign model with a threshold inside may find nothing there, which would test nothing
    found = all([*record["pattern"], record["picture"]])
    return dataclasses.replace(facts, golden=record if found else None)


def parse_size(size: str | int | tuple[int, int]) -> tuple[int, int]:
    """(width, height) px of 416, "416", "640x384" or (640, 384). Raises ConfigError."""
    if isinstance(size, tuple):
        return size
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", str(size).strip())
    if not found:
        raise ConfigError(f"size must be like 416 or 640x384 (width x height), got {size!r}")
    return int(found[1]), int(found[2] or found[1])


def parse_classes(classes: str | Sequence[str]) -> tuple[str, ...]:
    """Class names of "coco80", a file with one a line, "a,b,c" or a list. Raises ConfigError.

    A placeholder that is there more than once, as "N/A" in lists of 91, gets its number behind it.
    """
    names = _names(classes)
    again = {name for name in names if name == "N/A" and names.count(name) > 1}
    return tuple(f"{name} {i}" if name in again else name for i, name in enumerate(names))


def _names(classes: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(classes, str):
        return tuple(classes)
    if classes in LISTS:
        return LISTS[classes]
    file = Path(classes)
    if os.path.isfile(classes):  # False for a text that is too long for a name
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{classes}: wanted a text file of class names: {error}") from None
        return tuple(line.strip() for line in lines if line.strip())
    if re.search(r"[/\\]|\.(txt|names)$", classes.replace("N/A", "")):
        raise ConfigError(f"{classes}: no such file of class names; write one name a line into it")
    return tuple(name.strip() for name in classes.split(","))
