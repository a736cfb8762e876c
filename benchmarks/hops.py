"""One hop of a frame from a process to another, by several means, all ordered and timed alike.

The driver writes an order (so many frames at such a rate) on a Desk in shared memory, and the two sides
of a hop carry it out. A frame carries its number and the time it left in its first 16 bytes: who
receives it reads them from the pixels, so the pixels of *this* frame were there. In a checked order
each frame is filled as a whole and compared as a whole. The driver reads the CPU clocks of the
processes from outside.

    python -m benchmarks.hops POLICY FOLDER        the supervisor of our own hops
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rig.measure import ROOT
from pipeline.accounts.layout import DETECT
from pipeline.messages import Frame
from pipeline.plan.graph import EdgeSpec, Plan, Policy, ProcessSpec
from pipeline.stage import Picture, Sink, Source
from pipeline.supervision.supervisor import Options, Supervisor

MAX_FRAMES = 8192  # of one order
MAX_READERS = 4
_ORDER, _FRAMES, _PERIOD, _CHECKED, _T_FIRST, _ERRORS, _T_LAST, _COUNTS = 0, 1, 2, 3, 4, 5, 8, 16
_LATENCIES = 32
IDLE_S = 0.05
FULL_HD = (1920, 1080)
UHD, SMALL = (3840, 2160), (640, 360)
SIZES = {  # px, by camera
    "newest": {"small": SMALL, "hd": FULL_HD, "uhd": UHD, "fan": FULL_HD},  # at a camera's pace
    "every": {"fast": FULL_HD},  # back to back
}


class Desk:
    """Orders and what came of them, in a file that both sides and the driver map."""

    def __init__(self, path: Path | str) -> None:
        shape = (_LATENCIES + MAX_READERS * MAX_FRAMES,)
        mode = "r+" if os.path.exists(path) else "w+"
        # a plain array: indexing a memmap itself is slow
        self._cells: Any = np.asarray(np.memmap(path, np.int64, mode, shape=shape))
        self._seen = 0  # the first order may be there before the process that carries it out

    # the driver's side

    def order(self, frames: int, period_ns: int, *, checked: bool) -> None:
        """From now on the sender sends so many frames, one each period (0: as fast as it can)."""
        cells = self._cells
        cells[_COUNTS : _COUNTS + MAX_READERS] = 0
        cells[_FRAMES], cells[_PERIOD], cells[_CHECKED] = frames, period_ns, checked
        cells[_ORDER] += 1

    def wait(self, readers: int, limit_s: float) -> None:
        """Until every reader has all frames of the order."""
        end = time.monotonic() + limit_s
        while (self._cells[_COUNTS : _COUNTS + readers] < self._cells[_FRAMES]).any():
            if time.monotonic() > end:
                counts = self._cells[_COUNTS : _COUNTS + readers].tolist()
                raise TimeoutError(f"wanted {int(self._cells[_FRAMES])} frames each, got {counts}")
            time.sleep(0.002)
        if self._cells[_ERRORS]:
            raise ValueError("a frame arrived with pixels of another one")

    def latencies_s(self, readers: int) -> np.ndarray[Any, Any]:
        """Of every frame of the order, from its sender to each reader: (readers * frames,)."""
        n = int(self._cells[_FRAMES])
        rows = self._cells[_LATENCIES:].reshape(MAX_READERS, MAX_FRAMES)
        return np.asarray(rows[:readers, :n]).ravel() / 1e9

    def span_s(self, readers: int) -> float:
        """From the first frame's departure to the last one's arrival."""
        last = self._cells[_T_LAST : _T_LAST + readers].max()
        return float(last - self._cells[_T_FIRST]) / 1e9

    # the sender's side

    def frames(self) -> Iterator[int | None]:
        """The number of each frame to send now, when it is due; None while there is no order."""
        while True:
            if int(self._cells[_ORDER]) == self._seen:
                time.sleep(IDLE_S)
                yield None
                continue
            self._seen += 1
            due_ns = time.monotonic_ns()
            self._cells[_T_FIRST] = due_ns
            frames, period_ns = self._cells[_FRAMES : _PERIOD + 1].tolist()
            for number in range(frames):
                if period_ns:
                    due_ns += period_ns
                    time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
                yield number

    def sign(self, flat: np.ndarray[Any, Any], number: int) -> None:
        """Put number and time into the first bytes of a frame; in a checked order fill all of it."""
        if self._cells[_CHECKED]:
            flat[:] = content(len(flat), number)
        head = flat[:16].view(np.int64)
        head[0], head[1] = number, time.monotonic_ns()

    # a reader's side

    def receive(
        self, flat: np.ndarray[Any, Any], reader: int = 0, *, now_ns: int | None = None
    ) -> None:
        """A frame is here, its pixels can be read; now_ns: since when, None: since this call."""
        now_ns = now_ns or time.monotonic_ns()
        number, t_ns = flat[:16].view(np.int64).tolist()
        cells = self._cells
        if cells[_CHECKED]:
            same = np.array_equal(flat[16:], content(len(flat), number)[16:])
            cells[_ERRORS] += not same
        if number != int(cells[_COUNTS + reader]):
            cells[_ERRORS] += 1
        cells[_LATENCIES + reader * MAX_FRAMES + number] = now_ns - t_ns
        cells[_T_LAST + reader] = now_ns
        cells[_COUNTS + reader] += 1


_noise: dict[int, np.ndarray[Any, Any]] = {}


def content(nbytes: int, number: int) -> np.ndarray[Any, Any]:
    """Noise, another one for each number: uint8 (nbytes,)."""
    if nbytes not in _noise:
        _noise[nbytes] = np.random.default_rng(0).integers(0, 256, nbytes, np.uint8)
    return _noise[nbytes] + np.uint8(number % 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What came of one order."""

    latency_s: float  # median
    cpu_s: float  # of all its processes, per frame
    fps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """A pair of processes (or more) and their desk."""

    desk: Desk
    pids: Sequence[int]
    readers: int = 1

    def check(self, frames: int = 16) -> None:
        """Every byte of every frame. Raises ValueError, TimeoutError."""
        self.run(frames, 0.0, checked=True)

    def run(self, frames: int, rate_hz: float, *, checked: bool = False) -> Sample:
        """Send so many frames at this rate (0: back to back) and wait until all are there."""
        period_ns = int(1e9 / rate_hz) if rate_hz else 0
        before = self._cpu_ns()
        self.desk.order(frames, period_ns, checked=checked)
        self.desk.wait(self.readers, 30 + 10 * frames * period_ns / 1e9)
        time.sleep(0.01)  # acknowledgements on their way back are part of the price
        cpu_ns = self._cpu_ns() - before
        return Sample(
            latency_s=float(np.median(self.desk.latencies_s(self.readers))),
            cpu_s=cpu_ns / frames / 1e9,
            fps=frames / self.desk.span_s(self.readers),
        )

    def _cpu_ns(self) -> int:
        # the clock of another process, all its threads: clock_getcpuclockid(3)
        return sum(time.clock_gettime_ns(~pid << 3 | 2) for pid in self.pids)


