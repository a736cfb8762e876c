"""`manyeyes ctl`: look at a run that goes on, and tell it what to do."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline.errors import ManyeyesError
from pipeline.supervision.ctl import NAME
from pipeline.supervision.rundir import socket_folders

app = typer.Typer(help="Look at a run that goes on, and tell it what to do.", no_args_is_help=True)

Pid = Annotated[
    int | None, typer.Option("--pid", help="of the run's supervisor, where several runs go on")
]
_PATIENCE_S = 10.0


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


def _change(order: str, camera: str, pid: int | None) -> None:
    told = ask(pid, {"do": order, "camera": camera})
    print(f"camera {told['camera']!r}: {told['state']}")


def ask(pid: int | None, question: dict[str, Any]) -> dict[str, Any]:
    """What the run answers; pid: of its supervisor, None: there is one run only.

    Waits for seconds at most. Raises ManyeyesError if there is no such run, if there are several, or with
    what the run says against it.
    """
    found = {run: sock for run, sock in _runs() if pid in (None, run)}
    try:
        if not found:
            which = "no run goes on" if pid is None else f"no run has the process id {pid}"
            raise ManyeyesError(f"ctl: {which} here, of this user; `manyeyes run` starts one")
        if len(found) > 1:
            pids = ", ".join(map(str, sorted(found)))
            raise ManyeyesError(f"ctl: several runs go on ({pids}); say which with --pid")
        told = _asked(next(iter(found.values())), question)
    finally:
        for sock in found.values():
            sock.close()
    if "error" in told:
        refusal = ManyeyesError(told["error"])
        refusal.exit_code = told["exit_code"]  # of this one error, as the run said
        raise refusal
    return told


def _runs() -> Iterator[tuple[int, socket.socket]]:
    """The process id of each run of this user that takes questions, and a connection to it."""
    for folder in socket_folders():
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(_PATIENCE_S)
        try:
            sock.connect(str(folder / NAME))
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except OSError:  # left behind by a run that was killed, or just ending
            sock.close()
            continue
        yield int.from_bytes(credentials[:4], "little"), sock


def _asked(sock: socket.socket, question: dict[str, Any]) -> dict[str, Any]:
    try:
        sock.sendall(json.dumps(question).encode() + b"\n")
        data = b""
        while not data.endswith(b"\n"):
            if not (more := sock.recv(1 << 16)):
                raise ManyeyesError("ctl: the run ended before it answered")
            data += more
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else "it does not answer"
        raise ManyeyesError(f"ctl: the run can't be asked: {why}") from error
    told: dict[str, Any] = json.loads(data)
    return told
