"""`manyeyes fleet`: the cameras of one file on several machines. They parse, call and print."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline.errors import ConfigError, ManyeyesError
from pipeline.face import asked
from pipeline.fleet import config as fleet_config
from pipeline.fleet import placement, targets
from pipeline.fleet.config import Fleet
from pipeline.fleet.placement import MachineStatus, Placed, Placement
from pipeline.fleet.planner import Assignment
from pipeline.plan.loading import load

app = typer.Typer(help="Many cameras on several machines.", no_args_is_help=True)
PLACEMENTS = {
    "static": "pipeline.fleet.static:StaticPlacement",
    "ray": "pipeline.fleet.ray_placement:RayPlacement",
}

File = Annotated[Path, typer.Argument(help="a fleet.toml")]
Json = Annotated[bool, typer.Option("--json", help="for programs")]


@app.command()
def plan(
    file: File,
    write: Annotated[bool, typer.Option("--write", help="let it be so")] = False,
    as_json: Json = False,
) -> None:
    """Which machine would run which camera, what would move, and why. Starts nothing.

    Exit code 78 if there is a camera that no machine takes; then --write changes nothing.

    Example: manyeyes fleet plan fleet.toml --write
    """
    fleet = fleet_config.load(file)
    carrier = placement_of(fleet)
    _change(fleet, carrier, carrier.placed(), write=write, as_json=as_json)


@app.command()
def drain(
    file: File,
    machine: Annotated[str, typer.Argument(help="its name in the file")],
    undo: Annotated[bool, typer.Option("--undo", help="it may run cameras again")] = False,
    as_json: Json = False,
) -> None:
    """Move all cameras off a machine, to work on it or to take it away.

    Example: manyeyes fleet drain fleet.toml hall-b --undo
    """
    fleet = fleet_config.load(file)
    fleet.machine(machine)
    carrier = placement_of(fleet)
    placed = carrier.placed().drain(machine, drained=not undo)
    _change(fleet, carrier, placed, write=True, as_json=as_json)


@app.command()
def up(
    file: File,
    machine: Annotated[
        str | None, typer.Option(help="run the part of this machine, here (placement = 'static')")
    ] = None,
) -> None:
    """Run a machine's part of the fleet, as `manyeyes run` does; with Ray, let all machines run theirs.

    Example: manyeyes fleet up fleet.toml --machine hall-a
    """
    fleet = fleet_config.load(file)
    if fleet.settings.placement == "ray":
        if machine is not None:
            raise ConfigError("--machine: placement = 'ray' has an agent on each; leave it out")
        fleet.check()
        carrier = placement_of(fleet)
        everywhere = {machine.name: machine.capacity for machine in fleet.machines}
        placement.refuse_unplaced(fleet, placement.planned(fleet, Placed(), everywhere))
        print(carrier.up(fleet))
        return
    if machine is None:
        raise ConfigError(
            f"{fleet.file.name}: placement = 'static' starts each machine by itself; say which this is, "
            f"with --machine, one of {', '.join(fleet.names)}"
        )
    cameras = placement.cameras_of(fleet, placement_of(fleet).placed(), machine)
    if not cameras:
        print(f"{machine} has no camera; nothing is run")
        return
    path = fleet.write_run(machine, cameras)
    print(f"{machine} runs {', '.join(cameras)}: {path}", flush=True)
    # in the place of this process, so that signals and the exit code are those of the run
    os.execv(sys.executable, [sys.executable, "-P", "-m", "pipeline", "run", str(path)])


@app.command()
def down(file: File) -> None:
    """End the runs of all machines in order, with placement = 'ray'; others end as runs do.

    Example: manyeyes fleet down fleet.toml
    """
    fleet = fleet_config.load(file)
    if fleet.settings.placement != "ray":
        raise ConfigError(
            f"{fleet.file.name}: placement = 'static' has nothing that ends others; end `fleet up` on each"
        )
    placement_of(fleet).down()
    print("nothing runs any more")


@app.command()
def status(file: File, as_json: Json = False) -> None:
    """How the machines and their cameras do. Exit code 1 if a camera is not served.

    Example: manyeyes fleet status fleet.toml --json
    """
    fleet = fleet_config.load(file)
    carrier = placement_of(fleet)
    rows, notes = carrier.status(fleet), carrier.notes(fleet)
    if as_json:
        print(json.dumps({"machines": [asdict(row) for row in rows], "notes": notes}, indent=2))
    else:
        print_status(rows)
        for note in notes:
            print(note)
    served = {name for row in rows for name, told in row.cameras.items() if told["state"] == "up"}
    if missed := [camera.name for camera in fleet.cameras if camera.name not in served]:
        raise ManyeyesError(f"not served: {', '.join(missed)}")


@app.command()
def events(
    file: File,
    camera: asked.Camera = None,
    label: asked.Label = None,
    place: asked.Place = None,
    kind: asked.Kind = None,
    since: asked.Since = None,
    until: asked.Until = None,
    limit: asked.Limit = 50,
    each: asked.Each = False,
    as_json: asked.JsonLines = False,
) -> None:
    """What happened on all machines, newest first, as `manyeyes events` tells it of one.

    Example: manyeyes fleet events fleet.toml --zone yard --since 2h
    """
    fleet = fleet_config.load(file)
    wanted = {"camera": camera, "label": label, "place": place, "kind": kind, "limit": limit}
    wanted |= asked.between(since, until)
    rows = list(placement_of(fleet).events(fleet, each=each, wanted=wanted))
    rows.sort(key=lambda row: str(row["time" if each else "start"]), reverse=True)
    asked.tell(rows[:limit], each=each, as_json=as_json)


def placement_of(fleet: Fleet) -> Any:
    """What carries the fleet out, a `Placement`. Raises ManyeyesError if it can't be reached."""
    if fleet.settings.placement == "ray" and find_spec("ray") is None:
        raise ConfigError(
            f"{fleet.file.name}: placement = 'ray' needs Ray: pip install 'manyeyes[fleet]'"
        )
    return load(PLACEMENTS[fleet.settings.placement])(fleet)


