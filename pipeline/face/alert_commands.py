"""The command about alerts: what they will do in the coming days, and what they would have done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline.errors import ConfigError
from pipeline.face.moments import seconds_of, wall_ns
from pipeline.face.scene_commands import store_of
from pipeline.face.tables import empty_table
from pipeline.plan import config as configuration
from pipeline.plan.config import Config
from pipeline.plan.loading import load
from pipeline.plan.standard import make

app = typer.Typer()
_PREVIEW = "stages.sinks.alarms.preview"
_PAGE_NS = 3_600_000_000_000  # of the past, that is read at a time


@app.command()
def alerts(
    config: Annotated[Path, typer.Argument(help="a TOML file")],
    coming: Annotated[str, typer.Option("--next", help="of the calendar: 7d, 12h, 2w")] = "7d",
    past: Annotated[str | None, typer.Option(help="of the dry run; none: as --next")] = None,
    at: Annotated[str | None, typer.Option("--from", help="where both begin; none: now")] = None,
    each: Annotated[bool, typer.Option("--each", help="every alarm of the past")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """When alerts hold in the coming days, and what they would have said of the past days in the store.

    Tells nobody. What is wrong with the configuration is said as by `check`.

    Example: manyeyes alerts street.toml --next 7d
    """
    checked = configuration.load(config)
    if not checked.alert:
        raise ConfigError(f"{config.name}: there is no alert; add an [[alert]] and a [[target]]")
    make(checked)  # which refuses what can't be
    begin_ns = wall_ns("--from", at or "0s")
    length_s, past_s = (seconds_of(*o) for o in (("--next", coming), ("--past", past or coming)))
    begin_s = begin_ns // 1_000_000_000
    sections = [alert.model_dump(mode="json") for alert in checked.alert]
    calendar = list(load(f"{_PREVIEW}:calendar")(sections, begin_s, begin_s + length_s))
    told, why_not = None, ""
    try:
        store = str(store_of(config))
        happened = _happened(store, begin_ns - past_s * 1_000_000_000, begin_ns)
        told = list(load(f"{_PREVIEW}:rehearsal")(sections, happened))
    except ConfigError as error:
        why_not = str(error)
    if as_json:
        print(json.dumps({"calendar": calendar, "past": told}, ensure_ascii=False))
        return
    _print_calendar(checked, calendar)
    if told is None:
        Console().print(f"no dry run: {why_not}", markup=False, highlight=False)
        return
    _print_past(checked, told)
    for row in told if each else ():
        print(f"{_shown(row['time'])}  {row['alert']}: {row['text']} ({row['verdict']})")


def _happened(store: str, since_ns: int, until_ns: int) -> Iterator[dict[str, Any]]:
    """The happenings of a store, the oldest first; never more than an hour of them at once."""
    query = load("stages.sinks.store.query:happenings")
    for begin_ns in range(since_ns, until_ns, _PAGE_NS):
        end_ns = min(begin_ns + _PAGE_NS, until_ns)
        yield from reversed(
            list(query(store, since_ns=begin_ns, until_ns=end_ns, limit=1_000_000_000))
        )


def _table(title: str, left: tuple[str, ...], right: tuple[str, ...]) -> Table:
    table = empty_table(title)
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _print_calendar(config: Config, calendar: list[dict[str, Any]]) -> None:
    table = _table("the coming days, in the time zone of each", ("alert", "from", "to"), ("hours",))
    for alert in config.alert:
        rows = [row for row in calendar if row["alert"] == alert.name]
        for row in rows:
            begin, end = _shown(row["begin"]), _shown(row["end"])
            table.add_row(alert.name, begin, end, f"{row['hours']:g}")
        if not rows:
            table.add_row(alert.name, "never" if alert.armed else "disarmed", "", "")
    Console().print(table)


def _print_past(config: Config, told: list[dict[str, Any]]) -> None:
    columns = ("alarm", "not now", "disarmed", "cool-down")
    table = _table("the past days, had it been so", ("alert",), columns)
    counts = load(f"{_PREVIEW}:verdicts")(told)
    for alert in config.alert:
        table.add_row(alert.name, *(str(counts[alert.name, column]) for column in columns))
    Console().print(table)


def _shown(moment: str) -> str:
    return f"{datetime.fromisoformat(moment):%a %Y-%m-%d %H:%M %z}"
