"""A real run in a process of its own, under a real Supervisor, looked at from outside.

    config = cameras(4, rate_hz=15)
    with Rig(config, probes=True) as rig:
        rig.window(2)                            warm-up
        window = rig.window(10)                  what happened in these ten seconds
        rig.pace(30)                             from now on, every camera
        rows = rig.frames()                      each frame that was served, with its times

The child prints a line when the run is live and one at its end; everything else is read from outside:
the ledger through /proc/PID/fd, CPU time from the processes' own clocks, memory from smaps_rollup. So
looking costs the run nothing. Cameras with a synthetic:// source become Replay: rendered stills from
memory.

    python -m benchmarks.rig.runs FOLDER              the child
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks.rig.measure import ROOT
from benchmarks.rig.probes import Rows, with_probes
from benchmarks.rig.replay import Pace, Replay, ReplayConfig, render_stills
from pipeline.accounts.layout import DETECT, RING
from pipeline.accounts.ledger import Ledger
from pipeline.accounts.tally import Tally
from pipeline.errors import ConfigError, ModelError, ResourceError
from pipeline.plan import config as configuration
from pipeline.plan.config import Config
from pipeline.plan.graph import Plan, ProcessSpec
from pipeline.plan.loading import search_current_folder
from pipeline.plan.standard import make
from pipeline.supervision.supervisor import Options, Supervisor
from stages.capture import synthetic

SUPERVISOR = "supervisor"
REFUSED = "refused"  # in place of pids: which error a configuration that can't run is
_ERRORS = {error.__name__: error for error in (ConfigError, ResourceError, ModelError)}
LOOK_S = 0.25  # between looks at the ledger's rings, which keep RING / 2 frames a camera
SYNTHETIC = "stages.capture.synthetic:Synthetic"
Array = np.ndarray[Any, Any]


def cameras(
    count: int,
    rate_hz: float,
    *,
    size: str = "640x360",
    policy: str = "newest",
    model: dict[str, Any] | None = None,
) -> Config:
    """So many Replay cameras cam0, cam1, … before the demo model, results into a null sink.

    model: fields of `[model]` that differ, such as {"engine": "stub"} or {"max_batch": 4}.
    """
    sources = [f"synthetic://?size={size}&rate={rate_hz:g}"] * count
    config = configuration.from_sources(sources, policy=policy)
    if model:
        config = config.model_copy(update={"model": config.model.model_copy(update=model)})
    return config


def changed(plan: Plan, stage: str, **fields: Any) -> Plan:
    """The plan with other fields in the configuration of every process of a stage.

    stage: the first part of the name, such as "inference"; an edit for `Rig`.
    """
    processes = tuple(
        replace(spec, config={**spec.config, **fields})
        if spec.name.split(".")[0] == stage
        else spec
        for spec in plan.processes
    )
    return replace(plan, processes=processes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What happened in a run between two moments."""

    begun_ns: int  # monotonic
    seconds: float
    offered: dict[str, int]  # camera → frames that its source delivered
    served: dict[str, int]  # camera → frames whose result was delivered
    dropped: dict[str, dict[str, int]]  # camera → reason → frames
    latency: Array  # cells of EDGES_S: capture → result, all cameras
    service: dict[str, Array]  # process → cells of stage_seconds
    wait: dict[str, Array]  # process → cells of wait_seconds
    cpu_s: dict[str, float]  # process → CPU seconds of all its threads; "supervisor" among them
    pss_bytes: dict[str, int]  # process → its proportional share of memory at the end

    @property
    def fps(self) -> float:
        """Served frames a second, all cameras together."""
        return sum(self.served.values()) / self.seconds

    @property
    def ended_ns(self) -> int:
        """Monotonic."""
        return self.begun_ns + round(self.seconds * 1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Everything as it was at one moment: what two of them differ by is a Window."""

    t_ns: int
    offered: dict[str, int]
    served: dict[str, int]
    dropped: dict[str, dict[str, int]]
    latency: Array
    service: dict[str, Array]
    wait: dict[str, Array]
    cpu_ns: dict[str, int]


def between(a: Look, b: Look, pss_bytes: dict[str, int]) -> Window:
    """What happened from a to b."""
    return Window(
        begun_ns=a.t_ns,
        seconds=(b.t_ns - a.t_ns) / 1e9,
        offered={camera: n - a.offered[camera] for camera, n in b.offered.items()},
        served={camera: n - a.served[camera] for camera, n in b.served.items()},
        dropped={
            camera: {why: n - a.dropped[camera][why] for why, n in reasons.items()}
            for camera, reasons in b.dropped.items()
        },
        latency=b.latency - a.latency,
        service={name: cells - a.service[name] for name, cells in b.service.items()},
        wait={name: cells - a.wait[name] for name, cells in b.wait.items()},
        cpu_s={name: (ns - a.cpu_ns[name]) / 1e9 for name, ns in b.cpu_ns.items()},
        pss_bytes=pss_bytes,
    )


class Rig:
    """A run from the moment that it is live until the end of the `with`.

    At the end it raises RuntimeError if the ledger does not add up, a frame was torn, or a process died.
    """

    plan: Plan
    pids: dict[str, int]  # process name → pid, "supervisor" among them
    start_s: float  # from the start of the child until live
    ledger: Ledger  # of the run itself: to be read only

    def __init__(
        self,
        config: Config,
        *,
        probes: bool = False,
        edit: Callable[[Plan], Plan] = lambda plan: plan,
    ) -> None:
        """probes: `frames` is wanted; edit: the last word on the plan (see `changed`).

        Raises ConfigError for what can't run, here or when it is entered.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="manyeyes-rig-")
        folder = Path(self._folder.name)
        plan, self._rates = _replayed(make(config), folder)
        self._pace = Pace(folder / "pace", len(plan.cameras))
        self._rows = Rows(folder / "rows", plan.cameras) if probes else None
        if probes:
            plan = with_probes(plan, folder / "rows")
        self.plan = edit(plan)
        (folder / "plan.json").write_text(json.dumps(dataclasses.asdict(self.plan)))

    def __enter__(self) -> Rig:
        try:
            self._start(Path(self._folder.name))
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            words = self._stop()
        finally:
            self._folder.cleanup()
        if kind is None and words != _ALL_WELL:
            raise RuntimeError(f"the run did not end well: {words or 'it died; see above'}")

    # -- while it runs -----------------------------------------------------------------------------

    def window(self, seconds: float) -> Window:
        """Wait so long; what happened meanwhile."""
        tallies = [self._tally(row) for row in range(len(self.plan.cameras))]
        first = self._look(tallies)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_S))
            for tally in tallies:  # before their rings come round
                tally.totals()
        last = self._look(tallies)
        return between(first, last, {name: _pss_bytes(pid) for name, pid in self.pids.items()})

    def pace(self, rate_hz: float, camera: str | None = None) -> None:
        """Another rate for one Replay camera, or for all; 0: silence; math.inf: as fast as asked.

        Cameras of the same rate are spread evenly over its period.
        """
        start_s, n = time.monotonic(), len(self.plan.cameras)
        for row, name in enumerate(self.plan.cameras):
            if camera in (None, name):
                self._pace.set(row, rate_hz, row / n, start_s)

    def frames(self) -> Array:
        """All frames that were served so far, as `probes.ROW`; needs probes=True."""
        if self._rows is None:
            raise ValueError("Rig.frames: this rig was made without probes=True")
        return self._rows.table(int(self.ledger["captured"].max()))

    # -- inside ------------------------------------------------------------------------------------

    def _start(self, folder: Path) -> None:
        begun_s = time.monotonic()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.rig.runs", str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(),
        )  # fmt: skip
        line = _pipe(self._child.stdout).readline()
        if not line or REFUSED in (told := json.loads(line)):
            self._stop()
            if line:
                raise _ERRORS.get(told[REFUSED], ConfigError)(told["why"])
            raise RuntimeError("the run did not start; its own words are above")
        self.start_s = time.monotonic() - begun_s
        self.pids = told
        self.ledger = _ledger_of(self.pids[SUPERVISOR], self.plan)
        start_s = time.monotonic()
        for row, rate_hz in enumerate(self._rates):
            self._pace.set(row, rate_hz, row / len(self._rates), start_s)

    def _stop(self) -> str:
        _pipe(self._child.stdin).close()
        words = _pipe(self._child.stdout).read()
        _pipe(self._child.stdout).close()
        self._child.wait()
        return words.strip()

    def _tally(self, row: int) -> Tally:
        low = max(0, int(self.ledger["captured"][row]) - RING // 2)
        return Tally(self.ledger, row, DETECT, final_below=low)

    def _look(self, tallies: list[Tally]) -> Look:
        totals = dict(zip(self.plan.cameras, (tally.totals() for tally in tallies), strict=True))
        ledger, names = self.ledger, self.ledger.process_index
        return Look(
            t_ns=time.monotonic_ns(),
            offered={camera: line.captured for camera, line in totals.items()},
            served={camera: line.delivered for camera, line in totals.items()},
            dropped={camera: line.dropped for camera, line in totals.items()},
            latency=ledger["latency_seconds"].sum(axis=0).astype(np.int64),
            service={
                name: ledger["stage_seconds"][i].astype(np.int64) for name, i in names.items()
            },
            wait={name: ledger["wait_seconds"][i].astype(np.int64) for name, i in names.items()},
            cpu_ns={name: _cpu_ns(name, pid) for name, pid in self.pids.items()},
        )


def environment() -> dict[str, str]:
    """Ours, with our packages before all others; the current folder is searched by who wants it."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise RuntimeError("the child has no pipe")
    return stream


def _replayed(plan: Plan, folder: Path) -> tuple[Plan, list[float]]:
    """The plan with Replay for every synthetic camera, and their rates (0 for all others)."""
    rates = [0.0] * len(plan.cameras)
    processes: list[ProcessSpec] = []
    for spec in plan.processes:
        if spec.run != SYNTHETIC:
            processes.append(spec)
            continue
        row = plan.cameras.index(spec.cameras[0])
        scene = synthetic.parse(spec.config["url"])
        rates[row] = scene.rate_hz
        stills = folder / f"{scene.width}x{scene.height}.i420"
        if not stills.exists():
            render_stills(stills, (scene.width, scene.height))
        config = ReplayConfig(
            stills=str(stills), pace=str(folder / "pace"), cameras=len(plan.cameras), camera=row,
            width=scene.width, height=scene.height,
        )  # fmt: skip
        processes.append(
            replace(
                spec,
                run=f"{Replay.__module__}:{Replay.__name__}",
                config=dataclasses.asdict(config),
                slot_bytes=Replay.slot_bytes(config, 0),
            )
        )
    return replace(plan, processes=tuple(processes)), rates


def _ledger_of(pid: int, plan: Plan) -> Ledger:
    """The ledger of a run, mapped through the supervisor's own descriptor."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        if "manyeyes-ledger" in os.readlink(link):
            fd = os.open(link, os.O_RDWR)
            try:
                return Ledger(fd, plan.layout)
            finally:
                os.close(fd)
    raise RuntimeError(f"process {pid} has no ledger")


def _cpu_ns(name: str, pid: int) -> int:
    """The clock of another process, all its threads; clock_getcpuclockid(3)."""
    try:
        return time.clock_gettime_ns(~pid << 3 | 2)
    except OSError as error:
        raise RuntimeError(f"process {name!r} died while it was looked at") from error


def _pss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


# -- the child -------------------------------------------------------------------------------------

_ALL_WELL = "all is well"


def main() -> None:
    """The run itself: prints its pids when it is live, ends when stdin does."""
    search_current_folder()
    fields = json.loads((Path(sys.argv[1]) / "plan.json").read_text())
    processes = tuple(ProcessSpec.from_json(spec) for spec in fields["processes"])
    plan = Plan(
        cameras=tuple(fields["cameras"]),
        policy=fields["policy"],
        processes=processes,
        spare=fields["spare"],
    )
    told = False

    def tell(supervisor: Supervisor) -> None:
        nonlocal told
        if supervisor.live and not told:
            told = True
            pids = {child.name: child.pid for child in supervisor.children.values()}
            print(json.dumps({**pids, SUPERVISOR: os.getpid()}), flush=True)

    try:
        supervisor = Supervisor(plan, Options(), tell)

        def stop_with_stdin() -> None:
            sys.stdin.read()
            supervisor.stop()

        threading.Thread(target=stop_with_stdin, daemon=True).start()
        supervisor.run()
    except ConfigError as error:
        print(json.dumps({REFUSED: type(error).__name__, "why": str(error)}), flush=True)
        return
    errors = {" ".join(key): totals.error for key, totals in supervisor.totals.items()}
    died = [name for name, _, restarts, _ in supervisor.stage_states() if restarts]
    torn = int(supervisor.ledger["torn"].sum())
    well = not (any(errors.values()) or died or torn)
    print(_ALL_WELL if well else f"ledger errors {errors}, torn {torn}, died {died}", flush=True)


if __name__ == "__main__":
    main()
