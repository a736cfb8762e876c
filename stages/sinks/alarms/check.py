"""From the configuration to rules and targets; every mistake is one sentence."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, ResourceError
from stages.sinks.alarms import outbox
from stages.sinks.alarms.rules import IN_ZONES, OF_OBJECTS, Rule
from stages.sinks.alarms.schedule import parse
from stages.sinks.alarms.target import Target
from stages.sinks.files import check_folder


def rule_of(alert: dict[str, Any]) -> Rule:
    """One `[[alert]]`. Raises ConfigError for a schedule that can't be."""
    fields: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in alert.items()
    }
    when, zone = fields.pop("when", None), fields.pop("time_zone", None)
    if when is not None:
        where = f"alert {alert['name']!r}"
        if zone is None:
            raise ConfigError(
                f"{where}: when needs a time_zone; write one like time_zone = 'Europe/Berlin'"
            )
        try:
            fields["schedule"] = parse(when, zone)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from None
    return Rule(**fields)


def target_of(fields: dict[str, Any]) -> Target:
    """One `[[target]]`; run: its class, "module:Class". Loads no library yet."""
    own = dict(fields)
    name, run = own.pop("name"), own.pop("run")
    module, _, attribute = run.partition(":")
    cls = getattr(importlib.import_module(module), attribute)
    target: Target = cls(name, cls.Config(**own))
    return target


def check_rules(alerts: Sequence[dict[str, Any]], classes: Sequence[str]) -> None:
    """Raises ConfigError. Cameras, places and targets were found to be there."""
    for rule in map(rule_of, alerts):
        where = f"alert {rule.name!r}"
        for name in rule.classes or ():
            if name not in classes:
                close = difflib.get_close_matches(name, classes, 1)
                known = f"it knows {', '.join(classes[:10])}"
                hint = f"did you mean {close[0]!r}?" if close else known
                raise ConfigError(f"{where}: classes: the model has no class {name!r}; {hint}")
        _check_filters(where, rule)


def _check_filters(where: str, rule: Rule) -> None:
    """A filter that a kind has nothing for would let all of that kind through, which nobody means."""
    filters = (
        ("classes", rule.classes is not None, OF_OBJECTS),
        ("min_score", rule.min_score > 0, OF_OBJECTS),
        ("zones", rule.zones is not None, (*IN_ZONES, *(("crossed",) if rule.lines else ()))),
        ("lines", rule.lines is not None, ("crossed", *(IN_ZONES if rule.zones else ()))),
        ("directions", rule.directions is not None, ("crossed",)),
    )
    for key, is_set, kinds in filters:
        for kind in rule.kinds:
            if is_set and kind not in kinds:
                raise ConfigError(
                    f"{where}: {key} say nothing of {kind!r}; make an alert of its own for that"
                )


def check_targets(targets: Sequence[dict[str, Any]], *, has_pictures: bool) -> None:
    """Raises ConfigError."""
    for fields in targets:
        target = target_of(fields)
        library, extra = target.needs
        if library and importlib.util.find_spec(library) is None:
            raise ConfigError(
                f"target {target.name!r}: it needs {library}; pip install 'manyeyes[{extra}]'"
            )
        if target.picture and not has_pictures:
            raise ConfigError(
                f"target {target.name!r}: picture: nobody keeps pictures; "
                "add a [[sink]] with type = 'store', or leave picture out"
            )
        try:
            target.check(target.config)
        except ConfigError as error:
            raise type(error)(f"target {target.name!r}: {error}") from error


def check_file(path: str) -> None:
    """Raises ConfigError, ResourceError for what can't be an outbox."""
    if Path(path).is_dir():
        raise ResourceError(f"[outbox]: wanted a file at {path}, got a folder")
    check_folder("alarms", Path(path).parent)
    if Path(path).exists():
        outbox.check(path)
