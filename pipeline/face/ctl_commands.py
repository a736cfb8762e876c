"""`manyeyes ctl`: look at a run that goes on, and tell it what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline.plan.sources import check_path
from pipeline.supervision.asking import ask

app = typer.Typer(help="Look at a run that goes on, and tell it what to do.", no_args_is_help=True)

Pid = Annotated[
    int | None, typer.Option("--pid", help="of the run's supervisor, where several runs go on")
]


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
    for name, row in told["stages"].items():
        if row["state"] != "ready" or row["restarts"]:
            console.print(f"stage {name}: {row['state']}, {row['restarts']} restarts")


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
    camera: Annotated[str, typer.Argument(help="NAME=SOURCE, or a TOML file of [[camera]] tables")],
    pid: Pid = None,
) -> None:
    """Let cameras join a run that goes on.

    Example: manyeyes ctl add gate=rtsp://10.0.0.7/stream1 --pid 4711
    """
    name, is_one, source = camera.partition("=")
    if not is_one:
        _tell(ask(pid, {"do": "add", "file": str(Path(camera).resolve())}))
        return
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


def _tell(told: dict[str, Any]) -> None:
    for line in told["lines"] or ["nothing changes"]:
        print(line)


def _change(order: str, camera: str, pid: int | None) -> None:
    told = ask(pid, {"do": order, "camera": camera})
    print(f"camera {told['camera']!r}: {told['state']}")
