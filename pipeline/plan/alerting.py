"""Sections about alarms: what is one and when, who is told, and what keeps it until they know."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from pipeline.errors import ConfigError
from pipeline.happenings import KINDS
from pipeline.plan.mistakes import SHARE
from pipeline.plan.scenery import LineConfig, ZoneConfig
from pipeline.plan.section import BOOL, NAME, NAMED, Section, Share, WithOptions, field

TargetType = Literal["webhook", "mqtt", "apprise", "file"]
_TARGETS = " or ".join(map(repr, get_args(TargetType)))


class AlertConfig(Section):
    """One `[[alert]]`. What is None holds for all."""

    name: str = field(..., NAMED, pattern=NAME)
    kinds: tuple[str, ...] = field(..., f"a list of {', '.join(KINDS)}", min_length=1)
    to: tuple[str, ...] = field(..., "a list of names of targets", min_length=1)
    cameras: tuple[str, ...] | None = field(None, "a list of names of cameras", min_length=1)
    zones: tuple[str, ...] | None = field(None, "a list of names of zones", min_length=1)
    lines: tuple[str, ...] | None = field(None, "a list of names of lines", min_length=1)
    directions: tuple[str, ...] | None = field(None, "a list of directions", min_length=1)
    classes: tuple[str, ...] | None = field(None, "a list of class names", min_length=1)
    min_score: Share = field(0.0, SHARE)
    above: int | None = field(None, "a whole number >= 0", ge=0)  # of objects in a zone; crowded
    when: tuple[str, ...] | None = field(
        None, "a list like ['mon-fri 18:00-06:00', 'sat,sun 00:00-24:00']", min_length=1
    )  # None: always
    time_zone: str | None = field(None, "a time zone like 'Europe/Berlin'", min_length=1)
    armed: bool = field(True, BOOL)
    # of the same thing by the same object
    cooldown_s: float = field(60.0, "a number of seconds within 0..86400", ge=0, le=86_400)


class TargetConfig(WithOptions):
    """One `[[target]]`; its options are those of the target's own class."""

    name: str = field(..., NAMED, pattern=NAME)
    type: TargetType = field(..., _TARGETS)


class OutboxConfig(Section):
    """`[outbox]`: what waits for its target."""

    path: Path = field(Path("outbox.db"), "a file")
    max_age_h: float = field(72.0, "a number of hours > 0", gt=0)  # what waits longer is given up
    max_mb: float = field(64.0, "a number of megabytes > 0", gt=0)  # and of what is more the oldest
    keep_days: float = field(30.0, "a number of days >= 1", ge=1)  # that what has ended is known


def check_alerts(
    alerts: Sequence[AlertConfig],
    targets: Sequence[TargetConfig],
    zones: Sequence[ZoneConfig],
    lines: Sequence[LineConfig],
    cameras: Sequence[str],
    file: str,
) -> None:
    """Raises ConfigError for a name that is used twice, or of something that there is not."""
    for kind, sections in (("alert", alerts), ("target", targets)):
        names = [section.name for section in sections]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ConfigError(f"{file}: {kind} {twice!r}: the name is used twice; give one another")
    for alert in alerts:
        where = f"{file}: alert {alert.name!r}"
        of = [camera for camera in cameras if camera in (alert.cameras or cameras)]
        mine = [line for line in lines if line.camera in of]
        known: Mapping[str, Sequence[str]] = {
            "kinds": KINDS,
            "to": [target.name for target in targets],
            "cameras": cameras,
            "zones": [zone.name for zone in zones if zone.camera in of],
            "lines": [line.name for line in mine],
            "directions": [name for line in mine for name in (line.to_right, line.to_left)],
        }
        for key, there in known.items():
            for name in getattr(alert, key) or ():
                if name not in there:
                    raise ConfigError(f"{where}: {_unknown(key, name, there)}")


def with_limits(
    zones: Sequence[ZoneConfig], alerts: Sequence[AlertConfig], file: str
) -> tuple[ZoneConfig, ...]:
    """The zones with the limits that alerts are above. Raises ConfigError where one can't be kept."""
    limited = {(zone.camera, zone.name): zone for zone in zones}
    for alert in alerts:
        if alert.above is None:
            continue
        where = f"{file}: alert {alert.name!r}: above"
        if "crowded" not in alert.kinds:
            raise ConfigError(f"{where}: it says when a zone is crowded; add 'crowded' to kinds")
        for key, zone in limited.items():
            if zone.camera not in (alert.cameras or (zone.camera,)):
                continue
            if zone.name not in (alert.zones or (zone.name,)):
                continue
            if zone.max_objects not in (None, alert.above):
                raise ConfigError(
                    f"{where}: zone {zone.name!r} has the limit {zone.max_objects} already; "
                    "name its polygon a second time, as another zone"
                )
            limited[key] = zone.model_copy(update={"max_objects": alert.above})
    return tuple(limited.values())


_WORDS = {"to": "target", "kinds": "kind of happening"}


def _unknown(key: str, name: str, there: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, there, 1)
    listed = f"there are {', '.join(dict.fromkeys(there))}" if there else "there is none at all"
    hint = f"did you mean {close[0]!r}?" if close else listed
    return f"{key}: there is no {_WORDS.get(key, key.removesuffix('s'))} {name!r}; {hint}"
