"""A fleet on Ray: three nodes on this host, one of them killed, the controller killed, nobody twice.

It starts a cluster of Ray and takes minutes, so it is run by hand:

    MANYEYES_RAY=3 python -m pytest tests/processes/test_fleet_ray.py      with so many cameras, 12 at most
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
from command import MANYEYES

WANTED = os.environ.get("MANYEYES_RAY", "")
pytestmark = [
    pytest.mark.skipif(
        find_spec("ray") is None, reason="Ray is not here: pip install 'manyeyes[fleet]'"
    ),
    pytest.mark.skipif(
        not WANTED, reason="starts a cluster of Ray, for minutes: set MANYEYES_RAY=3"
    ),
    pytest.mark.timeout(900),
]
CAMERAS = min(12, int(WANTED or 0))
BOUND_S = 120.0
SMALL = {"num_cpus": 1, "object_store_memory": 80_000_000}
HEAD = """
[fleet]
placement = "ray"
address = "ADDRESS"
[model]
engine = "stub"
[metrics]
enabled = false
[[sink]]
type = "events"
path = "{machine}.jsonl"
[[sink]]
type = "store"
path = "{machine}.db"
"""
_CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster
small = json.loads(sys.argv[1])
cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
add = lambda name: cluster.add_node(**small, labels={"machine": name})
nodes = {name: add(name) for name in "abc"}
print(cluster.address, flush=True)
for line in sys.stdin:
    what, name = line.split()
    if what == "kill":
        cluster.remove_node(nodes[name], allow_graceful=False)
    else:
        nodes[name] = add(name)
    print(what, flush=True)
cluster.shutdown()
"""


class Cluster:
    """In a process of its own, since this one is to have nothing of Ray's threads and hooks."""

    def __init__(self, folder):
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        self.environment = {
            **os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CLUSTER, json.dumps(SMALL)], env=self.environment, cwd=folder,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.address = self.process.stdout.readline().strip()

    def tell(self, what, name):
        print(what, name, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline().strip() == what

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


@pytest.fixture
def fleet(tmp_path):
    cluster = Cluster(tmp_path)
    each = max(2, round(0.75 * CAMERAS))  # two of them bear all
    machines = [f'[[machine]]\nname = "{name}"\ncameras = {each}\n' for name in "abc"]
    cameras = [
        f'[[camera]]\nname = "c{i}"\nsource = "synthetic://?seed={i}&rate=5&size=320x180"\n'
        for i in range(CAMERAS)
    ]
    text = "\n".join([HEAD.replace("ADDRESS", cluster.address), *machines, *cameras])
    (tmp_path / "fleet.toml").write_text(text)
    fleet = Fleet(tmp_path, cluster)
    yield fleet
    with contextlib.suppress(AssertionError):
        fleet("down")
    cluster.close()


class Fleet:
    """`manyeyes fleet`, in its folder."""

    def __init__(self, folder, cluster):
        self.folder, self.cluster = folder, cluster

    def __call__(self, command, *arguments, codes=(0,)):
        done = subprocess.run(
            [*MANYEYES, "fleet", command, "fleet.toml", *arguments], cwd=self.folder,
            env=self.cluster.environment, capture_output=True, text=True, timeout=BOUND_S,
        )  # fmt: skip
        assert done.returncode in codes, done.stdout + done.stderr
        return done.stdout

    def wait_for(self, condition):
        """The time at which all cameras were served, and the condition held, of where they are."""
        end = time.monotonic() + BOUND_S
        while time.monotonic() < end:
            told = json.loads(self("status", "--json", codes=(0, 1)))
            where = {
                name: machine["name"]
                for machine in told["machines"]
                for name, row in machine["cameras"].items()
                if row["state"] == "up"
            }
            if len(where) == CAMERAS and condition(set(where.values())):
                return where
        raise AssertionError(f"it did not happen in time: {told}")

    def events(self):
        """(camera, wall time, machine, frame) of every result, in the order of time."""
        return sorted(
            (event["camera"], event["time"], path.stem, event["frame_id"])
            for path in self.folder.glob("?.jsonl")
            for event in map(json.loads, path.read_text().splitlines())
        )

    def stays(self):
        """Camera → (first, last, machine) of every run that served it, in the order of time."""
        stays = {}
        last = {}
        for camera, moment, machine, frame in self.events():
            known = last.get((camera, machine), (-1, None))
            if frame <= known[0] or known[1] is None:
                known = (frame, [moment, moment, machine])
                stays.setdefault(camera, []).append(known[1])
            known[1][1] = moment
            last[camera, machine] = (frame, known[1])
        return stays


def pids(name):
    """Of the processes that have this title."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(f"ray::{name}".encode()):
                yield int(path.parent.name)


def agent_of(machine):
    """The process of the agent whose guard has the run of this machine."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"pipeline.fleet.guard" in words and words[-2].endswith(f".{machine}.toml".encode()):
                return int((path.parent / "stat").read_text().rpartition(")")[2].split()[1])
    raise AssertionError(f"there is no run of {machine}")


def test_three_nodes_one_is_killed_and_comes_back(fleet):
    fleet("up")
    fleet.wait_for(lambda machines: machines == {"a", "b", "c"})
    before = len(fleet.events())
    for pid in pids("ControllerActor"):
        os.kill(pid, signal.SIGKILL)
    fleet.wait_for(lambda machines: machines == {"a", "b", "c"})
    assert len(fleet.events()) > before
    assert all(len(stays) == 1 for stays in fleet.stays().values()), "nobody has noticed"
    stayed = [camera for camera, (stay,) in fleet.stays().items() if stay[2] != "b"]
    fleet.cluster.tell("kill", "b")
    fleet.wait_for(lambda machines: machines == {"a", "c"})
    assert {len(fleet.stays()[camera]) for camera in stayed} == {1}, "the others have not noticed"
    fleet.cluster.tell("add", "b")
    fleet.wait_for(lambda machines: machines == {"a", "b", "c"})
    stopped = agent_of("c")
    os.kill(stopped, signal.SIGSTOP)  # it hears nothing, says nothing, and stops nothing
    fleet.wait_for(lambda machines: machines == {"a", "b"})
    os.kill(stopped, signal.SIGCONT)
    fleet.wait_for(lambda machines: machines == {"a", "b", "c"})
    fleet("drain", "a")
    fleet.wait_for(lambda machines: machines == {"b", "c"})
    told = [json.loads(line) for line in fleet("events", "--json", "--each").splitlines()]
    assert {row["machine"] for row in told} & {"b", "c"}
    fleet("down")
    for camera, stays in fleet.stays().items():
        print(camera, *stays, sep="\n  ")
        for (_, end, *_), (begin, *_) in pairwise(stays):
            assert end < begin, f"{camera} had two owners"
    assert sum(len(stays) for stays in fleet.stays().values()) > CAMERAS
