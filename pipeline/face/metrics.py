"""The ledger as Prometheus metrics, on one endpoint with /healthz and /readyz. The only exporter.

Every series is fixed by the plan: labels are names from the configuration, never a pid or a URL. All
numbers live in the ledger's memory, so that a restarted stage changes nothing but its own counters.
"""

from __future__ import annotations

import json
import platform
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Set
from http.server import BaseHTTPRequestHandler
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from pipeline.accounts.books import Accounts
from pipeline.accounts.layout import MAX_BATCH
from pipeline.accounts.ledger import Ledger
from pipeline.accounts.tally import Totals
from pipeline.errors import ResourceError
from pipeline.face import stage_metrics
from pipeline.face.bounded import BoundedServer
from pipeline.face.stage_metrics import add_histogram
from pipeline.plan.graph import Plan, ProcessSpec

_RATE_WINDOW_S = 5.0
_STUCK_S = 10.0  # a supervisor whose loop has not turned for so long is not alive


class Run(Protocol):
    """What the exporter looks at; the supervisor."""

    accounts: Accounts
    ledger: Ledger
    live: bool

    @property
    def plan(self) -> Plan:
        """What runs."""

    @property
    def totals(self) -> dict[tuple[str, str], Totals]:
        """By camera and path."""

    @property
    def sink_totals(self) -> dict[tuple[str, str], Totals]:
        """By camera and sink."""

    @property
    def stuck_s(self) -> float:
        """Seconds since its main loop last turned."""

    def stage_states(self) -> Iterable[tuple[str, bool, int, bool]]:
        """(name, up, restarts, breaker open) of every process."""

    def cameras_missed(self) -> set[str]:
        """Cameras whose results do not arrive."""

    @property
    def paused(self) -> Set[str]:
        """Cameras that nobody reads, since somebody said so."""

    def engines(self) -> Iterable[tuple[str, str]]:
        """(name, what does its work) of every process that has told."""


