"""What `events` is asked for and how it answers, of one machine and of a fleet."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from pipeline.face.happened import print_events
from pipeline.face.moments import wall_ns

Camera = Annotated[str | None, typer.Option(help="of this camera")]
Label = Annotated[str | None, typer.Option("--class", help="of this class")]
Place = Annotated[str | None, typer.Option("--zone", help="in this zone, at this line")]
Kind = Annotated[str | None, typer.Option(help="crossed, entered, loitering, …")]
Since = Annotated[str | None, typer.Option(help="2h (ago), 10:30, 2026-11-22T10:30")]
Until = Annotated[str | None, typer.Option(help="as --since")]
Limit = Annotated[int, typer.Option(min=1, help="so many of the newest")]
Each = Annotated[bool, typer.Option("--each", help="every happening, not every object")]
JsonLines = Annotated[bool, typer.Option("--json", help="for programs: JSON Lines")]


def between(since: str | None, until: str | None) -> dict[str, int | None]:
    """The moments as a store takes them. Raises ConfigError."""
    return {
        "since_ns": wall_ns("--since", since) if since else None,
        "until_ns": wall_ns("--until", until) if until else None,
    }


def tell(rows: Iterable[dict[str, Any]], *, each: bool, as_json: bool) -> None:
    """Print incidents, or each happening."""
    if not as_json:
        print_events(list(rows), each=each)
        return
    for row in rows:
        print(json.dumps(row, ensure_ascii=False))
