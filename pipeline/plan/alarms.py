"""The sink that alarms come from: the rules, targets and outbox of a configuration."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.plan.config import Config
from pipeline.plan.draft import PlannedSink
from pipeline.plan.fields import check_fields
from pipeline.plan.loading import load
from pipeline.plan.watching import pictures_of

ALARMS_SINK = "sink.alarms"
ALARMS = "stages.sinks.alarms.stage:Alarms"
TARGETS = {
    "webhook": "stages.sinks.alarms.webhook:Webhook",
    "mqtt": "stages.sinks.alarms.mqtt:Mqtt",
    "apprise": "stages.sinks.alarms.notify:Notify",
    "file": "stages.sinks.alarms.lines:Lines",
}


def alarms_sink(
    config: Config, classes: tuple[str, ...], sinks: Sequence[PlannedSink], way: int
) -> PlannedSink:
    """sinks: those before it; way: its own. Raises ConfigError for keys that a target does not know."""
    targets = []
    for target in config.target:
        run = TARGETS[target.type]
        check_fields(f"target {target.name!r}", target.options, load(run).Config)
        targets.append({"name": target.name, "run": run, **target.options})
    fields = {
        **config.outbox.model_dump(mode="json"),
        "alerts": [alert.model_dump(mode="json") for alert in config.alert],
        "targets": targets,
        "classes": list(classes),
        "pictures": next(filter(None, map(pictures_of, sinks)), {}).get("path"),
    }
    return PlannedSink(
        name=ALARMS_SINK,
        run=ALARMS,
        fields=fields,
        way=way,
        takes_frames=False,
        max_hz=None,
    )