# -- ours: a camera's process and a sink's process, under a supervisor ------------------------------


@dataclass(frozen=True, kw_only=True)
class EndConfig:
    """Where the desk is."""

    desk: str
    width: int
    height: int
    reader: int = 0


class Still(Source):
    """Publishes slots that hold a picture already, at the times of the order."""

    Config = EndConfig

    @classmethod
    def slot_bytes(cls, config: EndConfig, frame_bytes: int) -> int:
        """One picture."""
        return config.width * config.height * 3

    def setup(self) -> None:
        """Map the desk, make the noise."""
        self._desk = Desk(self.config.desk)
        content(self.config.width * self.config.height * 3, 0)
        self._frames = self._desk.frames()

    def open(self) -> None:
        """Nothing to connect to."""

    def read(self, buffer: np.ndarray[Any, Any]) -> Picture | None:
        """The next frame of the order."""
        number = next(self._frames)
        if number is None:
            return None
        picture = Picture(width=self.config.width, height=self.config.height, format="bgr24")
        self._desk.sign(buffer, number)
        return picture

    def skip(self) -> bool:
        """All slots are taken: the order waits, for its frames are counted."""
        time.sleep(0.002)
        return False


class Arrivals(Sink):
    """Notes when a frame is there."""

    Config = EndConfig
    turn_s = 30.0  # comparing each byte of a 4K frame takes its time on a busy machine

    def setup(self) -> None:
        """Map the desk, make the noise."""
        self._desk = Desk(self.config.desk)
        content(self.config.width * self.config.height * 3, 0)

    def process(self, frame: Frame) -> None:
        """Looks at the pixels of number and time, and at all of them in a checked order."""
        now_ns = time.monotonic_ns()
        self._desk.receive(frame.pixels.reshape(-1), self.config.reader, now_ns=now_ns)


