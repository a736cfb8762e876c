"""The offline commands: they parse, call and print; what they call is imported when it is called.

`pipeline.face.cli` finds `app` by name. Results go to stdout, progress and notes to stderr.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console

from pipeline.errors import ConfigError
from stages.training import terminal

if TYPE_CHECKING:
    from stages.training.datasets import DataSet

app = typer.Typer()
data_app = typer.Typer(
    help="Look into data sets, divide and convert them: VOC, COCO, YOLO, CVAT, labelme, …",
    no_args_is_help=True,
)
app.add_typer(data_app, name="data")

Data = Annotated[Path, typer.Argument(metavar="DATA", help="a data set: its folder or its file")]
Output = Annotated[Path, typer.Option("-o", "--output", help="a new folder")]
Split = Annotated[str | None, typer.Option(help="train, val, test, …; none: everything")]
Format = Annotated[
    str | None,
    typer.Option(help="coco, voc, cvat, openimages, csv, labelme or yolo; none: found by looking"),
]
Strict = Annotated[bool, typer.Option(help="any problem of the data is an error")]
Classes = Annotated[str | None, typer.Option(help="only these, a,b,c; none: all of the data set")]
Json = Annotated[bool, typer.Option("--json", help="for programs")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
Size = Annotated[
    str | None, typer.Option(help="of the model's input, 320 or 320x192; none: chosen")
]

_EXTRAS = {
    **dict.fromkeys(("defusedxml", "faster_coco_eval", "matplotlib", "PIL", "yaml"), "train"),
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "onnx"),
}
_F = TypeVar("_F", bound=Callable[..., None])


def _command(group: typer.Typer, name: str) -> Callable[[_F], _F]:
    """As `group.command`; a package that is not installed becomes one sentence."""

    def add(function: _F) -> _F:
        @functools.wraps(function)
        def checked(*args: Any, **options: Any) -> None:
            try:
                function(*args, **options)
            except ModuleNotFoundError as error:
                extra = _EXTRAS.get((error.name or "").partition(".")[0])
                if extra is None:
                    raise
                path = f"data {name}" if group is data_app else name
                raise ConfigError(
                    f"{path} needs {error.name}, which is not installed; "
                    f"pip install 'manyeyes[{extra}]'"
                ) from error

        group.command(name)(checked)
        return function

    return add


@_command(data_app, "inspect")
def data_inspect(
    data: Data,
    split: Split = None,
    format: Format = None,
    sheet: Annotated[Path | None, typer.Option(help="draw pictures with boxes, a PNG")] = None,
    sizes: Annotated[Path | None, typer.Option(help="plot the sizes of boxes, a PNG")] = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Count pictures, boxes and classes, and name everything that is wrong.

    Example: manyeyes data inspect datasets/street --sheet sheet.png
    """
    from stages.training import inspection

    dataset = _load(data, split, format, strict, quiet=True)
    for path, draw in ((sheet, inspection.contact_sheet), (sizes, inspection.size_plot)):
        if path is not None:
            draw(dataset, path)
            terminal.note(f"drawn: {path}")
    report = inspection.inspect(dataset)
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        Console().print(report.table())


