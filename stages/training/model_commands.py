"""`manyeyes model`: models by name, what is in a model file, and models of others made bundles.

`pipeline.face.cli` finds `app` by name. Results go to stdout, progress and notes to stderr.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from pipeline.errors import ConfigError
from stages.detector import zoo

app = typer.Typer(
    help="Get models by name, look into model files, import those of others.", no_args_is_help=True
)
Json = Annotated[bool, typer.Option("--json", help="for programs")]


@app.command("list")
def model_list(as_json: Json = False) -> None:
    """Print the models that can be had by name, with what their makers say of them.

    AP is that on COCO val2017 as published, at the maker's own input size.

    Example: manyeyes model list --json
    """
    rows = [
        {
            "name": entry.name,
            "input": entry.recipe["size"],
            "ap": entry.ap,
            "licence": entry.licence,
            "download_mb": entry.megabytes,
            "here": entry.bundle.is_file(),
            "url": entry.url,
        }
        for entry in zoo.entries().values()
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("name", "input", "AP", "licence", "MB", "here"):
        table.add_column(column, justify="right" if column in ("AP", "MB", "input") else "left")
    for row in rows:
        megabytes = "" if row["download_mb"] is None else f"{row['download_mb']:.0f}"
        default = " (the default)" if row["name"] == zoo.DEFAULT else ""
        table.add_row(
            f"{row['name']}{default}", row["input"], str(row["ap"] or ""), row["licence"], megabytes,
            "yes" if row["here"] else "",
        )  # fmt: skip
    Console().print(table)
    print("`demo`, of rendered scenes, is always here.")


@app.command("get")
def model_get(
    name: Annotated[str, typer.Argument(help="as `manyeyes model list` has it")],
    file: Annotated[
        Path | None, typer.Option("--from", help="its file; none: downloaded, unless it is here")
    ] = None,
) -> None:
    """Fetch a model and make it a bundle in the cache, from where `--model NAME` takes it.

    A proxy is taken from the environment (https_proxy). Example: manyeyes model get yolox-nano
    """
    from stages.training import published

    entry = zoo.entry(name)
    console = Console(stderr=True)
    with _download_bar(console, entry) as progress:
        facts = published.get(
            entry, file, progress=progress, tell=lambda text: console.print(text, style="dim")
        )
    size = entry.bundle.stat().st_size / 1e6
    about = facts.provenance
    licence = about.get("licence", "unknown")
    print(
        f"{entry.bundle}: {size:.1f} MB, {len(facts.classes)} classes, licence {licence}, ", end=""
    )
    print(f"COCO AP {about['coco_ap']} as published" if "coco_ap" in about else "AP unknown")


@contextlib.contextmanager
def _download_bar(
    console: Console, entry: zoo.Entry
) -> Iterator[Callable[[int, int | None], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(entry.name, visible=False)

        def progress(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        yield progress


@app.command("inspect")
def model_inspect(
    file: Annotated[str, typer.Argument(help="a bundle, or a name of the list")],
    as_json: Json = False,
) -> None:
    """Print the facts of a model file; nothing of it is run.

    Example: manyeyes model inspect yolox.bundle
    """
    from stages.detector import importing

    by_name = not Path(file).exists() and (file == zoo.DEMO or file in zoo.entries())
    facts, about = importing.inspect(str(zoo.bundle_of(file)) if by_name else file)
    table = {**about, **json.loads(facts.to_json())}
    if as_json:
        print(json.dumps(table, indent=2))
        return
    table["golden"] = "yes" if table.get("golden") else "no"
    for key, value in _rows(table):
        print(f"{key:38} {', '.join(map(str, value)) if isinstance(value, list) else value}")


@app.command("import")
def model_import(
    file: Path,
    output: Annotated[Path, typer.Option("-o", "--output", help="the bundle to write")],
    check: Annotated[
        list[Path] | None, typer.Option(help="a picture that shows what it should find; or several")
    ] = None,
    expect: Annotated[
        str | None, typer.Option(help="classes that must be found there, a,b,c")
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="candidates, yolox, yolox-raw, ultralytics, torchvision, detr, gfl, yunet, final, rows"
        ),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="coco80, coco91, a file with one a line, or a,b,c")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="of its input, 416 or 640x352 (width x height)")
    ] = None,
    color: Annotated[str | None, typer.Option(help="rgb or bgr")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="of its input: float32, float16 or uint8")
    ] = None,
    order: Annotated[
        str | None, typer.Option(help="of its input: nchw, nhwc, or chw for one picture at a time")
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="input = (pixel * scale - mean) / std")
    ] = None,
    mean: Annotated[str | None, typer.Option(help="three numbers, a,b,c")] = None,
    std: Annotated[str | None, typer.Option(help="three numbers, a,b,c")] = None,
    pad: Annotated[int | None, typer.Option(help="grey level of the letterbox")] = None,
    align: Annotated[str | None, typer.Option(help="center or top-left")] = None,
    interpolation: Annotated[
        str | None, typer.Option(help="linear, area, nearest, cubic, antialias")
    ] = None,
    resize: Annotated[str | None, typer.Option(help="letterbox or stretch")] = None,
    label_offset: Annotated[
        int | None, typer.Option(help="1 where its label 0 is a background")
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(help="of layout detr: sigmoid, or softmax with a last column for none"),
    ] = None,
    roles: Annotated[
        str | None,
        typer.Option(help="of its outputs: boxes, scores, labels, count, rows or none, a,b,c"),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="of layout rows: picture, box, score, label, in their order")
    ] = None,
    box: Annotated[
        str | None, typer.Option(help="of layouts final and rows: xyxy, cxcywh or yxyx")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="px of the input, or share of it: layouts final and rows")
    ] = None,
    centre: Annotated[
        float | None, typer.Option(help="of layout gfl: 0 or 0.5 of a cell, NanoDet and PicoDet")
    ] = None,
) -> None:
    """Make a bundle of a TorchScript or ONNX model of somebody else.

    What is not said here is read from the file, or assumed after models of its layout, and printed. With
    --check it is shown a picture, what it finds is drawn beside the bundle, and it is said if another
    colour order, scale or letterbox finds more.

    Example: manyeyes model import yolov8n.onnx -o yolov8n.bundle --check street.jpg --expect person,car
    """
    from stages.detector import importing

    console = Console(stderr=True)
    pictures = [_picture(path) for path in check or []]
    facts = importing.import_model(
        str(file), str(output), layout=layout, classes=classes, size=size, color=color, dtype=dtype,
        scale=scale, mean=_three("--mean", mean), std=_three("--std", std), pad=pad, align=align,
        interpolation=interpolation, resize=resize, label_offset=label_offset,
        activation=activation, order=order, roles=_list(roles), columns=_list(columns), box=box,
        unit=unit, centre=centre,
        pictures=pictures,
        expected=_list(expect) or [],
        tell=lambda text: console.print(text, style="yellow" if "warning" in text else "dim"),
    )  # fmt: skip
    _draw(output, facts, check or [], pictures)
    batches = (
        "batches of 1 only"
        if facts.batch_sizes == (1,)
        else f"batches up to {facts.batch_sizes[-1]}"
    )
    print(
        f"{output}: {facts.name}, {len(facts.classes)} classes, "
        f"{facts.input.width}x{facts.input.height}, {batches}"
    )


def _picture(path: Path) -> Any:
    import cv2

    image = cv2.imread(str(path)) if path.is_file() else None  # as its EXIF turns it
    if image is None:
        raise ConfigError(f"--check {path}: wanted a picture, such as a JPEG, got none that opens")
    return image


def _draw(bundle: Path, facts: Any, check: list[Path], pictures: list[Any]) -> None:
    """What the bundle finds, as pictures beside it."""
    import cv2

    from stages.detector import engines, proof
    from stages.imaging import drawing

    engine = engines.load(str(bundle), facts, device="cpu", precision="fp32", threads=0)
    for path, picture in zip(check, pictures, strict=True):
        found = proof.found(engine, facts, picture)
        drawn = bundle.with_name(f"{bundle.stem}-{path.stem}.jpg")
        cv2.imwrite(str(drawn), drawing.draw(picture.copy(), found, facts.classes))
        print(f"drawn: {drawn}")


def _rows(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _rows(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _list(text: str | None) -> list[str] | None:
    return [part.strip() for part in text.split(",")] if text else None


def _three(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"{option}: wanted three numbers like 0.5,0.5,0.5, got {text!r}"
        ) from error
    return red, green, blue
