"""What is beside the path of a frame: who looks after the cameras themselves."""

from __future__ import annotations

from pipeline.plan.draft import Draft
from pipeline.plan.loading import stage_class

HEALTH = "stages.health.stage:Health"

_LOOKS = (1, 1)  # credits, waiting


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