@_command(data_app, "split")
def data_split(
    data: Data,
    output: Output,
    parts: Annotated[
        str, typer.Option(help="names and shares, together 1")
    ] = "train=0.7,val=0.15,test=0.15",
    group_by: Annotated[
        str, typer.Option(help="what must not part: none, folder, or a regular expression of names")
    ] = "none",
    seed: Annotated[int, typer.Option(help="the same seed gives the same parts")] = 0,
    classes: Classes = None,
    format: Format = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Divide a data set so that each class is in each part and groups stay together; copies nothing.

    Example: manyeyes data split datasets/street -o street --group-by '^(cam[0-9]+)_'
    """
    from stages.training import settings, splitting

    dataset = _load(data, None, format, strict, classes)
    made = splitting.split(
        dataset, settings.shares(parts), seed=seed, group_by=group_by, note=terminal.note
    )
    splitting.write(made, output, source=str(data), seed=seed, group_by=group_by)
    if as_json:
        print(json.dumps(splitting.counts(made), indent=2))
    else:
        Console().print(splitting.table(made))
        print(f"\n{output}: written")


@_command(data_app, "convert")
def data_convert(
    data: Data,
    output: Output,
    to: Annotated[str, typer.Option(help="coco, yolo or voc")] = "coco",
    split: Split = None,
    classes: Classes = None,
    format: Format = None,
    link: Annotated[bool, typer.Option(help="link the pictures instead of copying them")] = False,
    strict: Strict = False,
) -> None:
    """Write a data set, or a split of it, with its pictures in another format.

    Example: manyeyes data convert street --split test -o street-test --to yolo
    """
    from stages.training import convert

    dataset = _load(data, split, format, strict, classes)
    lost = convert.convert(dataset, output, to, link=link)
    for flag, count in lost.items():
        terminal.note(f"{to} has no word for {flag}: {count} box(es) lost that flag")
    boxes = sum(len(sample.labels) for sample in dataset.samples)
    print(f"{output}: {len(dataset.samples)} pictures, {boxes} boxes")


@_command(app, "train")
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
        str, typer.Option(help="a torchvision detector, fcos_tiny, or ssd, ssdlite, fasterrcnn")
    ] = "fcos_tiny",
    backbone: Annotated[
        str | None, typer.Option(help="of ssd, ssdlite, fasterrcnn: mobilenet_v2[:14], resnet18, …")
    ] = None,
    size: Size = None,
    weights: Annotated[
        str, typer.Option(help="to begin with: none, a checkpoint, COCO_V1, DEFAULT")
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
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="any other setting: ema=0.99, augment.mosaic=1"),
    ] = None,
    resume: Annotated[bool, typer.Option(help="go on with the run in the folder")] = False,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Train a detector; the run folder gets its best weights, its plan and a line per epoch.

    Example: manyeyes train street -o runs/street --epochs 40

    Example, after a kill: manyeyes train -o runs/street --resume

    Example, to go on for longer: manyeyes train -o runs/street --resume --epochs 200
    """
    from stages.training import alike, opening, resuming, runs, settings
    from stages.training import plan as plans
    from stages.training.journal import figure

    if resume:
        asked = _given(context)
        plan = resuming.resumed(plans.load_plan(output), asked)
        where, there = resuming.places(plan, asked)
        training = _part(where, plan.model.classes)
    elif data is None:
        raise ConfigError("train: wanted a data set, got none; manyeyes train DATA -o RUN")
    else:
        where = {"path": str(data.absolute()), "split": split, "format": format, "strict": strict}
        there = {**where, "path": str((val or data).absolute()), "split": val_split}
        training = _part(where, None if classes is None else classes.split(","))
        plan = settings.plan(
            training, architecture=arch, backbone=backbone, weights=weights,
            size_wh_px=None if size is None else settings.size(size),
            backbone_weights=None if backbone_weights is None else str(backbone_weights.absolute()),
            train={"epochs": epochs, "batch": batch, "lr": lr, "seed": seed, "workers": workers},
            changes=change or (), data={"training": where, "validation": there},
        )  # fmt: skip
    validation = _part(there, plan.model.classes, lenient=True)
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
            plan, training, validation, output, resume=resume, console=Console(stderr=True)
        )
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


