"""What a machine runs of the run of all cameras: the tables of its own cameras, and what speaks of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pipeline.happenings import KINDS
from pipeline.plan.scenery import LineConfig

Table = dict[str, Any]

_HERE = "{machine}"  # in texts of sinks, targets and the outbox: the name of the machine
_DIRECTIONS = ("to_right", "to_left")
_IN_ZONES = ("entered", "left", "loitering", "crowded", "uncrowded")
_HAPPEN_AT: dict[str, Collection[str]] = {
    "cameras": KINDS,
    "zones": _IN_ZONES,
    "lines": ("crossed",),
    "directions": ("crossed",),
}


def share(tables: Table, machine: str, cameras: Collection[str], port: int) -> Table:
    """tables: of a run that was checked; port: of its metrics, where they are wanted."""
    mine = dict(tables)
    mine["camera"] = [table for table in tables["camera"] if table["name"] in cameras]
    for kind in tables.keys() & {"zone", "line"}:
        mine[kind] = [table for table in tables[kind] if table["camera"] in cameras]
    if "overlap" in tables:
        views = ({**view, "zones": _zones_here(view, cameras)} for view in tables["overlap"])
        mine["overlap"] = [view for view in views if len(view["zones"]) > 1]
    if "alert" in tables:
        alerts = (_alert(alert, cameras, mine) for alert in tables["alert"])
        mine["alert"] = [alert for alert in alerts if alert is not None]
    for kind in tables.keys() & {"sink", "target"}:
        mine[kind] = [_named_after(machine, table) for table in tables[kind]]
    if "outbox" in tables:
        mine["outbox"] = _named_after(machine, tables["outbox"])
    if tables.get("metrics", {}).get("enabled", True):
        mine["metrics"] = {**tables.get("metrics", {}), "port": port}
    return mine


def _named_after(machine: str, table: Table) -> Table:
    return {
        key: value.replace(_HERE, machine) if isinstance(value, str) else value
        for key, value in table.items()
    }


def _zones_here(overlap: Table, cameras: Collection[str]) -> list[str]:
    return [zone for zone in overlap["zones"] if zone.partition("/")[0] in cameras]


def _alert(alert: Table, cameras: Collection[str], mine: Table) -> Table | None:
    """With those of its cameras and places that are here; None: nothing of it can happen here.

    Where none of its zones is here, what happens in zones is not of it, and so with lines.
    """
    of = [camera for camera in alert.get("cameras", cameras) if camera in cameras]
    lines = [line for line in mine.get("line", []) if line["camera"] in of]
    defaults = {key: LineConfig.model_fields[key].default for key in _DIRECTIONS}
    here = {
        "cameras": of,
        "zones": [zone["name"] for zone in mine.get("zone", []) if zone["camera"] in of],
        "lines": [line["name"] for line in lines],
        "directions": [{**defaults, **line}[key] for line in lines for key in _DIRECTIONS],
    }
    kept = {key: [name for name in alert[key] if name in here[key]] for key in here if key in alert}
    gone = {key for key, names in kept.items() if not names}
    kinds = [k for k in alert["kinds"] if not any(k in _HAPPEN_AT[key] for key in gone)]
    if not of or not kinds:
        return None
    if "crossed" not in kinds:
        gone |= {"lines", "directions"}
    if "crowded" not in kinds:
        gone.add("above")
    return {k: v for k, v in {**alert, **kept, "kinds": kinds}.items() if k not in gone}