def _change(
    fleet: Fleet, carrier: Placement, placed: Placed, *, write: bool, as_json: bool
) -> None:
    """Show what would be, and let it be so if that is wanted and every camera has a machine."""
    fleet.check()
    assignment = placement.planned(fleet, placed, capacities := carrier.capacities(fleet))
    if as_json:
        print(json.dumps(_document(assignment), indent=2))
    else:
        print_plan(fleet, assignment, capacities)
    placement.refuse_unplaced(fleet, assignment)
    if not as_json:
        for name in placement.parted(fleet, assignment):
            print(
                f"overlap {name!r}: its cameras are on several machines, which do not compare objects"
            )
    if not write:
        return
    placed = Placed(where=assignment.where, drained=placed.drained)
    to_do = carrier.apply(fleet, placed)
    targets.write(fleet, placed)
    if to_do and not as_json:
        print(to_do)


def _document(assignment: Assignment) -> dict[str, Any]:
    return {
        "where": assignment.where,
        "moves": [
            {"camera": m.camera, "from": m.source, "to": m.target, "why": m.why}
            for m in assignment.moves
        ],
        "unplaced": assignment.unplaced,
    }


# -- for people ----------------------------------------------------------------------------------------


def print_plan(fleet: Fleet, assignment: Assignment, capacities: Mapping[str, float]) -> None:
    """The moves, then the machines."""
    console = Console()
    if assignment.moves:
        table = _table("camera", "from", "to", "why")
        for move in assignment.moves:
            table.add_row(move.camera, move.source or "–", move.target or "–", move.why)
        console.print(table)
    else:
        console.print("nothing moves")
    weights = {camera.name: camera.weight for camera in fleet.cameras}
    for name, capacity in capacities.items():
        used = sum(weights[camera] for camera in assignment.on(name))
        share = f"of {capacity:g} cameras ({used / capacity:.0%})" if capacity else "of 0 cameras"
        if math.isinf(capacity):
            share = "cameras; its capacity is measured when it joins"
        console.print(f"{name}: {used:g} {share}", highlight=False)


def print_status(rows: list[MachineStatus]) -> None:
    """A line a camera, under its machine."""
    table = _table("machine", "camera", "state", "captured", "delivered", "dropped")
    for row in rows:
        table.add_row(row.name, f"{len(row.cameras)} ({row.share:.0%})", row.state, "", "", "")
        for name, told in row.cameras.items():
            dropped = ", ".join(f"{n} {why}" for why, n in told.get("dropped", {}).items())
            numbers = (str(told.get(key, "–")) for key in ("captured", "delivered"))
            table.add_row("", name, told["state"], *numbers, dropped or "–")
    Console().print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in ("captured", "delivered") else "left")
    return table