@_command(app, "evaluate")
def evaluate(
    model: Annotated[
        Path, typer.Argument(help="a bundle, a checkpoint, a run folder, or a file of detections")
    ],
    data: Data,
    split: Split = None,
    score: Annotated[
        float | None, typer.Option(min=0, max=1, help="threshold; none: the model's own")
    ] = None,
    iou: Annotated[float, typer.Option(min=0.05, max=0.95, help="least overlap of a match")] = 0.5,
    rename: Annotated[
        list[str] | None, typer.Option(help="class of the model = class of the data: car=vehicle")
    ] = None,
    classes: Classes = None,
    format: Format = None,
    html: Annotated[Path | None, typer.Option(help="write a report with plots")] = None,
    device: Device = "auto",
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Judge detections by COCO's figures, precision and recall, kinds of errors and calibration.

    A file of detections is COCO results, or the events of a run over the pictures of DATA with policy
    every, score_threshold 0.001 and a max_size that no picture exceeds.

    Example: manyeyes evaluate runs/street street --split test --html report.html
    """
    from stages.training import evaluate as judge
    from stages.training import predict, report, settings

    dataset = _load(data, split, format, strict, classes)
    with terminal.bar("pictures", len(dataset.samples)) as progress:
        found = predict.found_by(
            model, dataset, rename=settings.pairs("--rename", rename or ()), device=device,
            progress=progress,
        )  # fmt: skip
    for note in found.notes:
        terminal.note(note)
    result = judge.evaluate(
        found.detections, dataset, iou=iou, speed=found.speed_ms,
        score_threshold=found.score_threshold if score is None else score,
    )  # fmt: skip
    if as_json:
        print(json.dumps(result.to_json(), indent=2))
    else:
        Console().print(report.tables(result))
    if html is not None:
        report.write_html(
            result, found.detections, dataset, html, title=f"{model.name} on {dataset.name}"
        )


@_command(app, "export")
def export(
    checkpoint: Annotated[Path, typer.Argument(help="a run folder, or a checkpoint in it")],
    output: Annotated[Path, typer.Option("-o", "--output", help="the bundle to write")],
    format: Annotated[str, typer.Option(help="torchscript or onnx")] = "torchscript",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16")] = "fp32",
    data: Annotated[
        Path | None, typer.Option(help="pictures for the parity gate; none: those of validation")
    ] = None,
    split: Split = None,
    name: Annotated[str | None, typer.Option(help="of the model; none: that of the file")] = None,
    as_json: Json = False,
) -> None:
    """Write a bundle that runs in the pipeline, after it gave what the training model gives.

    Example: manyeyes export runs/street -o street.bundle
    """
    from stages.training import plan as plans
    from stages.training import trained

    if data is None and split is not None:
        raise ConfigError(
            "export: --split is of --data, which is not given; leave it out or name DATA"
        )
    known = trained.load(checkpoint)
    if data is not None:
        pictures = _load(data, split, None, False, quiet=True)
    else:
        plan = plans.load_plan(known.file.parent)
        pictures = _part(plan.data["validation"], plan.model.classes, lenient=True, quiet=True)
    with Console(stderr=True).status(f"writing {output}, and comparing it with {known.file}"):
        facts = trained.bundle(
            known, pictures, output, name=name,
            format=format, precision=precision,
        )  # fmt: skip
    if as_json:
        print(facts.to_json())
        return
    print(
        f"{output}: {output.stat().st_size / 1e6:.1f} MB, {facts.input.width}x{facts.input.height}"
    )
    print(trained.parity_of(facts))


@_command(app, "predict")
def predict(
    model: Annotated[Path, typer.Argument(help="a bundle")],
    sources: Annotated[list[Path], typer.Argument(help="pictures, folders of pictures, videos")],
    output: Output,
    score: Annotated[
        float | None, typer.Option(min=0, max=1, help="threshold; none: the model's own")
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="yolo, coco or voc: a data set to correct; none: drawings")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Draw what a model finds in pictures and videos, or write it as labels, without the pipeline.

    Example: manyeyes predict street.bundle pictures/ film.mp4 -o found

    Example, for labels to correct: manyeyes predict street.bundle new/ -o labelled --to yolo
    """
    from stages.detector.decode import Options
    from stages.training import annotate, convert, labelling
    from stages.training.predict import Predictor

    if to not in (None, *convert.TARGETS):
        raise ConfigError(f"predict: --to {to}: wanted one of {', '.join(convert.TARGETS)}")

    predictor = Predictor(model, options=Options(score_threshold=score), device=device)
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


# -- what they have in common ----------------------------------------------------------------------


def _given(context: typer.Context) -> dict[str, Any]:
    """The options and arguments that the user wrote, without those that are left to their defaults."""
    return {
        name: value
        for name, value in context.params.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }


def _load(
    path: Path,
    split: str | None,
    format: str | None,
    strict: bool,
    classes: str | None = None,
    *,
    quiet: bool = False,
) -> DataSet:
    """A data set; what is wrong with it is told, unless `quiet`."""
    how = {"path": str(path), "split": split, "format": format, "strict": strict}
    return _part(how, None if classes is None else classes.split(","), quiet=quiet)


def _part(
    how: dict[str, Any], classes: Any = None, *, lenient: bool = False, quiet: bool = False
) -> DataSet:
    """The data set that a plan names, with the classes of its model."""
    from stages.training import datasets, labels
    from stages.training.formats import summary

    split = None if how["split"] == "all" else how["split"]
    with Console(stderr=True, quiet=terminal.silent()).status(f"reading {how['path']}"):
        dataset = datasets.load(
            how["path"], split=split, format=how["format"], strict=how["strict"]
        )
    if not (quiet or terminal.silent()):
        for line in summary(dataset.problems):
            terminal.note(line)
    return dataset if classes is None else labels.only(dataset, classes, lenient=lenient)
