"""The offline commands: they parse, call and print; what they call is imported when it is called.

`pipeline.face.cli` finds `app` by name. Results go to stdout, progress and notes to stderr.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipeline.errors import ConfigError
from stages.training import data_commands, terminal
from stages.training.options import (
    Classes,
    Data,
    Device,
    Format,
    Json,
    Output,
    Size,
    Split,
    Strict,
    Tiles,
    command,
    given,
    load_data,
    load_part,
)

if TYPE_CHECKING:
    from stages.detector.bundle import Facts

app = typer.Typer()
app.add_typer(data_commands.app, name="data")


@command(app, "train")
def train(
    context: typer.Context,
    output: Annotated[Path, typer.Option("-o", "--output", help="the run folder, a new one")],
    data: Annotated[
        Path | None, typer.Argument(metavar="DATA", help="a data set with a training split")
    ] = None,
    val: Annotated[Path | None, typer.Option(help="validate on this one; none: on DATA")] = None,
    split: Annotated[str, typer.Option(help="of DATA to learn from; all: everything")] = "train",
    val_split: Annotated[str, typer.Option(help="to validate on; all: everything")] = "val",
    classes: Classes = None,
    format: Format = None,
    arch: Annotated[
        str, typer.Option(help="one of the architectures above; of transformers: extra detr")
    ] = "fcos_tiny",
    backbone: Annotated[
        str | None, typer.Option(help="of ssd, ssdlite, fasterrcnn: mobilenet_v2[:14], resnet18, …")
    ] = None,
    size: Size = None,
    tiles: Tiles = None,
    weights: Annotated[
        str,
        typer.Option(help="to begin with: none, a checkpoint, a folder, COCO_V1, DEFAULT"),
    ] = "none",
    backbone_weights: Annotated[
        Path | None, typer.Option(help="of the backbone alone, a state dict")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="through all pictures; none: chosen")] = None,
    batch: Annotated[int | None, typer.Option(help="pictures a step")] = None,
    lr: Annotated[
        float | None, typer.Option(help="learning rate at its peak; none: chosen")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="of weights, order and augmentation")] = None,
    workers: Annotated[int | None, typer.Option(help="processes that decode")] = None,
    device: Device = "auto",
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="any other setting: ema=0.99, augment.mosaic=1"),
    ] = None,
    resume: Annotated[bool, typer.Option(help="go on with the run in the folder")] = False,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Train a detector; the run folder gets its best weights, its plan and a line per epoch.

    Architectures: fcos_tiny, ours, which learns from nothing in minutes. Of torchvision
    fasterrcnn_resnet50_fpn, fasterrcnn_resnet50_fpn_v2, fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_mobilenet_v3_large_320_fpn, retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2,
    fcos_resnet50_fpn, ssd300_vgg16, ssdlite320_mobilenet_v3_large, and ssd, ssdlite, fasterrcnn on a
    --backbone. Of transformers rtdetr_v2_r18, rtdetr_v2_r34, rtdetr_v2_r50, dfine_n, dfine_s, dfine_m,
    rfdetr_nano, rfdetr_small, rfdetr_medium, which want weights to begin with, in a folder.

    Example: manyeyes train street -o runs/street --epochs 40

    Example, from published weights: manyeyes train street -o runs/d --arch dfine_n --weights dfine-n-coco

    Example, after a kill: manyeyes train -o runs/street --resume

    Example, to go on for longer: manyeyes train -o runs/street --resume --epochs 200
    """
    from stages.training import alike, opening, resuming, runs, settings, tiling
    from stages.training import plan as plans
    from stages.training.journal import figure

    if resume:
        asked = given(context)
        plan = resuming.resumed(plans.load_plan(output), asked)
        where, there = resuming.places(plan, asked)
        training = load_part(where, plan.model.classes)
    elif data is None:
        raise ConfigError("train: wanted a data set, got none; manyeyes train DATA -o RUN")
    else:
        where = {"path": str(data.absolute()), "split": split, "format": format, "strict": strict}
        there = {**where, "path": str((val or data).absolute()), "split": val_split}
        training = load_part(where, None if classes is None else classes.split(","))
        plan = settings.plan(
            training, architecture=arch, backbone=backbone, weights=weights,
            size_wh_px=None if size is None else settings.size(size),
            tiles=settings.size(tiles or "1"),
            backbone_weights=None if backbone_weights is None else str(backbone_weights.absolute()),
            train={"epochs": epochs, "batch": batch, "lr": lr, "seed": seed, "workers": workers},
            changes=change or (), data={"training": where, "validation": there},
        )  # fmt: skip
    training = tiling.tiled(training, plan.resize.tiles)
    validation = load_part(there, plan.model.classes, lenient=True)
    lines = opening.sentences(plan, training, validation)
    twins, example = alike.shared(training, validation)
    if twins:
        lines.append(
            f"{twins} of {len(validation.samples)} pictures of validation are pictures of training or look "
            f"like them ({example}): figures will be too good; `manyeyes data split` keeps such together"
        )
    for line in lines if not terminal.silent() else ():
        terminal.note(line)
    with terminal.on_interrupt(f"stopped; `manyeyes train -o {output} --resume` goes on"):
        outcome = runs.train(
            plan, training, validation, output, resume=resume, device=device,
            console=Console(stderr=True),
        )  # fmt: skip
    if terminal.silent():
        return
    best = outcome.best
    if as_json:
        print(json.dumps({"folder": str(output), "epochs": outcome.epochs, "best": best}, indent=2))
        return
    print(
        f"{output / runs.BEST}: epoch {best['epoch']} of {outcome.epochs}, AP {figure(best['map'])}, "
        f"AP50 {figure(best['map_50'])} on {validation.name}, {outcome.seconds / 60:.1f} min"
    )


