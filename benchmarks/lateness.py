"""Is an alarm as late as its histogram says? Figure w.

    python -m benchmarks.lateness [--tries 9] [--json FILE]

A webhook that answers 50, 200 and 1,000 ms late is told of alarms, one after the other, by the sink of
alarms as a run has it, out of an outbox on the disk. w: what the histogram says, against the time from the
moment of the picture to that at which the webhook begins to answer, by its own clock.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.rig.measure import Figure, Machine, Target, median, report
from pipeline.accounts.layout import Layout
from pipeline.accounts.ledger import Ledger
from pipeline.detections import Detections
from pipeline.happenings import Happening
from pipeline.messages import FrameInfo, Result
from pipeline.runtime import LocalRuntime
from stages.sinks.alarms.stage import Alarms, AlarmsConfig

DELAYS_MS = (50.0, 200.0, 1000.0)
ALLOWED_SHARE, ALLOWED_MS = 0.05, 5.0
_ALARMS = 5  # of a try, one after the other
_BOUND_S = 60.0


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lateness", description=__doc__)
    parser.add_argument("--tries", type=int, default=9)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    machine = Machine()
    report("lateness", [figure(ms, asked.tries) for ms in DELAYS_MS], machine, asked.json)


def figure(delay_ms: float, tries: int) -> Figure:
    """Of one delay: how far what the histogram says is from what the receiver saw, in ms."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = [lateness_ms(Path(folder) / f"{n}.db", delay_ms) for n in range(tries)]
    target = Target(sign="≤", limit=max(ALLOWED_MS, ALLOWED_SHARE * delay_ms))
    said, seen = (sum(side) / tries for side in zip(*pairs, strict=True))
    return median(
        "w", f"ms between histogram and receiver, {delay_ms:g} ms late",
        [abs(said - seen) for said, seen in pairs], target, detail=f"{said:.1f} of {seen:.1f}",
    )  # fmt: skip


def lateness_ms(outbox: Path, delay_ms: float) -> tuple[float, float]:
    """Means over a few alarms: what the histogram says, what the receiver saw."""
    histogram = "lateness:ops"
    layout = Layout.of(("gate",), ("alarms",), {"alarms": ()}, histograms={"alarms": (histogram,)})
    ledger, runtime = Ledger.local(layout), LocalRuntime(("gate",))
    runtime.measure = partial(ledger.measure, "alarms")  # type: ignore[method-assign]
    with _receiver(delay_ms / 1000) as (url, answered_ns):
        stage = Alarms(
            AlarmsConfig(
                path=str(outbox), classes=("person",),
                alerts=({"name": "visitor", "kinds": ["appeared"], "to": ["ops"]},),
                targets=({"name": "ops", "run": "stages.sinks.alarms.webhook:Webhook", "url": url},),
            )
        )  # fmt: skip
        stage.runtime = runtime
        stage.setup()
        captured_ns = []
        for n in range(_ALARMS):
            result = _appeared(n)
            captured_ns.append(result.info.t_capture_ns)
            stage.process(result)
            _until_delivered(stage, n + 1)
        stage.close()
    _, total_s = ledger.histogram("alarms", histogram)
    seen_ns = sum(answered_ns) - sum(captured_ns)
    return 1e3 * total_s / _ALARMS, 1e-6 * seen_ns / _ALARMS


def _appeared(n: int) -> Result:
    one = Happening("appeared", "0", n, "person", 0.9, (0.0, 0.0, 9.0, 9.0))
    info = FrameInfo("gate", n, time.monotonic_ns(), time.time_ns(), 640, 360)
    return Result(info=info, detections=Detections.empty(), happenings=(one,))


def _until_delivered(stage: Alarms, n: int) -> None:
    end_s = time.monotonic() + _BOUND_S
    while stage.runtime.counted_in_all("delivery:ops:delivered") < n:
        if time.monotonic() > end_s:
            raise TimeoutError(f"alarm {n} was not delivered within {_BOUND_S:g} s")
        stage.idle()
        time.sleep(0.002)


@contextmanager
def _receiver(delay_s: float) -> Iterator[tuple[str, list[int]]]:
    """A webhook; when it began to answer, monotonic."""
    answered_ns: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            time.sleep(delay_s)
            answered_ns.append(time.monotonic_ns())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", answered_ns
        server.shutdown()


if __name__ == "__main__":
    main()
