"""How long until all is well again? Kills, hangs, a dead supervisor, cameras that go.

    python -m benchmarks.recovery [--tries 10] [--only kill,stop,supervisor,return,mute] [--real]

The clock runs from the signal until a frame that was captured after it has come to every sink from
every camera. Without --real the stages are tests/parts.py, which need no picture library: what is
measured is the runtime. With --real they are the product's, between rendered cameras and a tiny model.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.arrivals import Arrivals
from benchmarks.rig.measure import ROOT, Figure, Machine, Target, median, report
from pipeline.plan.config import CameraConfig, Config, ModelConfig, SinkConfig
from pipeline.plan.graph import Plan
from pipeline.plan.standard import make
from pipeline.supervision.supervisor import Options, Supervisor

sys.path.insert(0, str(ROOT / "tests"))  # cameras, parts, patterns, rtsp_server, tiny_models

SINKS = ("results", "frames")
SETTLE_S = 0.3  # between tries
LOST_S = 30.0  # a try that took longer has failed
PARTS = ("kill", "stop", "supervisor", "return", "mute")
Times = dict[str, list[float]]


# -- one run, in which something is done again and again -------------------------------------------


class Trials:
    """A supervisor's tick: waits until all is well, harms, waits until all is well again."""

    def __init__(self, plan: Plan, folder: Path, harms: Sequence[tuple[str, Callable[..., None]]]):
        """harms: (name, function of the supervisor that does it, at once)."""
        self.times: Times = defaultdict(list)
        self._plan, self._harms = plan, list(harms)
        self._arrivals = [Arrivals(folder / name, len(plan.cameras)) for name in SINKS]
        self._t_ns = 0
        self._captured = [0] * len(plan.cameras)
        self._name = ""
        self._quiet_until = 0.0

    def run(self) -> Times:
        """All harms in one run; returns the seconds that each recovery took, by name."""
        options = Options(to_bgr="stages.imaging.pixels:to_bgr" if self._is_real else None)
        supervisor = Supervisor(self._plan, options, self._tick)
        supervisor.run()
        errors = {key: totals.error for key, totals in supervisor.totals.items() if totals.error}
        if errors or int(supervisor.ledger["torn"].sum()):
            raise ValueError(f"the ledger does not add up, or a frame was torn: {errors}")
        return self.times

    @property
    def _is_real(self) -> bool:
        return any(process.run.startswith("stages.") for process in self._plan.processes)

    def _tick(self, supervisor: Supervisor) -> None:
        if not supervisor.live or supervisor.stopping:
            return
        if self._name or not self._t_ns:
            seconds = self._seconds()
            if seconds is None:
                if self._name and time.monotonic_ns() - self._t_ns > LOST_S * 1e9:
                    raise TimeoutError(f"{self._name}: no newer frames after {LOST_S:.0f} s")
                return
            if self._name:
                self.times[self._name].append(seconds)
            self._name, self._t_ns = "", time.monotonic_ns()
            self._quiet_until = time.monotonic() + SETTLE_S
        if time.monotonic() < self._quiet_until:
            return
        if not self._harms:
            supervisor.stop()
            return
        self._captured = supervisor.ledger["captured"].tolist()
        self._name, harm = self._harms.pop(0)
        self._t_ns = time.monotonic_ns()
        harm(supervisor)

    def _seconds(self) -> float | None:
        """From `_t_ns` until the last camera's first newer frame at the last sink."""
        cameras = range(len(self._plan.cameras))
        firsts = [
            a.first_from(c, self._captured[c], self._t_ns) for a in self._arrivals for c in cameras
        ]
        if None in firsts:
            return None
        return (max(t for t in firsts if t is not None) - self._t_ns) / 1e9


def signals(plan: Plan, number: int, tries: int) -> list[tuple[str, Callable[..., None]]]:
    """Each process in turn, `tries` times."""

    def send(name: str) -> Callable[[Supervisor], None]:
        return lambda supervisor: supervisor.children[name].signal(number)

    names = [process.name for process in plan.processes]
    return [(name.split(".")[0], send(name)) for _ in range(tries) for name in names]


def pattern_plan(folder: Path) -> Plan:
    """Two cameras at 50 fps through every kind of process."""
    import patterns

    plan = patterns.plan(folder, cameras=2, rate_hz=50.0)
    sinks = {
        "sink.results": "benchmarks.arrivals:ResultArrivals",
        "sink.frames": "benchmarks.arrivals:FrameArrivals",
    }
    processes = tuple(
        replace(p, run=sinks[p.name], config={"path": str(folder / p.name.split(".")[1])})
        if p.name in sinks
        else p
        for p in plan.processes
    )
    return replace(plan, processes=processes)


def real_plan(
    folder: Path, sources: Sequence[str], engine: Literal["auto", "stub"] = "auto"
) -> Plan:
    """The product's own graph over these sources, with a tiny model."""
    import tiny_models

    from stages.detector.importing import import_model

    bundle = folder / "tiny.bundle"
    if not bundle.exists():
        script = tiny_models.save(tiny_models.Candidates(), folder / "tiny.pt")
        import_model(
            script, str(bundle), layout="candidates", classes=["thing", "other"], size=160,
            dtype="uint8",
        )  # fmt: skip
    config = Config(
        model=ModelConfig(path=bundle, engine=engine),
        camera=tuple(CameraConfig(name=f"c{i}", source=s) for i, s in enumerate(sources)),
        sink=tuple(
            SinkConfig(
                type="custom", name=name, run=f"benchmarks.arrivals:{kind}",
                options={"path": str(folder / name)},
            )
            for name, kind in zip(SINKS, ("ResultArrivals", "FrameArrivals"), strict=True)
        ),
    )  # fmt: skip
    return make(config)


