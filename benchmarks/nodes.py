"""What becomes of the cameras of a fleet on Ray when a node is killed, cut off, or given a new version?

    python -m benchmarks.nodes [--tries 20] [--only kill,cut,stop,controller,upgrade] [--cameras 12]

Three machines on this host, rendered cameras at two frames a second under `every`, so that no frame may be
missing but those of a camera that moves. `kill`: by turns a node alone, and all that runs on it; `cut`:
machines are network namespaces (it takes root), and a cable is pulled for 4 to 20 seconds; `stop`: an agent
gets SIGSTOP for as long; `controller`: its process is killed; `upgrade`: each machine is drained, killed,
started again and filled. Who served which frame is read from the events.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rig import fleets
from benchmarks.rig.clusters import Cluster, Hosts
from benchmarks.rig.fleets import Fleet
from benchmarks.rig.measure import Figure, Machine, Target, median, report

TRIES, CAMERAS, RATE_HZ = 20, 12, 2.0
NAMES = "abc"
GAP = Target(sign="≤", limit=15)
NONE = Target(sign="≤", limit=0)
LEASE_S = 6.0
SILENT_S = (4.0, 20.0)
_CALM_S, _LOOK_S = 6.0, 0.2


class Trial:
    """A fleet that serves all of its cameras."""

    def __init__(self, fleet: Fleet, cameras: Sequence[str]) -> None:
        self.fleet, self.cameras, self.diary = fleet, cameras, fleet.diary
        self.ledgers, self.wrong = 0, list[str]()  # read, and what does not add up in them
        self.disturbed: list[str] = []  # cameras that did not stay and were to
        self.turn: Callable[[], None] = lambda: None  # to be done while it waits

    def settle(self, machines: str = NAMES) -> None:
        """Until these machines serve every camera, each of them some, and it has been so for a while."""
        while True:
            self._wait(
                "each serves",
                lambda: {s[-1].machine for s in self.diary.stays.values()} == {*machines},
            )
            before, calm_s = self.diary.count(self.cameras), time.time() + _CALM_S
            self._wait("calm", lambda calm_s=calm_s: time.time() >= calm_s)
            self.wait_for(self.cameras, calm_s)
            if before == self.diary.count(self.cameras):
                return

    def wait_for(self, cameras: Sequence[str], since_s: float, without: str = "") -> float:
        """Until each was served by a picture after that moment, elsewhere; returns when it was."""

        def served(camera: str) -> bool:
            stays = self.diary.stays.get(camera)
            return bool(stays) and stays[-1].machine != without and stays[-1].last_s > since_s

        return self._wait(f"all without {without!r}", lambda: all(map(served, cameras)))

    def wait_until(self, moment_s: float) -> None:
        """Let time pass."""
        self._wait("time", lambda: time.time() >= moment_s)

    def _wait(self, what: str, condition: Callable[[], bool]) -> float:
        end = time.monotonic() + fleets.BOUND_S
        while time.monotonic() < end:
            self.diary.look()
            if condition():
                return time.time()
            self.turn()
            time.sleep(_LOOK_S)
        stays = "; ".join(str(stays[-1]) for stays in self.diary.stays.values())
        raise RuntimeError(f"{what}: did not happen in {fleets.BOUND_S:g} s: {stays}")

    @contextmanager
    def undisturbed(self, cameras: Sequence[str]) -> Iterator[None]:
        """These cameras stay where they are meanwhile."""
        before = self.diary.count(cameras)
        yield
        after = self.diary.count(cameras)
        self.disturbed += [camera for camera in cameras if before[camera] != after[camera]]

    def check(self) -> None:
        """The ledger of each run that goes on."""
        for machine, rows in self.fleet.ledgers().items():
            self.ledgers += 1
            self.wrong += [f"{machine}: {who}: {n:g}" for who, n in rows.items() if n]

    def figures(self, id: str) -> list[Figure]:
        """What must be none."""
        stays = sum(map(len, self.diary.stays.values()))
        frames = sum(len(s.frames) for stays in self.diary.stays.values() for s in stays)
        return [
            _count(id, "times that a camera had two owners", self.diary.double, f"{stays} stays"),
            _count(id, "frames that are missing within a stay", self.diary.lost, f"of {frames}"),
            _count(id, "cameras of other machines that were disturbed", self.disturbed, ""),
            _count(id, "ledgers that do not close", self.wrong, f"of {self.ledgers}"),
        ]


def _count(id: str, what: str, found: int | list[str], detail: str) -> Figure:
    n = found if isinstance(found, int) else len(found)
    if isinstance(found, list) and found:
        detail = found[0]
    return Figure(
        id=id, what=what, value=n, low=n, high=n, n=1, target=NONE, detail=detail
    )  # fmt: skip


def _p95(id: str, what: str, seconds: Sequence[float], target: Target | None = None) -> Figure:
    p50, p95, top = np.quantile(seconds, (0.5, 0.95, 1))
    detail = f"p50 {p50:.2f}, p95 {p95:.2f}, max {top:.2f}"
    return median(id, what, seconds, target, q=0.95, detail=detail)


@contextmanager
def on_cluster(cameras: int, lease_s: float) -> Iterator[tuple[Cluster, Trial]]:
    """Three nodes of `ray.cluster_utils.Cluster`."""
    with tempfile.TemporaryDirectory(prefix="manyeyes-nodes-") as name:
        cluster = Cluster(Path(name), NAMES)
        try:
            ports = fleets.free_ports(len(NAMES))
            keys = [{"host": "127.0.0.1", "port": port} for port in ports]
            with _up(cluster, Path(name), keys, cameras, lease_s) as trial:
                yield cluster, trial
        finally:
            cluster.close()


@contextmanager
def on_hosts(cameras: int, lease_s: float) -> Iterator[tuple[Hosts, Trial]]:
    """A head, and three machines in network namespaces."""
    with tempfile.TemporaryDirectory(prefix="manyeyes-nodes-") as name:
        hosts = Hosts(Path(name), ["head", *NAMES])
        try:
            for host in hosts.names:
                hosts.add(host)
            keys = [{"host": hosts.address_of(host)} for host in NAMES]
            with _up(hosts, Path(name), keys, cameras, lease_s) as trial:
                yield hosts, trial
        finally:
            hosts.close()


@contextmanager
def _up(
    cluster: Any, folder: Path, keys: Sequence[Mapping[str, Any]], cameras: int, lease_s: float
) -> Iterator[Trial]:
    each = max(2, round(0.75 * cameras))  # two of them bear all
    machines = {name: {"cameras": each, **more} for name, more in zip(NAMES, keys, strict=True)}
    names = fleets.write(folder, cluster.address, machines, cameras, RATE_HZ, lease_s)
    fleet = Fleet(folder, cluster)
    fleet("up")
    trial = Trial(fleet, names)
    trial.settle()
    yield trial
    fleet("down")
    trial.diary.look()


# -- what is done --------------------------------------------------------------------------------------


def kill(tries: int, cameras: int, lease_s: float) -> list[Figure]:
    """A node, by turns alone and with all that runs on it."""
    gaps_s, returns_s, back = [], [], []
    with on_cluster(cameras, lease_s) as (cluster, trial):
        for n in range(tries):
            name, whole = NAMES[n % len(NAMES)], n % 2 == 0
            gap_s, return_s, took = kill_one(cluster, trial, name, whole=whole)
            gaps_s.append(gap_s)
            returns_s.append(return_s)
            back.append(took)
            what = "and all on it" if whole else "alone"
            _tell(
                f"kill {n + 1}: {name} {what}: {gap_s:.1f} s; back after {return_s:.1f} s with {took}"
            )
    return [
        _p95("kill", "SIGKILL node: the last of its cameras is served elsewhere, p95 (s)", gaps_s, GAP),
        _p95("kill", "the node starts again: it serves a camera, p95 (s)", returns_s),
        median("kill", "cameras that it then has", back),
        *trial.figures("kill"),
    ]  # fmt: skip


def kill_one(cluster: Cluster, trial: Trial, name: str, *, whole: bool) -> tuple[float, float, int]:
    """Kill a node, and let it come back.

    Returns after how many seconds its cameras were served elsewhere, after how many it served one again,
    and how many it then has.
    """
    mine = trial.diary.of(name)
    with trial.undisturbed([c for c in trial.cameras if c not in mine]):
        killed_s = time.time()
        cluster.kill(name, whole=whole)
        gap_s = trial.wait_for(mine, killed_s, without=name) - killed_s
    trial.check()
    began_s = time.time()
    cluster.add(name)
    trial.settle()
    trial.check()
    back = trial.diary.of(name)
    return gap_s, min(trial.diary.stays[c][-1].first_s for c in back) - began_s, len(back)


def cut(tries: int, cameras: int, lease_s: float) -> list[Figure]:
    """A machine's cable is pulled, and put back."""
    with on_hosts(cameras, lease_s) as (hosts, trial):

        def revive() -> None:
            for name in NAMES:
                if not hosts.lives(name):  # its node had been given up
                    hosts.add(name)

        trial.turn = revive
        return _silenced("cut", tries, trial, hosts.cut, hosts.join)


