"""`manyeyes bench …`: they parse, call and print; what they call is imported when it is called.

`pipeline.face.cli` finds `app` by name. Results go to stdout, progress and notes to stderr.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from pipeline.errors import ResourceError

app = typer.Typer(
    help="Measure this machine: how many cameras it takes, where the time goes, what changed.",
    no_args_is_help=True,
)

Model = Annotated[
    str | None,
    typer.Option(help="a name (`manyeyes model list`) or a bundle; none: as the sources need"),
]
Json = Annotated[bool, typer.Option("--json", help="for programs")]
Output = Annotated[Path, typer.Option("-o", "--output", help="folder for what is written")]
RESULTS = Path("out/bench")
SCENE = "synthetic://?size=640x360&rate=15"


@app.command()
def capacity(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="a TOML file, or clips to copy; none: rendered 640x360 scenes at 15 fps"
        ),
    ] = None,
    p99_ms: Annotated[
        float, typer.Option(min=1, help="limit of the latency, capture to result")
    ] = 100.0,
    model: Model = None,
    fps: Annotated[
        float | None, typer.Option(min=0.1, max=1000, help="of each camera; none: the clip's own")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="that the answer is confirmed for")] = 60.0,
    most: Annotated[int, typer.Option(min=1, max=1024, help="cameras to try at most")] = 256,
    cameras: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="try only this number; exits with 1 if it is too many"),
    ] = None,
    output: Output = RESULTS,
    as_json: Json = False,
) -> None:
    """How many cameras does this machine take at this latency with this model? Writes a certificate.

    Copies of your clips are played in real time, more and more of them, until p99 latency or the share of
    frames served (99 %) is missed. Takes some minutes; close what else runs.

    Example: manyeyes bench capacity street.mp4 --model yolox.bundle --p99-ms 100 --fps 5

    Example, to try a number again: manyeyes bench capacity street.mp4 --fps 5 --cameras 12
    """
    from benchmarks.tool import capacity as measuring
    from benchmarks.tool import certificate
    from pipeline.face.cli import fetched_config

    notes = Console(stderr=True)
    config = fetched_config(sources or [SCENE], {"model": model} if model else {})
    if cameras is not None:
        trial = measuring.one(config, cameras, fps=fps, seconds=seconds)
        row = trial.to_json(p99_ms)
        print(_text(row).strip() if as_json else measuring.told_trial(trial, p99_ms).strip())
        raise typer.Exit(not row["passed"])
    _folder(output)
    document = measuring.measure(
        config, p99_ms=p99_ms, fps=fps, seconds=seconds, most=most,
        tell=lambda line: notes.print(line, highlight=False, soft_wrap=True),
        command=shlex.join(["manyeyes", *sys.argv[1:]]),
    )  # fmt: skip
    written = [output / "capacity.json", output / "capacity.html"]
    _write(written[0], _text(document))
    _write(written[1], certificate.page(document))
    if as_json:
        print(_text(document), end="")
        return
    Console().print(measuring.summary(document), soft_wrap=True)
    notes.print(f"written: {', '.join(map(str, written))}", highlight=False)


@app.command()
def stages(
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="a TOML file, or sources; none: one rendered 640x360 scene at 15 fps"),
    ] = None,
    model: Model = None,
    seconds: Annotated[float, typer.Option(min=1, help="to look for, all starts together")] = 15.0,
    starts: Annotated[
        int,
        typer.Option(min=1, max=50, help="times to start it anew, since each is a bit different"),
    ] = 3,
    policy: Annotated[
        str | None, typer.Option(help="newest: never wait; every: process each frame")
    ] = None,
    output: Output = RESULTS,
    as_json: Json = False,
) -> None:
    """Where does the time go? Service, wait, CPU and bytes of each stage, as a table and a picture.

    Files are played again and again, and sinks write into a folder that is removed afterwards.

    Example: manyeyes bench stages street.toml --seconds 20 -o before
    """
    from benchmarks.rig import plots
    from benchmarks.tool import breakdown
    from pipeline.face.cli import fetched_config

    notes = Console(stderr=True)
    plots.pyplot()  # what is not installed is better known now
    _folder(output)
    given: dict[str, Any] = {"model": model, "policy": policy}
    config = fetched_config(
        sources or [SCENE], {key: value for key, value in given.items() if value is not None}
    )
    document = breakdown.measure(config, seconds, starts)
    written = [output / "stages.json", output / "stages.svg"]
    _write(written[0], _text(document))
    plots.write(document, written[1])
    if as_json:
        print(_text(document), end="")
        return
    console = Console() if sys.stdout.isatty() else Console(width=110)
    console.print(breakdown.table(document))
    console.print(breakdown.LEGEND, style="dim", highlight=False)
    notes.print(f"written: {', '.join(map(str, written))}", highlight=False)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="what a benchmark wrote before, such as stages.json")],
    b: Annotated[Path, typer.Argument(help="what it wrote afterwards")],
    fail_above: Annotated[
        float,
        typer.Option(min=0, help="a change for the worse by more than this share exits with 1"),
    ] = 0.1,
    as_json: Json = False,
) -> None:
    """What became faster or slower from A to B? Refuses files of machines that are not alike.

    A change counts if its 95 % interval lies on one side of 1, and if it is larger than --fail-above.

    Example: manyeyes bench compare before/stages.json after/stages.json --fail-above 0.1
    """
    from benchmarks.tool import compare as comparing

    documents = comparing.read(a), comparing.read(b)
    rows = comparing.changes(*documents, fail_above)
    for note in comparing.notes(*documents):
        Console(stderr=True).print(note, style="yellow", highlight=False, soft_wrap=True)
    if as_json:
        changes = [{**asdict(row), "kind": row.kind, "word": row.word} for row in rows]
        print(_text({"a": str(a), "b": str(b), "changes": changes}), end="")
    else:
        console = Console() if sys.stdout.isatty() else Console(width=110)
        console.print(comparing.table(rows))
    if any(row.kind == "worse" for row in rows):
        raise typer.Exit(1)


def _folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"-o {path}: can't be made: {error.strerror}; name another folder"
        ) from error


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"{path}: can't be written: {error.strerror}") from error


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