# -- the questions ---------------------------------------------------------------------------------


def stages(number: int, tries: int, *, real: bool) -> Times:
    """A signal to each process in turn, while the rest goes on."""
    with tempfile.TemporaryDirectory(prefix="manyeyes-bench-") as name:
        folder = Path(name)
        urls = [f"synthetic://?seed={i}&size=320x180&rate=15" for i in range(2)]
        plan = real_plan(folder, urls) if real else pattern_plan(folder)
        return Trials(plan, folder, signals(plan, number, tries)).run()


def supervisor_death(tries: int) -> list[float]:
    """kill -9 of the supervisor until its processes and its sockets are gone, their memory with them."""
    seconds = []
    for _ in range(tries):
        with tempfile.TemporaryDirectory(prefix="manyeyes-bench-") as folder:
            process = subprocess.Popen(
                [sys.executable, ROOT / "tests" / "patterns.py", *["newest", "2", "0", "0", "50"], folder],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
            assert process.stdout is not None
            facts = json.loads(process.stdout.readline().removeprefix("READY"))
            start = time.monotonic()
            process.kill()
            process.wait()
            while any(map(_exists, facts["pids"].values())) or Path(facts["sockets"]).exists():
                if time.monotonic() - start > LOST_S:
                    raise TimeoutError("something outlived its supervisor")
                time.sleep(0.002)
            seconds.append(time.monotonic() - start)
            process.stdout.close()
    return seconds


def _exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def camera_return(tries: int, away_s: float) -> list[float]:
    """GStreamer's RTSP server is killed and started again; from its being ready to newer frames."""
    import rtsp_server

    if rtsp_server.missing() is not None:
        print(f"left out: {rtsp_server.missing()}")
        return []
    with (
        tempfile.TemporaryDirectory(prefix="manyeyes-bench-") as name,
        rtsp_server.GstCamera() as camera,
    ):
        folder = Path(name)
        plan = real_plan(folder, [camera.url], engine="stub")
        trials = Trials(plan, folder, [])

        def away(supervisor: Supervisor) -> None:
            def back() -> None:
                time.sleep(away_s)
                camera.start()
                trials._captured = supervisor.ledger["captured"].tolist()
                trials._t_ns = time.monotonic_ns()

            camera.stop()
            trials._t_ns = time.monotonic_ns() + int((away_s + LOST_S) * 1e9)  # until it is back
            threading.Thread(target=back).start()

        trials._harms = [("return", away)] * tries
        return trials.run()["return"]


def camera_mute(tries: int) -> list[float]:
    """A camera sends nothing more and keeps its socket open; until it counts as down."""
    import cameras

    seconds: list[float] = []
    was_up = False

    def watch(supervisor: Supervisor) -> None:
        nonlocal was_up
        up = bool(supervisor.ledger["camera_up"][0])
        if was_up and not up:
            last_ns = int(supervisor.ledger["last_frame_ns"][0])
            seconds.append((time.monotonic_ns() - last_ns) / 1e9)
        was_up = up
        if len(seconds) >= tries:
            supervisor.stop()

    with (
        tempfile.TemporaryDirectory(prefix="manyeyes-bench-") as name,
        cameras.Camera(fault="stall", after=25) as camera,
    ):
        plan = real_plan(Path(name), [camera.url], engine="stub")
        Supervisor(plan, Options(), watch).run()
    return seconds


# -- all of it -------------------------------------------------------------------------------------


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=10, help="of each")
    parser.add_argument("--away-s", type=float, default=10.0, help="how long the camera is gone")
    parser.add_argument("--only", default=",".join(PARTS), help="some of " + ",".join(PARTS))
    parser.add_argument("--real", action="store_true", help="the product's own stages, too")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"--only knows {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"  # for the processes of a run
    logging.getLogger("manyeyes").setLevel(logging.ERROR)  # each death is meant
    machine = Machine()
    found = figures(options.tries, options.away_s, wanted, real=options.real)
    report("recovery (s)", found, machine, options.json)


def figures(tries: int, away_s: float, parts: Sequence[str], *, real: bool) -> list[Figure]:
    """Measure what is asked for."""
    second, two, three = (Target(sign="≤", limit=s) for s in (1, 2, 3))
    rows: list[Figure] = []
    for label, is_real in (("", False), (", real stages", True)) if real else (("", False),):
        for part, number, target in (
            ("kill", signal.SIGKILL, second),
            ("stop", signal.SIGSTOP, two),
        ):
            if part not in parts:
                continue
            times = stages(number, tries, real=is_real)
            for name, seconds in times.items():
                loads = is_real and name == "inference"  # as long as its model takes to load
                what = f"{number.name} {name}{label}, p95"
                rows.append(_p95(part, what, seconds, None if loads else target))
    if "supervisor" in parts:
        rows.append(
            _p95("gone", "SIGKILL supervisor: all gone, p95", supervisor_death(tries), second)
        )
    if "return" in parts and (seconds := camera_return(tries, away_s)):
        rows.append(
            _row("back", f"RTSP server back after {away_s:g} s, median", seconds, three, 0.5)
        )
    if "mute" in parts:
        rows.append(_p95("mute", "mute camera noticed, p95", camera_mute(tries), three))
    return rows


def _p95(id: str, what: str, seconds: Sequence[float], target: Target | None) -> Figure:
    return _row(id, what, seconds, target, 0.95)


def _row(id: str, what: str, seconds: Sequence[float], target: Target | None, q: float) -> Figure:
    p50, p95, top = np.quantile(seconds, (0.5, 0.95, 1))
    detail = f"p50 {p50:.2f}, p95 {p95:.2f}, max {top:.2f} s"
    return median(id, what, seconds, target, q=q, detail=detail)


if __name__ == "__main__":
    main()
