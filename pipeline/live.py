"""What a person sees of a run in a terminal: a live table, and the ledger at its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.ledger import quantile_s
from pipeline.metrics import Rates
from pipeline.supervisor import Supervisor

_REFRESH_S = 0.5
_TRUTH = ("true_positive", "false_positive", "false_negative")


class LiveTable:
    """One row a camera; made anew twice a second by the supervisor's tick."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._next = 0.0
        self._rates: Rates | None = None

    @contextmanager
    def shown(self) -> Iterator[LiveTable]:
        """While the run goes on. Where the output is no terminal nothing is drawn."""
        if not self._console.is_terminal:
            yield self
            return
        with self._live:
            yield self

    def tick(self, supervisor: Supervisor) -> None:
        """To be called by the supervisor."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _REFRESH_S
        if self._rates is None:
            self._rates = Rates(supervisor.ledger)
        self._rates.update()
        if self._console.is_terminal:
            self._live.update(self._render(supervisor), refresh=True)

    def _render(self, supervisor: Supervisor) -> Group:
        waiting = [c.name for c in supervisor.children.values() if c.state != "ready"]
        if supervisor.live or not waiting:
            status = Text("running", style="green") if not supervisor.stopping else Text("stopping")
        else:
            status = Text(f"starting: {', '.join(waiting)}", style="yellow")
        return Group(cameras_table(supervisor, self._rates), status)


def cameras_table(supervisor: Supervisor, rates: Rates | None = None) -> Table:
    """Per camera: what came, what was served and how fast, what was dropped and why, and, where the
    truth is known, how right it was."""
    table = Table(title="cameras", title_justify="left")
    for name in ("camera", "captured", "served", "fps", "p50 ms", "p99 ms", "dropped"):
        table.add_column(name, justify="left" if name in ("camera", "dropped") else "right")
    truth = _truth(supervisor)
    if truth:
        table.add_column("precision", justify="right")
        table.add_column("recall", justify="right")
    for row, camera in enumerate(supervisor.plan.cameras):
        totals = supervisor.totals.get((camera, "detect"))
        if totals is None:
            continue
        cells = supervisor.ledger["latency_seconds"][row]
        quantiles = [quantile_s(cells, q) for q in (0.5, 0.99)]
        dropped = ", ".join(f"{n} {reason}" for reason, n in totals.dropped.items() if n)
        fps = f"{rates.fps('postprocess', camera):.1f}" if rates else ""
        values = [
            camera,
            str(totals.captured),
            str(totals.delivered),
            fps,
            *("–" if q is None else f"{q * 1e3:.1f}" for q in quantiles),
            dropped or "–",
        ]
        if truth:
            values += truth[camera]
        table.add_row(*values)
    return table


def _truth(supervisor: Supervisor) -> dict[str, list[str]]:
    """Precision and recall per camera where truth travelled along."""
    index = supervisor.ledger.counter_index
    cells = supervisor.ledger["counters"]
    texts = {}
    seen = 0
    for camera in supervisor.plan.cameras:
        keys = [("postprocess", name, camera) for name in _TRUTH]
        if not all(key in index for key in keys):
            return {}
        hits, extra, missed = (int(cells[index[key]]) for key in keys)
        seen += hits + extra + missed
        texts[camera] = [
            f"{hits / (hits + extra):.3f}" if hits + extra else "–",
            f"{hits / (hits + missed):.3f}" if hits + missed else "–",
        ]
    return texts if seen else {}


def print_ledger(console: Console, supervisor: Supervisor) -> None:
    """captured = delivered + Σ dropped{reason} + in flight, for every camera and path."""
    table = Table(title="ledger", title_justify="left")
    for name in ("camera", "path", "captured", "delivered", "dropped", "in flight", "error"):
        table.add_column(name, justify="left" if name in ("camera", "path", "dropped") else "right")
    for (camera, path), totals in supervisor.totals.items():
        reasons = ", ".join(f"{n} {reason}" for reason, n in totals.dropped.items() if n)
        error = Text(str(totals.error), style="green" if totals.error == 0 else "bold red")
        table.add_row(
            camera, path, str(totals.captured), str(totals.delivered), reasons or "–",
            str(totals.in_flight), error,
        )  # fmt: skip
    console.print(table)