@command(app, "evaluate")
def evaluate(
    model: Annotated[
        Path, typer.Argument(help="a bundle, a checkpoint, a run folder, or a file of detections")
    ],
    data: Data,
    split: Split = None,
    score: Annotated[
        str | None, typer.Option(help="threshold, or the bundle that has it; none: the model's own")
    ] = None,
    iou: Annotated[float, typer.Option(min=0.05, max=0.95, help="least overlap of a match")] = 0.5,
    rename: Annotated[
        list[str] | None, typer.Option(help="class of the model = class of the data: car=vehicle")
    ] = None,
    classes: Classes = None,
    format: Format = None,
    html: Annotated[Path | None, typer.Option(help="write a report with plots")] = None,
    device: Device = "auto",
    tiles: Tiles = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Judge detections by COCO's figures, precision and recall, kinds of errors and calibration.

    A file of detections is COCO results, or the events of a run over the pictures of DATA with policy
    every, score_threshold 0.001 and a max_size that no picture exceeds. --score BUNDLE judges it at the
    threshold of the model that it is of.

    Example: manyeyes evaluate runs/street street --split test --html report.html
    """
    from stages.training import evaluate as judge
    from stages.training import predict, report, settings

    at = None if score is None else predict.threshold(score)
    dataset = load_data(data, split, format, strict, classes)
    with terminal.bar("pictures", len(dataset.samples)) as progress:
        found = predict.found_by(
            model, dataset, rename=settings.pairs("--rename", rename or ()), device=device,
            tiles=None if tiles is None else settings.size(tiles), progress=progress,
        )  # fmt: skip
    for note in found.notes:
        terminal.note(note)
    if at is None and model.suffix in (".json", ".jsonl"):
        terminal.note(
            f"judged at a score of {found.score_threshold:g}: a file of detections has no threshold; "
            "--score BUNDLE takes that of its model"
        )
    result = judge.evaluate(
        found.detections, dataset, iou=iou, speed=found.speed_ms,
        score_threshold=found.score_threshold if at is None else at,
    )  # fmt: skip
    if as_json:
        print(json.dumps(result.to_json(), indent=2))
    else:
        Console().print(report.tables(result))
    if html is not None:
        report.write_html(
            result, found.detections, dataset, html, title=f"{model.name} on {dataset.name}"
        )


@command(app, "export")
def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="a run folder, or a checkpoint in it; for int8 also a bundle")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="the bundle to write")],
    format: Annotated[str, typer.Option(help="torchscript or onnx")] = "torchscript",
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16, or int8 as ONNX")] = "fp32",
    calibrate: Annotated[
        Path | None, typer.Option(help="for int8: a data set whose pictures show the ranges")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="pictures for the parity gate, and for AP in int8; none: of validation"),
    ] = None,
    split: Split = None,
    rename: Annotated[
        list[str] | None, typer.Option(help="for int8: class of the model = class of the data")
    ] = None,
    name: Annotated[str | None, typer.Option(help="of the model; none: that of the file")] = None,
    as_json: Json = False,
) -> None:
    """Write a bundle that runs in the pipeline, after it gave what the training model gives.

    In int8 it is faster on CPUs, and is written if it loses no more than 0.005 of its AP.

    Example: manyeyes export runs/street -o street.bundle

    Example: manyeyes export runs/street -o small.bundle --precision int8 --calibrate street
    """
    from stages.training import plan as plans
    from stages.training import quantising, settings, trained

    if data is None and split is not None:
        raise ConfigError(
            "export: --split is of --data, which is not given; leave it out or name DATA"
        )
    if (precision == "int8") != (calibrate is not None):
        raise ConfigError("export: --precision int8 and --calibrate DATA go together")
    if precision == "int8" and quantising.is_bundle(checkpoint):
        if data is None:
            raise ConfigError(
                f"export: the AP of {checkpoint} in int8 needs labelled pictures; pass --data DATA"
            )
        source: Path | trained.Trained = checkpoint
    else:
        source = known = trained.load(checkpoint)
    if data is not None:
        pictures = load_data(data, split, None, False, quiet=True)
    else:
        plan = plans.load_plan(known.file.parent)
        pictures = load_part(plan.data["validation"], plan.model.classes, lenient=True, quiet=True)
    if calibrate is not None:
        seen = load_data(calibrate, None, None, False, quiet=True)
        with Console(stderr=True).status(f"writing {output}, and measuring what it finds"):
            facts = quantising.quantise(
                source, output, seen, pictures, name=name,
                rename=settings.pairs("--rename", rename or ()),
            )  # fmt: skip
        print(
            facts.to_json() if as_json else f"{_size(output, facts)}\n{quantising.said_of(facts)}"
        )
        return
    with Console(stderr=True).status(f"writing {output}, and comparing it with {known.file}"):
        facts = trained.bundle(
            known, pictures, output, name=name,
            format=format, precision=precision,
        )  # fmt: skip
    if as_json:
        print(facts.to_json())
        return
    print(_size(output, facts))
    print(trained.parity_of(facts))


def _size(bundle: Path, facts: Facts) -> str:
    size = facts.input
    return f"{bundle}: {bundle.stat().st_size / 1e6:.1f} MB, {size.width}x{size.height}"


@command(app, "predict")
def predict(
    model: Annotated[Path, typer.Argument(help="a bundle, a checkpoint or a run folder")],
    sources: Annotated[list[Path], typer.Argument(help="pictures, folders of pictures, videos")],
    output: Output,
    score: Annotated[
        float | None, typer.Option(min=0, max=1, help="threshold; none: the model's own")
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="yolo, coco or voc: a data set to correct; none: drawings")
    ] = None,
    device: Device = "auto",
    tiles: Tiles = None,
    as_json: Json = False,
) -> None:
    """Draw what a model finds in pictures and videos, or write it as labels, without the pipeline.

    Example: manyeyes predict street.bundle pictures/ film.mp4 -o found

    Example, for labels to correct: manyeyes predict street.bundle new/ -o labelled --to yolo
    """
    from stages.detector.decode import Options
    from stages.training import annotate, convert, labelling, settings
    from stages.training.predict import Predictor

    if to not in (None, *convert.TARGETS):
        raise ConfigError(f"predict: --to {to}: wanted one of {', '.join(convert.TARGETS)}")

    predictor = Predictor(
        model, options=Options(score_threshold=score), device=device,
        tiles=None if tiles is None else settings.size(tiles),
    )  # fmt: skip
    with terminal.bar("pictures", None) as progress:
        if to is None:
            counts = annotate.annotate(predictor, sources, output, progress, terminal.note)
        else:
            counts = labelling.label(predictor, sources, output, to, progress, terminal.note)
    if as_json:
        print(json.dumps(counts, indent=2))
        return
    found = ", ".join(f"{name} {count}" for name, count in counts.items()) or "nothing"
    print(f"{output}: found {found}")
