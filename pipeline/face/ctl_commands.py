"""`manyeyes ctl`: look at a run that goes on, and tell it what to do."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline.errors import ConfigError, ManyeyesError
from pipeline.plan.model_path import model_path
from pipeline.plan.sources import check_path
from pipeline.supervision.asking import ask

app = typer.Typer(help="Look at a run that goes on, and tell it what to do.", no_args_is_help=True)

Pid = Annotated[
    int | None, typer.Option("--pid", help="of the run's supervisor, where several runs go on")
]

_LOOK_S = 0.2  # between two looks at a change


@app.command()
def status(
    pid: Pid = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Show the cameras, sinks and stages of a run, as they are now.

    Example: manyeyes ctl status --json
    """
    told = ask(pid, {"do": "status"})
    if as_json:
        print(json.dumps(told, indent=2))
        return
    table = Table(title=f"run {told['pid']}: {told['state']}", title_justify="left", box=None)
    for column in ("camera", "state", "captured", "delivered", "in flight", "dropped"):
        table.add_column(column)
    for camera, row in told["cameras"].items():
        dropped = ", ".join(f"{n} {why}" for why, n in row["dropped"].items()) or "–"
        cells = (row["state"], row["captured"], row["delivered"], row["in_flight"], dropped)
        table.add_row(camera, *map(str, cells))
    console = Console()
    console.print(table)
    for name, row in told["sinks"].items():
        console.print(f"sink {name}: {row['taken']} of {row['offered']} taken, {row['lost']} lost")
    if told["compared"]:
        console.print(_comparison(told["compared"]))
    if told["withdrawn"]:
        console.print(f"the last change was {told['withdrawn']}")
    for name, row in told["stages"].items():
        if row["state"] != "ready" or row["restarts"]:
            console.print(f"stage {name}: {row['state']}, {row['restarts']} restarts")


def _comparison(compared: dict[str, dict[str, dict[str, int]]]) -> Table:
    """Where a model that looks on differs from the one that delivers."""
    table = Table(title="looking on", title_justify="left", box=None)
    for column in ("camera", "frames", "class", "both", "only new", "only old"):
        table.add_column(column)
    for camera, kinds in compared.items():
        labels = {label for kind, row in kinds.items() if kind != "compared" for label in row}
        frames = kinds.get("compared", {}).get("", 0)
        for label in sorted(labels) or ["–"]:
            cells = (kinds.get(kind, {}).get(label, 0) for kind in ("both", "only_new", "only_old"))
            table.add_row(camera, str(frames), label, *map(str, cells))
    return table


@app.command()
def pause(
    camera: Annotated[str, typer.Argument(help="its name in the configuration")], pid: Pid = None
) -> None:
    """Read a camera no more, until it is resumed; the others do not notice.

    Example: manyeyes ctl pause gate
    """
    _change("pause", camera, pid)


@app.command()
def resume(
    camera: Annotated[str, typer.Argument(help="its name in the configuration")], pid: Pid = None
) -> None:
    """Read a paused camera again.

    Example: manyeyes ctl resume gate
    """
    _change("resume", camera, pid)


@app.command()
def plan(config: Annotated[Path, typer.Argument(help="a TOML file")], pid: Pid = None) -> None:
    """Say what `ctl apply` would do, and what is wrong with the file, and do nothing.

    Example: manyeyes ctl plan street.toml --pid 4711
    """
    _tell(ask(pid, {"do": "plan", "file": str(config.resolve())}))


@app.command()
def apply(config: Annotated[Path, typer.Argument(help="a TOML file")], pid: Pid = None) -> None:
    """Make a run what a file says: cameras join, leave, or are read in another way.

    It is done whole or refused whole, with the sentence that `manyeyes check` would give. What the file
    does not change does not notice.

    Example: manyeyes ctl apply street.toml --pid 4711
    """
    _tell(ask(pid, {"do": "apply", "file": str(config.resolve())}))


@app.command()
def add(
    camera: Annotated[str, typer.Argument(help="NAME=SOURCE, or a .toml file of cameras")],
    pid: Pid = None,
) -> None:
    """Let cameras join a run that goes on.

    Example: manyeyes ctl add gate=rtsp://10.0.0.7/stream1 --pid 4711
    """
    name, is_one, source = camera.partition("=")
    if camera.endswith(".toml"):
        _tell(ask(pid, {"do": "add", "file": str(Path(camera).resolve())}))
        return
    if not is_one or "/" in name:  # a source alone, which may have a "=" of its own
        raise ConfigError(
            "ctl add: wanted NAME=SOURCE, such as gate=SOURCE, or a .toml file, got no name"
        )
    check_path(source)
    table = {"name": name, "source": int(source) if source.isdecimal() else source}
    _tell(ask(pid, {"do": "add", "cameras": [table], "folder": str(Path.cwd())}))


@app.command()
def remove(
    camera: Annotated[str, typer.Argument(help="its name in the configuration")], pid: Pid = None
) -> None:
    """Let a camera leave; what was captured of it still arrives.

    Example: manyeyes ctl remove gate --pid 4711
    """
    _tell(ask(pid, {"do": "remove", "camera": camera}))


@app.command()
def swap(
    model: Annotated[str, typer.Argument(help="a bundle, or a name of `manyeyes model list`")],
    camera: Annotated[
        list[str] | None, typer.Option("--camera", help="only this one; may be given again")
    ] = None,
    known_classes: Annotated[
        bool, typer.Option("--known-classes", help="keep only those that the run knows")
    ] = False,
    shadow: Annotated[
        bool,
        typer.Option("--shadow", help="let it look on beside the old one, and compare the two"),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would happen")] = False,
    pid: Pid = None,
) -> None:
    """Let another model look, in the place of the one that does, or of that of the named cameras.

    It is started, tested and warm before the cameras go over to it. If it fails, the old one goes on, and
    has missed nothing. Waits until it is done. With --shadow it only looks on: `ctl status` says where it
    finds other things; `ctl swap` without --shadow lets it take over, `ctl rollback` withdraws it.

    Example: manyeyes ctl swap night.bundle --camera gate
    """
    question = {"do": "swap", "model": str(model_path(model)), "cameras": camera or []}
    asked = {"known_classes": known_classes, "is_shadow": shadow, "is_asked_only": dry_run}
    _tell(ask(pid, question | asked))
    if not dry_run:
        _wait(pid)


@app.command()
def rollback(pid: Pid = None) -> None:
    """Go back to the plan before the last change, and wait until that runs; again: and forth.

    Example: manyeyes ctl rollback --pid 4711
    """
    _tell(ask(pid, {"do": "rollback"}))
    _wait(pid)


def _wait(pid: int | None) -> None:
    """Until the change is done. Raises ManyeyesError if it was withdrawn."""
    while not (told := ask(pid, {"do": "status"}))["settled"]:
        time.sleep(_LOOK_S)
    if told["withdrawn"] is not None:
        raise ManyeyesError(f"ctl: {told['withdrawn']}")
    print("done")


def _tell(told: dict[str, Any]) -> None:
    for line in told["lines"] or ["nothing changes"]:
        print(line, flush=True)


def _change(order: str, camera: str, pid: int | None) -> None:
    told = ask(pid, {"do": order, "camera": camera})
    print(f"camera {told['camera']!r}: {told['state']}")
