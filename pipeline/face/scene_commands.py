"""The commands about places and what happens there: they parse, call and print."""

from __future__ import annotations

import difflib
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from pipeline.errors import ConfigError, EndOfStream, FrameError, ResourceError, SourceError
from pipeline.face import asked
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
    checked = configuration.load_to_look(config)
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
    """What happened, newest first: one row an object, from when it came until it was gone.

    Example: manyeyes events street.toml --zone yard --class person --since 2h
    """
    wanted = {"camera": camera, "label": label, "place": place, "kind": kind, "limit": limit}
    query = load(f"stages.sinks.store.query:{'happenings' if each else 'incidents'}")
    rows = query(str(store_of(source)), **wanted, **asked.between(since, until))
    asked.tell(rows, each=each, as_json=as_json)


def store_of(source: Path) -> Path:
    """The file of the store that a configuration has, or the file itself. Raises ConfigError."""
    if source.suffix != ".toml":
        return source
    for sink in configuration.load_to_look(source).sink:
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