class Rates:
    """Frames a second, over the last five seconds, of every process and camera."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._seen: deque[tuple[float, Any]] = deque()
        self._lock = threading.Lock()  # two may scrape at once

    def update(self) -> None:
        """To be called about once a second or more often."""
        with self._lock:
            now = time.monotonic()
            if self._seen and now - self._seen[-1][0] < 0.5:
                return
            self._seen.append((now, self._ledger["processed"].copy()))
            while len(self._seen) > 2 and now - self._seen[1][0] > _RATE_WINDOW_S:
                self._seen.popleft()

    def fps(self, process: str, camera: str) -> float:
        """0.0 until two updates were made."""
        with self._lock:
            if len(self._seen) < 2:
                return 0.0
            (t0, before), (t1, after) = self._seen[0], self._seen[-1]
        row, column = self._ledger.process_index.get(process), self._ledger.camera_index.get(camera)
        if row is None or column is None or after[row, column] < before[row, column]:
            return 0.0  # it is gone, or has just come into the place of another
        return float(after[row, column] - before[row, column]) / (t1 - t0)


def cameras_up(run: Run) -> dict[str, bool]:
    """Whether frames of a camera arrive: its source delivers, and the process that reads it lives."""
    down = {name for name, is_up, _, _ in run.stage_states() if not is_up}
    flags, rows = run.ledger["camera_up"], run.ledger.camera_index
    return {
        camera: bool(flags[rows[camera]]) and spec.name not in down
        for spec in run.plan.processes
        if spec.role == "source"
        for camera in spec.cameras
        if camera in rows
    }


class LedgerCollector(Collector):
    """Makes the metrics from the ledger at each scrape."""

    def __init__(self, run: Run, rates: Rates) -> None:
        self._run, self._rates = run, rates
        self._highest: dict[tuple[str, ...], int] = {}

    def collect(self) -> Iterator[Metric]:
        """All families; called by the registry."""
        yield from self._frames()
        yield from self._sinks()
        yield from self._stages()
        yield from self._cameras()
        yield from stage_metrics.counted(self._run.plan, self._run.accounts, self._risen)
        yield from stage_metrics.measured(self._run.plan, self._run.ledger)
        info = GaugeMetricFamily("manyeyes_build_info", "Version", labels=["version", "python"])
        info.add_metric([_version(), platform.python_version()], 1)
        yield info

    def _frames(self) -> Iterator[Metric]:
        frames = CounterMetricFamily(
            "manyeyes_frames",
            "Frames by fate; captured = delivered + dropped + in_flight",
            labels=["camera", "path", "outcome"],
        )
        flying = GaugeMetricFamily(
            "manyeyes_frames_in_flight", "Frames without a fate yet", labels=["camera", "path"]
        )
        dropped = CounterMetricFamily(
            "manyeyes_dropped", "Frames dropped, by reason", labels=["camera", "path", "reason"]
        )
        wrong = GaugeMetricFamily(
            "manyeyes_ledger_error",
            "Frames that nobody has and nobody ended, or that two ended; 0, or a bug",
        )
        for (camera, path), totals in self._run.totals.items():
            outcomes = {
                "captured": totals.captured,
                "delivered": totals.delivered,
                "dropped": sum(totals.dropped.values()),
            }
            for outcome, n in outcomes.items():
                frames.add_metric([camera, path, outcome], self._risen(n, camera, path, outcome))
            flying.add_metric([camera, path], totals.in_flight)
            for reason, n in totals.dropped.items():
                dropped.add_metric([camera, path, reason], self._risen(n, camera, path, "", reason))
        accounts = (*self._run.totals.values(), *self._run.sink_totals.values())
        wrong.add_metric([], sum(totals.error for totals in accounts))
        yield from (frames, flying, dropped, wrong)

    def _sinks(self) -> Iterator[Metric]:
        items = CounterMetricFamily(
            "manyeyes_sink_items",
            "What sinks were offered and have taken; offered = taken + lost + waiting",
            labels=["camera", "sink", "outcome"],
        )
        lost = CounterMetricFamily(
            "manyeyes_sink_lost",
            "What a sink has not taken, by reason",
            labels=["camera", "sink", "reason"],
        )
        waiting = GaugeMetricFamily(
            "manyeyes_sink_waiting", "On the way to a sink", labels=["camera", "sink"]
        )
        for (camera, process), totals in self._run.sink_totals.items():
            sink = process.removeprefix("sink.")
            for outcome, n in (("offered", totals.captured), ("taken", totals.delivered)):
                items.add_metric([camera, sink, outcome], self._risen(n, camera, process, outcome))
            for reason, n in totals.dropped.items():
                lost.add_metric([camera, sink, reason], self._risen(n, camera, process, "", reason))
            waiting.add_metric([camera, sink], totals.in_flight)
        yield from (items, lost, waiting)

    def _risen(self, n: int, *key: str) -> int:
        # A frame that was given up with a dead process may still be delivered, which takes one drop
        # back; to Prometheus a counter that falls is a restart from 0.
        self._highest[key] = max(n, self._highest.get(key, 0))
        return self._highest[key]

    def _stages(self) -> Iterator[Metric]:
        ledger = self._run.ledger
        up = GaugeMetricFamily("manyeyes_stage_up", "1: ready", labels=["stage"])
        restarts = CounterMetricFamily("manyeyes_restarts", "Restarts of a stage", labels=["stage"])
        breaker = GaugeMetricFamily(
            "manyeyes_breaker_open", "1: it keeps dying and is tried each 30 s", labels=["stage"]
        )
        for name, is_up, count, is_open in self._run.stage_states():
            up.add_metric([name], int(is_up))
            restarts.add_metric([name], count)
            breaker.add_metric([name], int(is_open))
        engine = GaugeMetricFamily(
            "manyeyes_engine_info", "What runs the model", labels=["stage", "engine"]
        )
        for name, about in self._run.engines():
            engine.add_metric([name, about], 1)
        yield from (up, restarts, breaker, engine)
        for cells, text in (
            ("stage_seconds", "Time in process() per item, or per batch"),
            ("wait_seconds", "Time from ready at the producer to process()"),
        ):
            family = HistogramMetricFamily(f"manyeyes_{cells}", text, labels=["stage"])
            for name, row in ledger.process_index.items():
                if ledger[cells][row].any():
                    add_histogram(
                        family, [name], ledger[cells][row], float(ledger[cells + "_sum"][row])
                    )
            yield family
        yield from self._batches()
        slots = GaugeMetricFamily("manyeyes_slots", "Slots of a pool", labels=["pool", "state"])
        torn = CounterMetricFamily("manyeyes_torn_frames", "Slots overwritten while read; 0")
        garbage = CounterMetricFamily("manyeyes_garbage_messages", "Bytes that were no message")
        for row, spec in self._rows():
            if spec.slots:
                slots.add_metric([spec.name, "free"], int(ledger["slots"][row, 0]))
                slots.add_metric([spec.name, "leased"], int(ledger["slots"][row, 1]))
        torn.add_metric([], int(ledger["torn"].sum()))
        garbage.add_metric([], int(ledger["garbage"].sum()))
        yield from (slots, torn, garbage)

    def _rows(self) -> Iterator[tuple[int, ProcessSpec]]:
        """The processes that run, with their rows in the ledger."""
        rows = self._run.ledger.process_index
        return ((rows[s.name], s) for s in self._run.plan.processes if s.name in rows)

    def _batches(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(
            "manyeyes_batch_size", "Pictures per batch", labels=["stage"]
        )
        sizes = [1, 2, 4, 8, 16, 32, 64]
        for row, spec in self._rows():
            if spec.role == "batch":
                counts = self._run.ledger["batch_size"][row]
                cumulative = np.cumsum(counts)
                buckets = [(str(float(size)), float(cumulative[size])) for size in sizes]
                buckets.append(("+Inf", float(cumulative[-1])))
                total = float((counts * np.arange(MAX_BATCH + 1, dtype=np.uint64)).sum())
                family.add_metric([spec.name], buckets, total)
        yield family

    def _cameras(self) -> Iterator[Metric]:
        ledger = self._run.ledger
        up = GaugeMetricFamily("manyeyes_camera_up", "1: frames arrive", labels=["camera"])
        paused = GaugeMetricFamily(
            "manyeyes_camera_paused", "1: nobody reads it, as was asked for", labels=["camera"]
        )
        latency = HistogramMetricFamily(
            "manyeyes_latency_seconds", "From capture to result", labels=["camera"]
        )
        fps = GaugeMetricFamily("manyeyes_fps", "Frames a second", labels=["camera", "stage"])
        self._rates.update()
        arriving = cameras_up(self._run)
        for camera, row in ledger.camera_index.items():
            if camera not in arriving:
                continue
            up.add_metric([camera], int(arriving[camera]))
            paused.add_metric([camera], int(camera in self._run.paused))
            cells = ledger["latency_seconds"][row]
            add_histogram(latency, [camera], cells, float(ledger["latency_seconds_sum"][row]))
            for spec in self._run.plan.processes:
                if camera in spec.cameras and spec.role != "batcher":
                    fps.add_metric([camera, spec.name], self._rates.fps(spec.name, camera))
        yield from (up, paused, latency, fps)


def _version() -> str:
    try:
        return version("manyeyes")
    except PackageNotFoundError:
        return "unknown"


class MetricsServer:
    """HTTP on a thread of its own: /metrics, /healthz (it lives), /readyz (results of all arrive)."""

    def __init__(self, run: Run, host: str, port: int, *, stuck_s: float = _STUCK_S) -> None:
        """port 0: any free one, told by `port`. Raises ResourceError if it can't be bound.

        stuck_s: /healthz is 503 when the supervisor's loop has not turned for so long.
        """
        self.rates = Rates(run.ledger)
        registry = CollectorRegistry()
        registry.register(LedgerCollector(run, self.rates))
        fields = {"run": run, "registry": registry, "stuck_s": stuck_s}
        handler = type("Handler", (_Handler,), fields)
        try:
            self._server = BoundedServer((host, port), handler)
        except OSError as error:
            raise ResourceError(
                f"[metrics]: {host}:{port} can't be bound: {error.strerror}; "
                "stop what uses it, or choose another port"
            ) from error
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Returns when the port is free."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    run: Run
    registry: CollectorRegistry
    stuck_s: float
    timeout = 10  # a client that sends nothing does not keep a thread

    def do_GET(self) -> None:
        path = self.path.split("?", 1)[0]
        if path == "/metrics":
            self._answer(200, CONTENT_TYPE_LATEST, generate_latest(self.registry))
        elif path == "/healthz":
            stuck = self.run.stuck_s > self.stuck_s
            status = b'{"status": "stuck"}' if stuck else b'{"status": "alive"}'
            self._answer(503 if stuck else 200, "application/json", status)
        elif path == "/readyz":
            down = self._down()
            body = json.dumps({"status": "down" if down else "ready", "down": down}).encode()
            self._answer(503 if down else 200, "application/json", body)
        else:
            self._answer(404, "text/plain", b"/metrics, /healthz or /readyz\n")

    def _down(self) -> list[str]:
        mute = {name for name, is_up in cameras_up(self.run).items() if not is_up}
        mute -= self.run.paused
        missed = mute | self.run.cameras_missed()
        cameras = [f"camera {name}" for name in self.run.plan.cameras if name in missed]
        states = self.run.stage_states()
        return cameras + [f"stage {name}" for name, is_up, _, _ in states if not is_up]

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """A scrape every few seconds is no news."""