def stop(tries: int, cameras: int, lease_s: float) -> list[Figure]:
    """The agent of a machine is stopped: it hears nothing, says nothing, and ends nothing."""
    with on_cluster(cameras, lease_s) as (cluster, trial):
        return _silenced(
            "stop", tries, trial,
            lambda name: os.kill(cluster.agent_of(name), signal.SIGSTOP),
            lambda name: os.kill(cluster.agent_of(name), signal.SIGCONT),
        )  # fmt: skip


def _silenced(
    id: str, tries: int, trial: Trial, begin: Callable[[str], None], end: Callable[[str], None]
) -> list[Figure]:
    """The controller does not hear a machine for a while, which may end about when its lease does."""
    gaps_s, rng = [], random.Random(1)
    for n in range(tries):
        name, length_s = NAMES[n % len(NAMES)], rng.uniform(*SILENT_S)
        mine = trial.diary.of(name)
        with trial.undisturbed([c for c in trial.cameras if c not in mine]):
            begun_s = time.time()
            begin(name)
            trial.wait_until(begun_s + length_s)
        end(name)
        trial.settle()
        trial.check()
        stays = [stay for c in mine for stay in trial.diary.stays[c] if stay.first_s > begun_s]
        gaps = [stay.first_s - begun_s for stay in stays if stay.machine != name]
        gaps_s += gaps
        last = f", the last after {max(gaps):.1f} s" if gaps else ""
        owners = f"two owners: {trial.diary.double}"
        _tell(
            f"{id} {n + 1}: {name} for {length_s:.1f} s: {len(gaps)} stays elsewhere{last}; {owners}"
        )
    return [
        _p95(id, "a machine is silent: a camera that moves is served, p95 (s)", gaps_s),
        *trial.figures(id),
    ]


