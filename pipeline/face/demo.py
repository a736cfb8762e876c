"""What `manyeyes demo` runs: rendered cameras, whose objects are known, with a line across each
and an alarm for who comes in."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pipeline.plan.alerting import AlertConfig, OutboxConfig, TargetConfig
from pipeline.plan.config import Config, SinkConfig, from_sources
from pipeline.plan.scenery import LineConfig

LINE = "middle"


def follows() -> bool:
    """Whether what follows objects is installed."""
    return importlib.util.find_spec("trackers") is not None


def demo_config(cameras: int, seconds: float, output: Path, *, window: bool) -> Config:
    """output: the folder for videos, events, happenings and alarms. Raises ConfigError."""
    rate = 8 if cameras > 2 else 15
    sources = [f"synthetic://?seed={seed + 1}&size=640x360&rate={rate}" for seed in range(cameras)]
    config = from_sources(
        sources, events=output / "events.jsonl", video=output, window=window, seconds=seconds
    )
    if not follows():
        return config
    lines = tuple(
        LineConfig(name=LINE, camera=camera.name, points=((0.5, 1.0), (0.5, 0.0)))
        for camera in config.camera
    )
    folder = output.absolute()
    path = str(folder / "happenings.jsonl")
    sinks = (*config.sink, SinkConfig(type="happenings", options={"path": path}))
    alert = AlertConfig(name="came-in", kinds=("crossed",), directions=("in",), to=("log",))
    log = TargetConfig(name="log", type="file", options={"path": str(folder / "alarms.jsonl")})
    return config.model_copy(
        update={
            "line": lines,
            "sink": sinks,
            "alert": (alert,),
            "target": (log,),
            "outbox": OutboxConfig(path=folder / "outbox.db"),
        }
    )