def plan(policy: Policy, folder: Path) -> Plan:
    """Cameras of several sizes, each with its sinks. Nothing is dropped: what is sent is counted."""
    processes: list[ProcessSpec] = []
    for camera, (width, height) in SIZES[policy].items():
        readers = MAX_READERS if camera == "fan" else 1
        config = {"desk": str(folder / camera), "width": width, "height": height}
        # one reader delivers a path of a camera; who reads it beside that one is in no account
        edges = tuple(
            EdgeSpec(
                consumer=f"sink.{camera}.{n}", cameras=(camera,), paths=() if n else (DETECT,),
                credits=8, depth=4, overflow="wait",
            )
            for n in range(readers)
        )  # fmt: skip
        source = f"capture.{camera}"
        processes.append(
            ProcessSpec(
                name=source, role="source", run="benchmarks.hops:Still", config=config,
                cameras=(camera,), paths=(DETECT,), outputs=edges, slots=24,
                slot_bytes=width * height * 3,
                counters=tuple(f"undelivered:{edge.consumer}" for edge in edges if not edge.paths),
            )
        )  # fmt: skip
        processes += [
            ProcessSpec(
                name=edge.consumer, role="sink", run="benchmarks.hops:Arrivals",
                config={**config, "reader": n}, cameras=(camera,), paths=edge.paths, delivers=not n,
                reads=(source,),
            )
            for n, edge in enumerate(edges)
        ]  # fmt: skip
    return Plan(cameras=tuple(SIZES[policy]), policy=policy, processes=tuple(processes))


class Ours:
    """A whole run of ours with idle cameras, and a Hop for each of them."""

    def __init__(self, policy: Policy, folder: Path) -> None:
        desks = {camera: Desk(folder / camera) for camera in SIZES[policy]}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.hops", policy, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("our run did not start; its own words are above")
        pids: dict[str, int] = json.loads(line)
        self.hops = {}
        for camera, desk in desks.items():
            mine = [pid for name, pid in pids.items() if name.split(".")[1] == camera]
            self.hops[camera] = Hop(desk=desk, pids=mine, readers=len(mine) - 1)

    def close(self) -> None:
        """End the run."""
        self._process.terminate()
        self._process.communicate()


def main() -> None:
    """The supervisor of our hops: prints the processes' ids once all are ready."""
    told = False

    def tell(supervisor: Supervisor) -> None:
        nonlocal told
        if supervisor.live and not told:
            told = True
            pids = {child.name: child.pid for child in supervisor.children.values()}
            print(json.dumps(pids), flush=True)

    policy: Policy = "every" if sys.argv[1] == "every" else "newest"
    Supervisor(plan(policy, Path(sys.argv[2])), Options(to_bgr=None), tell).run()


if __name__ == "__main__":
    main()
