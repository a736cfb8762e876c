"""What is beside the path of a frame: who looks after the cameras, and who keeps pictures of objects."""

from __future__ import annotations

from typing import Any

from pipeline.plan.config import Config
from pipeline.plan.draft import Draft, PlannedSink
from pipeline.plan.loading import build, stage_class

HEALTH = "stages.health.stage:Health"
PICTURES = "stages.sinks.store.pictures:Pictures"

_LOOKS = (1, 1)  # credits, waiting
_PICTURES = (3, 1)  # a frame waits there for its result
_PICTURES_HZ = 2.0
_MAX_AGE_MS = 500.0


def add_health(draft: Draft, sources: tuple[str, ...], run_id: str) -> None:
    """A process that looks at cameras, if anybody is to hear of them; recordings are no cameras."""
    health = draft.config.health
    hearers = [s.name for s in draft.sinks if getattr(stage_class(s.run), "takes_health", False)]
    if not health.enabled or not hearers or draft.config.run.policy != "newest":
        return
    fields = {**health.model_dump(exclude={"enabled", "looks_hz"}), "run": run_id}
    draft.add("health", HEALTH, fields, role="stage", paths=())
    for source in sources:
        draft.edge(source, "health", _LOOKS, (), overflow="drop", max_hz=health.looks_hz)
        draft.reads("health", source)
    for sink in hearers:
        draft.edge("health", sink, draft.depths.results, (), overflow="drop")


def add_pictures(draft: Draft, view: tuple[str, ...], last: tuple[str, ...], run_id: str) -> None:
    """For each store that keeps pictures a process that sees frames and who is in them."""
    for sink in draft.sinks:
        fields = pictures_of(sink)
        if fields is None:
            continue
        name = f"pictures.{sink.name.removeprefix('sink.')}"
        options = {"max_age_ms": _MAX_AGE_MS, "max_waiting": _PICTURES[0], "policy": "newest"}
        draft.add(name, PICTURES, {**fields, "run": run_id}, role="join", paths=(), options=options)
        for producer in view:
            draft.edge(producer, name, _PICTURES, (), overflow="drop", max_hz=_PICTURES_HZ)
            draft.reads(name, producer)
        for producer in last:
            draft.edge(producer, name, draft.depths.results, (), overflow="drop")


def pictures_of(sink: PlannedSink) -> dict[str, Any] | None:
    """What a sink wants of the process that keeps its pictures of objects: fields; None: none are kept."""
    wanted = getattr(stage_class(sink.run), "keeps_pictures", None)
    fields: dict[str, Any] | None = wanted and wanted(build(sink.run, sink.fields).config)
    return fields


def views_of(config: Config) -> list[list[list[str]]]:
    """Of each place that several cameras see its views, [camera, zone]."""
    return [[view.split("/", 1) for view in overlap.zones] for overlap in config.overlap]
