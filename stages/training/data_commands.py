"""`manyeyes data`: look into data sets, divide them, write them in another format.

Results go to stdout, progress and notes to stderr.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.errors import ConfigError
from stages.training import terminal
from stages.training.options import (
    Classes,
    Data,
    Format,
    Json,
    Output,
    Split,
    Strict,
    command,
    load_data,
)

app = typer.Typer(
    help="Look into data sets, divide and convert them: VOC, COCO, YOLO, CVAT, labelme, …",
    no_args_is_help=True,
)


@command(app, "inspect", "data inspect")
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

    dataset = load_data(data, split, format, strict, quiet=True)
    for path, draw in ((sheet, inspection.contact_sheet), (sizes, inspection.size_plot)):
        if path is not None:
            draw(dataset, path)
            terminal.note(f"drawn: {path}")
    report = inspection.inspect(dataset)
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        Console().print(report.table())


@command(app, "split", "data split")
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

    dataset = load_data(data, None, format, strict, classes)
    made = splitting.split(
        dataset, settings.shares(parts), seed=seed, group_by=group_by, note=terminal.note
    )
    splitting.write(made, output, source=str(data), seed=seed, group_by=group_by)
    if as_json:
        print(json.dumps(splitting.counts(made), indent=2))
    else:
        Console().print(splitting.table(made))
        print(f"\n{output}: written")


@command(app, "convert", "data convert")
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

    dataset = load_data(data, split, format, strict, classes)
    lost = convert.convert(dataset, output, to, link=link)
    for flag, count in lost.items():
        terminal.note(f"{to} has no word for {flag}: {count} box(es) lost that flag")
    boxes = sum(len(sample.labels) for sample in dataset.samples)
    print(f"{output}: {len(dataset.samples)} pictures, {boxes} boxes")


@command(app, "pick", "data pick")
def data_pick(
    events: Annotated[list[Path], typer.Argument(help="events of runs, JSON Lines")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="pictures, at most")] = 100,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="a new folder; none: the list alone")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(help="where the pictures of a camera are: gate=street.mp4, or its folder"),
    ] = None,
    gap_s: Annotated[float, typer.Option(min=0.01, help="between two of a camera, s")] = 10.0,
) -> None:
    """Choose the frames of a run that are worth labelling next, spread over cameras and days.

    Those in which the model is unsure, disagrees with its own tracks, or sees what is rare.

    Example: manyeyes data pick street.jsonl -n 100 --source street=street.mp4 -o picked
    """
    from stages.training import picking, settings

    sources = settings.pairs("--source", source or ())
    if (output is None) != (not sources):
        raise ConfigError("data pick: -o FOLDER and --source CAMERA=PATH go together; give both")
    picks = picking.pick(events, count, gap_s=gap_s)
    if output is None:
        for one in picks:
            print(json.dumps(one.to_json()))
        return
    if unknown := sources.keys() - {one.camera for one in picks}:
        raise ConfigError(
            f"data pick: --source {min(unknown)}: nothing was picked of such a camera"
        )
    written = picking.write(picks, sources, output)
    print(f"{output}: {written} of {len(picks)} picked frames are there as pictures")
