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
            f"{row['name']}{default}", row["input"], str(row["ap"]), row["licence"], megabytes,
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
    layout: Annotated[
        str, typer.Option(help="candidates, yolox, yolox-raw, ultralytics, torchvision")
    ],
    classes: Annotated[str, typer.Option(help="coco80, a file with one a line, or a,b,c")],
    size: Annotated[str, typer.Option(help="input of the model, 416 or 640x352 (width x height)")],
    color: Annotated[str, typer.Option(help="rgb or bgr")],
    scale: Annotated[float, typer.Option(help="input = (pixel * scale - mean) / std")] = 1.0,
    mean: Annotated[str | None, typer.Option(help="three numbers, a,b,c")] = None,
    std: Annotated[str | None, typer.Option(help="three numbers, a,b,c")] = None,
    pad: Annotated[int, typer.Option(help="grey level of the letterbox")] = 114,
    align: Annotated[str, typer.Option(help="center or top-left")] = "center",
    interpolation: Annotated[str, typer.Option(help="linear, area, nearest, cubic")] = "linear",
    resize: Annotated[str, typer.Option(help="letterbox or stretch")] = "letterbox",
) -> None:
    """Give a TorchScript or ONNX model of somebody else the facts that manyeyes needs.

    Example: manyeyes model import yolox.torchscript --layout yolox --classes coco80 --size 416
    --color bgr --align top-left -o yolox.bundle
    """
    from stages.detector import importing

    facts = importing.import_model(
        str(file), str(output), layout=layout, classes=classes, size=size, color=color, scale=scale,
        mean=_three("--mean", mean), std=_three("--std", std), pad=pad, align=align,
        interpolation=interpolation, resize=resize,
    )  # fmt: skip
    print(
        f"{output}: {facts.name}, {len(facts.classes)} classes, {facts.input.width}x{facts.input.height}"
    )


def _rows(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _rows(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


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
