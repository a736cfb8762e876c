"""Clusters of Ray on this host whose nodes can be killed, cut off and started again.

`Cluster` is `ray.cluster_utils.Cluster`, in a process of its own, since this one is to have nothing of
Ray's threads and hooks. `Hosts` is a network namespace a machine, with a cable to pull; it takes root.

    python -m benchmarks.rig.clusters NAMES          the process of a Cluster
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rig.measure import ROOT

SMALL = {"num_cpus": 1, "object_store_memory": 80_000_000}  # as docs/fleet.md has it
_BOUND_S = 120.0


def environment(folder: Path) -> dict[str, str]:
    """Of every process of a cluster, with a token that is written into the folder."""
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    return {
        **os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "PYTHONPATH": str(ROOT),
    }  # fmt: skip


def descendants(pid: int) -> Iterator[int]:
    """All processes that it has started, and they."""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from descendants(child)


def kill_all(pids: Sequence[int]) -> None:
    """With SIGKILL, those that still live."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Cluster:
    """A head node, and a node for each of some machines, all with the address of this host."""

    before: tuple[str, ...] = ()  # what a command starts with, to be run at the head

    def __init__(self, folder: Path, names: str) -> None:
        """names: a letter a machine."""
        self.environment = environment(folder)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.rig.clusters", names], env=self.environment, cwd=folder,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.address = self._said()

    def kill(self, name: str, *, whole: bool = True) -> None:
        """With SIGKILL; whole: and all that runs there, as if it had lost its power."""
        raylet = int(self._tell(f"raylet {name}"))
        below = list(descendants(raylet)) if whole else []
        self._tell(f"kill {name}")
        kill_all(below)

    def add(self, name: str) -> None:
        """The node comes back."""
        self._tell(f"add {name}")

    def pids(self, actor: str) -> list[int]:
        """The processes of the actors of a class."""
        return _titled(actor, self._process.pid)

    def agent_of(self, name: str) -> int:
        """The process of a machine's agent. Raises ValueError if there is none, or several."""
        (pid,) = _titled("AgentActor", int(self._tell(f"raylet {name}")))
        return pid

    def close(self) -> None:
        """All nodes end."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(_BOUND_S)

    def _tell(self, line: str) -> str:
        print(line, file=self._process.stdin, flush=True)
        return self._said()

    def _said(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline().strip()):
            raise RuntimeError("the cluster of Ray has ended, or did not begin")
        return line


class Hosts:
    """Machines that are network namespaces, at 10.0.0.11, 10.0.0.12, …; the first has the head."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        """Raises subprocess.CalledProcessError where no namespace may be made."""
        self.environment, self.folder = environment(folder), folder
        self.names = list(names)
        self._mark = f"me{os.getpid()}"
        self.address = "10.0.0.11:6379"
        self.before = self.at(self.names[0])
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", self._switch, "address", "add", "10.0.0.1/24", "dev", "switch")
        _ip("-n", self._switch, "link", "set", "switch", "up")
        for name in self.names:
            space, cable = self._space(name), self._cable(name)
            _ip("netns", "add", space)
            _ip(
                "-n",
                self._switch,
                "link",
                "add",
                cable,
                "type",
                "veth",
                "peer",
                "eth0",
                "netns",
                space,
            )
            _ip("-n", self._switch, "link", "set", cable, "master", "switch", "up")
            _ip("-n", space, "address", "add", f"{self.address_of(name)}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                _ip("-n", space, "link", "set", link, "up")
            _ip(
                "-n", space, "route", "add", "default", "via", "10.0.0.1"
            )  # as Ray finds its address

    def address_of(self, name: str) -> str:
        """Without a port."""
        return f"10.0.0.{11 + self.names.index(name)}"

    def at(self, name: str) -> tuple[str, ...]:
        """What a command starts with, to be run on a machine."""
        return ("ip", "netns", "exec", self._space(name))

    def add(self, name: str) -> None:
        """Its node of Ray starts. Raises CalledProcessError."""
        is_head = name == self.names[0]
        kind = ["--head", "--port=6379", "--include-dashboard=false"] if is_head else []
        self.ray(
            name, "start", *(kind or [f"--address={self.address}"]), f"--labels=machine={name}",
            *(f"--{key.replace('_', '-')}={value}" for key, value in SMALL.items()),
        )  # fmt: skip

    def ray(self, name: str, *words: str) -> None:
        """A command of Ray on a machine. Raises CalledProcessError."""
        program = str(Path(sys.executable).with_name("ray"))
        subprocess.run(
            [*self.at(name), program, *words], env=self.environment, cwd=self.folder, check=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=_BOUND_S,
        )  # fmt: skip

    def lives(self, name: str) -> bool:
        """Whether its node of Ray does; one that was cut off for long ends."""
        return any(b"raylet/raylet" in _command(pid) for pid in self._pids(name))

    def cut(self, name: str) -> None:
        """Pull its cable."""
        _ip("-n", self._switch, "link", "set", self._cable(name), "down")

    def join(self, name: str) -> None:
        """Put it back."""
        _ip("-n", self._switch, "link", "set", self._cable(name), "up")

    def kill(self, name: str) -> None:
        """All that runs there, with SIGKILL."""
        while pids := self._pids(name):
            kill_all(pids)
            time.sleep(0.05)

    def close(self) -> None:
        """All ends, and the namespaces are gone."""
        for name in self.names:
            self.kill(name)
            _ip("netns", "del", self._space(name))
        _ip("netns", "del", self._switch)

    @property
    def _switch(self) -> str:
        return f"{self._mark}-switch"

    def _space(self, name: str) -> str:
        return f"{self._mark}-{name}"

    def _cable(self, name: str) -> str:
        return f"cable{self.names.index(name)}"

    def _pids(self, name: str) -> list[int]:
        return [int(pid) for pid in _ip("netns", "pids", self._space(name)).split()]


def _titled(actor: str, below: int) -> list[int]:
    title = f"ray::{actor}".encode()
    return [pid for pid in descendants(below) if _command(pid).startswith(title)]


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


# -- in the process of a Cluster ---------------------------------------------------------------------


def main() -> None:
    """Say the address, then do what the lines of standard input say."""
    from ray.cluster_utils import Cluster as RayCluster

    cluster = RayCluster(
        initialize_head=True,
        head_node_args={**SMALL, "include_dashboard": False, "labels": {"machine": "head"}},
    )

    def add(name: str) -> Any:
        return cluster.add_node(**SMALL, labels={"machine": name})

    nodes = {name: add(name) for name in sys.argv[1]}
    print(cluster.address, flush=True)
    for line in sys.stdin:
        what, name = line.split()
        told: Any = what
        if what == "raylet":
            told = nodes[name].all_processes["raylet"][0].process.pid
        elif what == "kill":
            cluster.remove_node(nodes[name], allow_graceful=False)
        else:
            nodes[name] = add(name)
        print(told, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
