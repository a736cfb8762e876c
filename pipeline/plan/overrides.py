"""What the command line says over a configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from pipeline.plan import model_path


class Overrides(TypedDict, total=False):
    """What the command line may say; paths are relative to the current folder."""

    model: str | Path
    score: float  # of [model], score_threshold
    track: bool  # True adds [track]
    events: str | Path  # a file; adds a sink
    video: str | Path  # a folder; adds a sink
    window: bool  # True adds a sink
    policy: str
    seconds: float
    strict: bool


def overridden(raw: dict[str, Any], given: Overrides) -> dict[str, Any]:
    """`raw` with the command line over it. What is malformed stays, for the check to find."""
    run: dict[str, Any] = {k: given[k] for k in ("policy", "seconds", "strict") if k in given}
    model: dict[str, Any] = {}
    if "model" in given:
        model = {"path": None, "name": None, **model_path.given(given["model"])}
    if "score" in given:
        model["score_threshold"] = given["score"]
    if given.get("track"):
        raw = {"track": {}, **raw}
    for section, values in (("run", run), ("model", model)):
        if values and isinstance(raw.get(section, {}), dict):
            raw = {**raw, section: {**raw.get(section, {}), **values}}
    sinks: list[dict[str, Any]] = []
    if "events" in given:
        sinks.append({"type": "events", "path": str(Path(given["events"]).absolute())})
    if "video" in given:
        sinks.append({"type": "video", "path": str(Path(given["video"]).absolute())})
    if given.get("window"):
        sinks.append({"type": "window"})
    if sinks and isinstance(raw.get("sink", []), list):
        # The command line takes the place of sinks of the same name.
        names = [sink["type"] for sink in sinks]
        kept = [sink for sink in raw.get("sink", []) if _sink_name(sink) not in names]
        raw = {**raw, "sink": [*kept, *sinks]}
    return raw


def _sink_name(sink: Any) -> Any:
    return sink.get("name", sink.get("type")) if isinstance(sink, dict) else None
