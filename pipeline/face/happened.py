"""What happened, as tables: at the end of a run, and of what a store has kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.accounts.ledger import quantile_s
from pipeline.face.tables import empty_table
from pipeline.supervision.supervisor import Supervisor

_TRUE = "true_"
_LEFT = "(left)"  # cameras that are not here any more, together
NewTable = Callable[..., Table]


def happened_tables(supervisor: Supervisor, new_table: NewTable) -> Iterator[Table]:
    """Nothing where nothing of the kind was looked for; new_table: as `live._table`."""
    counts = _counts(supervisor, "track")
    if counts:
        yield _objects(supervisor, counts, new_table)
    crossed = _crossed(_counts(supervisor, "scene"))
    if crossed:
        yield _lines(crossed, new_table)
    if delivered := _counts(supervisor, "sink.alarms"):
        yield _alarms(supervisor, delivered, new_table)


def _counts(supervisor: Supervisor, process: str) -> Counter[tuple[str, str]]:
    """(name, camera) of every counter of a process; empty where there is no such process."""
    spec, ledger = supervisor.plan.by_name.get(process), supervisor.ledger
    counts: Counter[tuple[str, str]] = Counter()
    for name in spec.counters if spec else ():
        for camera in spec.cameras if spec else ():
            counts[name, camera] = ledger.counted(process, name, camera)
        here = sum(n for (one, _), n in counts.items() if one == name)
        if left := ledger.counted_in_all(process, name) - here:
            counts[name, _LEFT] = left
    return counts


def _objects(
    supervisor: Supervisor, counts: Counter[tuple[str, str]], new_table: NewTable
) -> Table:
    judged = any(
        n
        for spec in supervisor.plan.processes
        for (name, _), n in _counts(supervisor, spec.name).items()
        if name == "true_positive"
    )
    columns = ("objects", "switched ids") if judged else ("objects",)
    table = new_table("objects that were followed", (), columns)
    left = {camera for _, camera in counts if camera == _LEFT}
    for camera in (*supervisor.plan.cameras, *left):
        names = ("tracks", "identity_switches")[: len(columns)]
        table.add_row(camera, *(str(counts[name, camera]) for name in names))
    return table


def _crossed(counts: Counter[tuple[str, str]]) -> dict[tuple[str, str, str], list[int]]:
    """(camera, line, direction) → counted, true; where anything crossed."""
    crossed: dict[tuple[str, str, str], list[int]] = {}
    for (name, camera), n in counts.items():
        kind, *rest = name.split(":")
        if kind.removeprefix(_TRUE) == "crossed" and n:
            row = crossed.setdefault((camera, rest[0], rest[1]), [0, 0])
            row[kind.startswith(_TRUE)] += n
    return crossed


def _lines(crossed: dict[tuple[str, str, str], list[int]], new_table: NewTable) -> Table:
    judged = any(true for _, true in crossed.values())
    table = new_table(
        "lines", ("line", "direction"), ("crossed", "true") if judged else ("crossed",)
    )
    for place, numbers in sorted(crossed.items()):
        table.add_row(*place, *map(str, numbers[: 1 + judged]))
    if judged and len(crossed) > 1:
        table.add_section()
        totals = (sum(column) for column in zip(*crossed.values(), strict=True))
        table.add_row("all", "", "", *map(str, totals))
    return table


def _alarms(supervisor: Supervisor, counts: Counter[tuple[str, str]], new_table: NewTable) -> Table:
    columns = ("queued", "delivered", "given up", "failed")
    title = "alarms (failed: attempts; p50 and p99: ms from the picture on)"
    table = new_table(title, (), (*columns, "p50", "p99"), first="target")
    sums: Counter[tuple[str, str]] = Counter()
    for (name, _), n in counts.items():
        kind, _, rest = name.partition(":")
        if kind == "delivery":
            target, _, outcome = rest.partition(":")
            sums[target, outcome] += n
    for target in dict.fromkeys(target for target, _ in sums):
        cells, _ = supervisor.ledger.histogram("sink.alarms", f"lateness:{target}")
        late_s = [quantile_s(cells, q) for q in (0.5, 0.99)]
        numbers = [str(sums[target, column]) for column in columns]
        table.add_row(target, *numbers, *("–" if s is None else f"{s * 1000:.0f}" for s in late_s))
    return table


def print_events(rows: list[dict[str, Any]], *, each: bool) -> None:
    """Incidents, or each happening, as a table in local time; what is not over has no duration yet."""
    if not rows:
        Console().print("nothing happened")
        return
    table = empty_table()
    long = ("where", "what")
    whose = ["machine", "camera"] if any("machine" in row for row in rows) else ["camera"]
    for name in ("time", *whose, "object", "class", "seconds", *long):
        right = name in ("object", "seconds")
        table.add_column(name, no_wrap=name not in long, justify="right" if right else "left")
    for row in rows:
        cells = _happening(row) if each else _incident(row)
        moment = datetime.fromisoformat(row["time" if each else "start"]).astimezone()
        who = (row.get(key) for key in (*whose, "object", "label"))
        texts = ("–" if cell in (None, "") else str(cell) for cell in (*who, *cells))
        table.add_row(f"{moment:%m-%d %H:%M:%S}", *texts)
    Console().print(table)


def _happening(row: dict[str, Any]) -> tuple[Any, ...]:
    what = " ".join(str(row[key]) for key in ("kind", "direction", "count", "cause") if key in row)
    return row.get("seconds"), row.get("place"), what


def _incident(row: dict[str, Any]) -> tuple[Any, ...]:
    kinds = (kind for kind in row["kinds"] if kind not in ("appeared", "gone"))
    seconds = f"{row['seconds']:.1f}" if row["end"] else ""
    return seconds, ", ".join(row["places"]), ", ".join(kinds)
