"""`manyeyes explain`: gathers what was kept around a moment, and says why."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import ConfigError
from pipeline.face.moments import wall_ns
from pipeline.face.reasons import Facts, Rule, reasons
from pipeline.face.scene_commands import camera_of, store_of
from pipeline.happenings import HEALTH
from pipeline.plan import config as configuration
from pipeline.plan.config import Config
from pipeline.plan.loading import load

app = typer.Typer()
QUERY = "stages.sinks.store.query:"
READ_FACTS = "stages.detector.bundle:read_facts"
ALARMS = "stages.sinks.alarms."
_MANY = 1_000_000
_COOLDOWNS = 10  # so many before the moment; after a pause of one it is known when the next began


@app.command()
def explain(
    config: Annotated[Path, typer.Argument(help="a TOML file with a store")],
    at: Annotated[str, typer.Option(help="03:12 (today), 2h (ago), 2026-11-22T03:12")],
    camera: Annotated[str | None, typer.Option(help="which; none: the first")] = None,
    within_s: Annotated[
        float, typer.Option("--within", min=1, help="seconds before and after that count")
    ] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="for programs: JSON Lines")] = False,
) -> None:
    """Why there was, or was not, an alarm at a moment, out of the store and the outbox.

    Example: manyeyes explain street.toml --camera gate --at 03:12
    """
    checked = configuration.load_to_look(config)
    name = camera_of(checked, camera).name
    facts = gather(checked, str(store_of(config)), name, wall_ns("--at", at), int(within_s * 1e9))
    found = list(reasons(facts))
    if as_json:
        for reason in found:
            print(json.dumps({"camera": name, **asdict(reason)}, ensure_ascii=False))
        return
    moment = datetime.fromtimestamp(wall_ns("--at", at) / 1e9).astimezone()
    print(f"camera {name!r}, {moment:%Y-%m-%d %H:%M:%S}, {within_s:g} s around it:")
    for reason in found:
        print(f"  {reason.text}")


def gather(config: Config, store: str, camera: str, at_ns: int, within_ns: int) -> Facts:
    """What is known of a camera around a moment. Raises ConfigError, ResourceError for broken files."""
    begin_ns, end_ns = at_ns - within_ns, at_ns + within_ns
    happenings = load(f"{QUERY}happenings")
    around = {"camera": camera, "since_ns": begin_ns, "until_ns": end_ns, "limit": _MANY}
    of_camera: list[dict[str, Any]] = []
    for kind in HEALTH:
        of_camera += happenings(store, camera=camera, kind=kind, until_ns=end_ns, limit=20)
    of_camera.sort(key=lambda one: one["time"], reverse=True)
    then = list(happenings(store, **around))
    newest: dict[str, Any] = next(happenings(store, camera=camera, until_ns=end_ns, limit=1), {})
    rules = list(_rules(config, store, camera, begin_ns, end_ns))
    alarms = [
        f"{happening}:{rule.name}"
        for rule in rules
        for happening, _, verdict in rule.verdicts
        if verdict == "alarm"
    ]
    return Facts(
        camera=camera,
        minutes=load(f"{QUERY}minutes")(store, camera, begin_ns, end_ns),
        health=[
            one
            for one in of_camera
            if one["run"] == newest.get("run")  # what an earlier run knew is not known any more
            and (one["kind"] != "moved" or _ns(one["time"]) >= begin_ns)
        ],
        happenings=[one for one in then if one["kind"] not in HEALTH],
        incidents=list(load(f"{QUERY}incidents")(store, **around)),
        threshold=_threshold(config, camera),
        per_class=config.model.per_class,
        rules=rules,
        deliveries=_deliveries(config, alarms),
    )


def _threshold(config: Config, name: str) -> float | None:
    """Of the model that looks at a camera, for classes without their own; None: its file is not here."""
    if config.model.score_threshold is not None:
        return config.model.score_threshold
    path = camera_of(config, name).model or config.model.path
    with contextlib.suppress(ConfigError):
        threshold: float = load(READ_FACTS)(str(path)).defaults.score_threshold
        return threshold
    return None


def _rules(config: Config, store: str, camera: str, begin_ns: int, end_ns: int) -> Iterator[Rule]:
    """Each alert with what it said of what happened then. Cool-downs begin with what was before."""
    rule_of, judge = load(f"{ALARMS}check:rule_of"), load(f"{ALARMS}rules:judge")
    sentence = load(f"{ALARMS}rules:sentence")
    for alert in config.alert:
        rule = rule_of(alert.model_dump(mode="json"))
        before_ns = begin_ns - _COOLDOWNS * int(alert.cooldown_s * 1e9)
        known = load(f"{QUERY}happenings")(
            store, camera=camera, since_ns=before_ns, until_ns=end_ns, limit=_MANY
        )
        timed = [(one, _ns(one["time"])) for one in known]
        timed.sort(key=lambda pair: pair[1])
        verdicts = [
            (one["id"], sentence(one), verdict)
            for _, one, verdict in judge([rule], timed, {})
            if _ns(one["time"]) >= begin_ns
        ]
        yield Rule(
            name=alert.name, kinds=alert.kinds, cameras=alert.cameras, zones=alert.zones,
            lines=alert.lines, classes=alert.classes, min_score=alert.min_score, verdicts=verdicts,
        )  # fmt: skip


def _deliveries(config: Config, alarms: list[str]) -> dict[str, dict[str, str]]:
    path = Path(config.outbox.path)
    if not alarms or not path.exists():
        return {}
    found: dict[str, dict[str, str]] = load(f"{ALARMS}outbox:states")(str(path), alarms)
    return found


def _ns(time: str) -> int:
    try:
        return int(datetime.fromisoformat(time).timestamp() * 1_000_000) * 1000
    except ValueError as error:
        raise ConfigError(f"the store has a time that is none: {time!r}") from error