def controller(tries: int, cameras: int, lease_s: float) -> list[Figure]:
    """The controller alone."""
    away_s = []
    with on_cluster(cameras, lease_s) as (cluster, trial):
        for n in range(tries):
            (pid,) = cluster.pids("ControllerActor")
            where = {camera: trial.diary.stays[camera][-1].machine for camera in trial.cameras}
            with trial.undisturbed(trial.cameras):
                killed_s = time.time()
                os.kill(pid, signal.SIGKILL)
                while not (found := cluster.pids("ControllerActor")) or found == [pid]:
                    trial.wait_until(time.time() + _LOOK_S)
                known = _who_runs_what(trial)
                while len(known) < len(where):  # not every machine has reported to it yet
                    trial.wait_until(time.time() + _LOOK_S)
                    known = _who_runs_what(trial)
                away_s.append(time.time() - killed_s)
                trial.wait_for(trial.cameras, time.time() + _CALM_S)
            if known != where:
                trial.disturbed.append(f"it took {known} for {where}")
            trial.check()
            _tell(f"controller {n + 1}: it knows all after {away_s[-1]:.1f} s: {known == where}")
    return [
        _p95("controller", "SIGKILL controller: another tells who runs what, p95 (s)", away_s),
        *trial.figures("controller"),
    ]


def _who_runs_what(trial: Trial) -> dict[str, str]:
    """Camera → machine, as the controller says."""
    told = trial.fleet.status()
    return {camera: name for name, row in told.items() for camera in row["cameras"]}


def upgrade(tries: int, cameras: int, lease_s: float) -> list[Figure]:
    """All machines, one after the other, are drained, started again and filled."""
    gaps_s: list[float] = []
    with on_cluster(cameras, lease_s) as (cluster, trial):
        for n in range(tries):
            for name in NAMES:
                mine, began_s = trial.diary.of(name), time.time()
                with trial.undisturbed([c for c in trial.cameras if c not in mine]):
                    trial.fleet("drain", name)
                    trial.settle(NAMES.replace(name, ""))
                cluster.kill(name)
                cluster.add(name)
                trial.fleet("drain", name, "--undo")
                trial.settle()
                gaps = trial.diary.gaps_s(began_s)
                gaps_s += gaps
                _tell(
                    f"upgrade {n + 1}: {name}: {len(mine)} cameras left, {len(gaps)} moves in all"
                )
                trial.check()
    frames = [gap * RATE_HZ - 1 for gap in gaps_s]
    return [
        _p95("upgrade", "between two frames of a camera that moves, p95 (s)", gaps_s),
        median("upgrade", "frames that a camera misses when it moves", frames),
        *trial.figures("upgrade"),
    ]


PARTS = {"kill": kill, "cut": cut, "stop": stop, "controller": controller, "upgrade": upgrade}


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tries", type=int, default=TRIES, help="of each")
    parser.add_argument("--cameras", type=int, default=CAMERAS, help="six at least")
    parser.add_argument("--lease", type=float, default=LEASE_S, help="seconds")
    parser.add_argument("--only", default=",".join(PARTS), help="comma-separated")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args()
    machine = Machine()
    parts = [PARTS[part] for part in options.only.split(",")]
    rows = [row for part in parts for row in part(options.tries, options.cameras, options.lease)]
    report("nodes", rows, machine, options.json)


if __name__ == "__main__":
    main()
