"""What a person sees in a terminal: a run's live table, the ledger at its end, a host's health."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.accounts.ledger import quantile_s
from pipeline.accounts.tally import Totals
from pipeline.doctor.checks import Row
from pipeline.face.happened import happened_tables
from pipeline.face.metrics import Rates
from pipeline.face.tables import empty_table
from pipeline.host.speed import Speed
from pipeline.supervision.supervisor import Supervisor

_REFRESH_S = 0.5
_TRUTH = ("true_positive", "false_positive", "false_negative")
_Hits = tuple[int, int, int]  # as many of each
_NAME_CHARS = 13  # of a camera; longer ones are cut, so that a row fits into 80 columns


class LiveTable:
    """One row a camera; made anew twice a second by the supervisor's tick."""

    def __init__(self, console: Console, may_draw: Callable[[], bool] = lambda: True) -> None:
        """may_draw: whether what was drawn before has arrived."""
        self._console, self._may_draw = console, may_draw
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._next = 0.0
        self._rates: Rates | None = None
        self._live_at: float | None = None
        self._lived_s = 0.0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While the run goes on. Where the output is no terminal nothing is drawn."""
        if not self._console.is_terminal:
            yield
            return
        with self._live:
            yield

    def say(self, line: str) -> None:
        """A line of its own, above the table while it is shown; from any thread."""
        self._console.print(Text(line))

    def tick(self, supervisor: Supervisor) -> None:
        """To be called by the supervisor."""
        now = time.monotonic()
        if supervisor.live and self._live_at is None:
            self._live_at = now
        if self._live_at is not None and not supervisor.stopping:
            self._lived_s = now - self._live_at
        if now < self._next:
            return
        self._next = now + _REFRESH_S
        if self._rates is None:
            self._rates = Rates(supervisor.ledger)
        self._rates.update()
        if self._console.is_terminal and self._may_draw():
            ends = supervisor.plan.detectors
            fps = {camera: self._rates.fps(end, camera) for camera, end in ends.items()}
            status = self._status(supervisor)
            self._live.update(Group(status, cameras_table(supervisor, fps)), refresh=True)

    def print_end(self, supervisor: Supervisor) -> None:
        """What is left to say after the run: the same table with mean rates, and the ledger."""
        fps = {}
        for camera, _ in supervisor.totals if self._lived_s else ():
            fps[camera] = supervisor.totals[camera, "detect"].delivered / self._lived_s
        self._console.print(cameras_table(supervisor, fps))
        for table in happened_tables(supervisor, _table):
            self._console.print(table)
        self._console.print(ledger_table(supervisor))
        if supervisor.sink_totals:
            self._console.print(sinks_table(supervisor))

    def _status(self, supervisor: Supervisor) -> Text:
        if supervisor.stopping:
            return Text("stopping: files are being closed", style="yellow")
        if supervisor.live:
            return Text(f"running for {self._lived_s:.0f} s; Ctrl-C ends it", style="green")
        waiting = [c.name for c in supervisor.children.values() if c.state != "ready"]
        ready = len(supervisor.children) - len(waiting)
        some = ", ".join(waiting[:3]) + (", …" if len(waiting) > 3 else "")
        text = f"starting: {ready} of {len(supervisor.children)} ready, waiting for {some}"
        return Text(text, style="yellow", no_wrap=True, overflow="ellipsis")


def _table(
    title: str, left: tuple[str, ...], right: tuple[str, ...], *, first: str = "camera"
) -> Table:
    """An empty table that fits into 80 columns: first the camera, then `left` and `right`."""
    table = empty_table(title)
    table.add_column(first, no_wrap=True, overflow="ellipsis", max_width=_NAME_CHARS)
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def cameras_table(supervisor: Supervisor, fps: dict[str, float]) -> Table:
    """Per camera, and for several of them together: what came, what was served and how fast, what was
    dropped and why, and, where the truth is known, how right it was."""
    known = [camera for camera, path in supervisor.totals if path == "detect"]
    truth = _truth(supervisor, known)
    right = ("frames", "served", "fps", "p50", "p99")
    table = _table(
        "cameras (p50 and p99: latency in ms)", (), (*right, "prec.", "recall") if truth else right
    )
    table.add_column("dropped")
    for camera in known:
        table.add_row(camera, *_cells(supervisor, [camera], fps, truth))
    if len(known) > 1:
        table.add_section()
        table.add_row("all", *_cells(supervisor, known, fps, truth))
    return table


def _cells(
    supervisor: Supervisor, cameras: list[str], fps: dict[str, float], truth: dict[str, _Hits]
) -> list[str]:
    """One row of some cameras."""
    totals = [supervisor.totals[camera, "detect"] for camera in cameras]
    places = supervisor.ledger.camera_index
    rows = [places[camera] for camera in cameras if camera in places]  # of those that are here
    latencies = supervisor.ledger["latency_seconds"][rows].sum(axis=0)
    quantiles = [quantile_s(latencies, q) for q in (0.5, 0.99)]
    rates = [fps[camera] for camera in cameras if camera in fps]
    cells = [
        str(sum(one.captured for one in totals)),
        str(sum(one.delivered for one in totals)),
        f"{sum(rates):.1f}" if rates else "–",
        *("–" if q is None else f"{q * 1e3:.0f}" for q in quantiles),
    ]
    if truth:
        hits, extra, missed = map(sum, zip(*(truth[camera] for camera in cameras), strict=True))
        cells += [f"{hits / (hits + n):.3f}" if hits + n else "–" for n in (extra, missed)]
    return [*cells, _reasons(totals)]


def _reasons(totals: list[Totals]) -> str:
    dropped = {why: sum(one.dropped[why] for one in totals) for why in totals[0].dropped}
    return ", ".join(f"{n} {why}" for why, n in dropped.items() if n) or "–"


def _truth(supervisor: Supervisor, cameras: list[str]) -> dict[str, _Hits]:
    """What was found, found for nothing, and missed, per camera; {} where no truth travelled along."""
    ledger, truth = supervisor.ledger, {}
    for camera in cameras:
        process = supervisor.plan.detectors.get(camera)
        if process is None or camera not in ledger.camera_index:
            truth[camera] = (0, 0, 0)  # it has left
            continue
        if not set(_TRUTH) <= ledger.layout.counters.get(process, {}).keys():
            return {}
        hits, extra, missed = (ledger.counted(process, name, camera) for name in _TRUTH)
        truth[camera] = (hits, extra, missed)
    return truth if any(map(any, truth.values())) else {}


def ledger_table(supervisor: Supervisor) -> Table:
    """captured = delivered + Σ dropped{reason} + in flight, for every camera and path."""
    table = _table("ledger", ("path",), ("captured", "delivered", "in flight", "error"))
    table.add_column("dropped")
    for (camera, path), totals in supervisor.totals.items():
        error = Text(str(totals.error), style="green" if totals.error == 0 else "bold red")
        table.add_row(
            camera, path, str(totals.captured), str(totals.delivered), str(totals.in_flight),
            error, _reasons([totals]),
        )  # fmt: skip
    return table


def sinks_table(supervisor: Supervisor) -> Table:
    """offered = taken + Σ lost{reason} + waiting, for every sink, of all cameras together."""
    columns = ("offered", "taken", "waiting", "error")
    table = _table("sinks", (), columns, first="sink")
    table.add_column("not taken")
    for sink, accounts in supervisor.accounts.of_sinks().items():
        error = sum(one.error for one in accounts)
        table.add_row(
            sink,
            str(sum(one.captured for one in accounts)),
            str(sum(one.delivered for one in accounts)),
            str(sum(one.in_flight for one in accounts)),
            Text(str(error), style="bold red" if error else "green"),
            _reasons(accounts),
        )
    return table


_VERDICTS = {"ok": "green", "note": "yellow", "fails": "bold red"}


def health_table(rows: list[Row]) -> Table:
    """What `doctor` found, and what to do about it."""
    table = empty_table()
    for name in ("host", "", "found", "what to do"):
        table.add_column(name)
    for row in rows:
        advice = "" if row.verdict == "ok" else row.advice
        table.add_row(row.what, Text(row.verdict, style=_VERDICTS[row.verdict]), row.found, advice)
    return table


def speed_table(speed: Speed) -> Table:
    """One row an engine and number of threads; milliseconds."""
    table = empty_table(f"measured with {speed.source}; a batch of b takes α + β b")
    columns = ("model", "device", "threads", "α ms", "β ms", "pict./s", "decode", "resize", "NMS")
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number < 2 else "right")
    for timing in speed.timings:
        cells = (
            timing.alpha_s, timing.beta_s, timing.capture_s, timing.preprocess_s,
            timing.postprocess_s,
        )  # fmt: skip
        alpha, beta, decode, resize, nms = (f"{1e3 * s:.2f}" for s in cells)
        rate = max(b / s for b, s in timing.seconds.items())
        table.add_row(
            os.path.basename(timing.model), timing.device, str(timing.threads), alpha, beta,
            f"{rate:.0f}", decode, resize, nms, style="bold" if timing == speed.best else "",
        )  # fmt: skip
    return table
