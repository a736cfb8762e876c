"""The commands about places and what happens there: they parse, call and print."""

from __future__ import annotations

import difflib
import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from pipeline.errors import ConfigError, EndOfStream, FrameError, ResourceError, SourceError
from pipeline.face.happened import print_events
from pipeline.face.moments import wall_ns
from pipeline.messages import Image
from pipeline.plan import config as configuration
from pipeline.plan.config import CameraConfig, Config
from pipeline.plan.loading import build, load
from pipeline.plan.standard import source_of
from pipeline.stage import Source

app = typer.Typer()
TO_BGR = "stages.imaging.pixels:to_bgr"
_PATIENCE_S = 15.0  # for the first picture of a camera


@app.command()
def zones(
    config: Annotated[Path, typer.Argument(help="a TOML file")],
    output: Annotated[Path, typer.Option("-o", "--output", help="the picture to write, a PNG")],
    camera: Annotated[str | None, typer.Option(help="which; none: the first")] = None,
) -> None:
    """Draw the zones and lines of a camera on a picture that is taken now.

    Example: manyeyes zones street.toml --camera gate -o zones.png
    """
    checked = configuration.load(config)
    chosen = camera_of(checked, camera)
    image = snapshot(chosen, checked)
    places = [
        [place.model_dump() for place in kind if place.camera == chosen.name]
        for kind in (checked.zone, checked.line)
    ]
    load("stages.scene.drawing:write_places")(str(output), image, *places)
    print(f"{output}: camera {chosen.name!r}, zones: {len(places[0])}, lines: {len(places[1])}")


@app.command()
def events(
    source: Annotated[Path, typer.Argument(help="a TOML file with a store, or the store's file")],
    camera: Annotated[str | None, typer.Option(help="of this camera")] = None,
    label: Annotated[str | None, typer.Option("--class", help="of this class")] = None,
    place: Annotated[str | None, typer.Option("--zone", help="in this zone, at this line")] = None,
    kind: Annotated[str | None, typer.Option(help="crossed, entered, loitering, …")] = None,
    since: Annotated[str | None, typer.Option(help="2h (ago), 10:30, 2026-11-22T10:30")] = None,
    until: Annotated[str | None, typer.Option(help="as --since")] = None,
    limit: Annotated[int, typer.Option(min=1, help="so many of the newest")] = 50,
    each: Annotated[bool, typer.Option("--each", help="every happening, not every object")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for programs: JSON Lines")] = False,
) -> None:
    """What happened, newest first: one row an object, from when it came until it was gone.

    Example: manyeyes events street.toml --zone yard --class person --since 2h
    """
    wanted = {
        "camera": camera, "label": label, "place": place, "kind": kind, "limit": limit,
        "since_ns": since and wall_ns("--since", since),
        "until_ns": until and wall_ns("--until", until),
    }  # fmt: skip
    query = "happenings" if each else "incidents"
    rows = load(f"stages.sinks.store.query:{query}")(str(store_of(source)), **wanted)
    if as_json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    print_events(list(rows), each=each)


def store_of(source: Path) -> Path:
    """The file of the store that a configuration has, or the file itself. Raises ConfigError."""
    if source.suffix != ".toml":
        return source
    for sink in configuration.load(source).sink:
        if sink.type == "store":
            return Path(str(sink.options.get("path")))
    raise ConfigError(f"{source.name}: there is no store; add a [[sink]] with type = 'store'")


def camera_of(config: Config, name: str | None) -> CameraConfig:
    """The camera of this name; none: the first. Raises ConfigError."""
    cameras = {camera.name: camera for camera in config.camera}
    if name is None:
        return config.camera[0]
    if name not in cameras:
        close = difflib.get_close_matches(name, cameras, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(cameras)}"
        raise ConfigError(f"--camera: there is no camera {name!r}; {hint}")
    return cameras[name]


def snapshot(camera: CameraConfig, config: Config) -> Image:
    """One picture of a camera: uint8 (H, W, 3) BGR, new memory. Raises ResourceError after some seconds."""
    where = f"camera {camera.name!r}"
    run, fields = source_of(camera, config.run.policy)
    source: Source = build(run, fields)
    source.check(source.config)
    source.setup()
    buffer = np.zeros(source.slot_bytes(source.config, 0), np.uint8)
    end = time.monotonic() + _PATIENCE_S
    problem: Any = "no picture came"
    try:
        source.open()
        while time.monotonic() < end:
            try:
                if (picture := source.read(buffer)) is not None:
                    frame = picture.frame(buffer, camera=camera.name)
                    return np.array(load(TO_BGR)(frame))
            except FrameError as error:
                problem = error
    except (SourceError, EndOfStream) as error:
        problem = error
    finally:
        source.close()
    raise ResourceError(f"{where}: no picture could be taken: {problem}")
