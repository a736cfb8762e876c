"""The commands about places and what happens there: they parse, call and print."""

from __future__ import annotations

import difflib
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from pipeline.errors import ConfigError, EndOfStream, FrameError, ResourceError, SourceError
from pipeline.messages import Image
from pipeline.plan import config as configuration
from pipeline.plan.config import CameraConfig, Config
from pipeline.plan.graph import load
from pipeline.plan.standard import source_of
from pipeline.process.main import build
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
