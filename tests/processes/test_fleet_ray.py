"""A fleet on Ray: one of three nodes is killed and comes back; nobody twice, nothing of the others lost.

They start a cluster of Ray and take minutes on a busy host, so they are run by hand:

    MANYEYES_RAY=1 python -m pytest tests/processes/test_fleet_ray.py

benchmarks/nodes.py does it twenty times with twelve cameras, and does more to a fleet than that.
"""

import json
import os
import shlex
import subprocess
import time
from importlib.util import find_spec

import pytest
from fleet_page import CERTIFICATE, blocks, fleet_toml

from benchmarks import nodes
from benchmarks.rig.clusters import Hosts
from benchmarks.rig.fleets import BOUND_S, Fleet

pytestmark = [
    pytest.mark.skipif(
        find_spec("ray") is None, reason="Ray is not here: pip install 'manyeyes[fleet]'"
    ),
    pytest.mark.skipif(
        not os.environ.get("MANYEYES_RAY"),
        reason="starts a cluster of Ray, for minutes: set MANYEYES_RAY=1",
    ),
    pytest.mark.timeout(900),
]
CAMERAS = 4  # so that one has two of them
LEASE_S = 12.0  # so that a host that is busy with other tests takes none


def test_a_node_is_killed_and_comes_back():
    with nodes.on_cluster(CAMERAS, LEASE_S) as (cluster, trial):
        told = trial.fleet.status()
        assert {camera for row in told.values() for camera in row["cameras"]} == {*trial.cameras}
        nodes.kill_one(cluster, trial, "b", whole=True)
        happened = trial.fleet("events", "--json", "--each", "--limit", "1000").splitlines()
        assert {json.loads(line)["machine"] for line in happened} <= {*nodes.NAMES}
        assert happened
    assert trial.diary.double == []
    assert trial.diary.lost == 0
    assert trial.disturbed == []
    assert (trial.wrong, trial.ledgers > 0) == ([], True)


def is_served(machine):
    """All that it has, and it has something."""
    return {row["state"] for row in machine["cameras"].values()} == {"up"}


@pytest.fixture
def hosts(tmp_path):
    """The three machines of docs/fleet.md, at their addresses, in network namespaces."""
    try:
        hosts = Hosts(tmp_path, ["hall-a", "hall-b", "office"])
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces are to be had here: {error}")
    yield hosts
    hosts.close()


def test_from_one_machine_to_three_that_come_and_go(hosts, tmp_path):
    """The page, command by command, each on its machine."""
    (tmp_path / "hall-a.json").write_text(CERTIFICATE)
    (tmp_path / "fleet.toml").write_text("\n".join([blocks("toml")[1], fleet_toml()]))
    lines = [shlex.split(line, comments=True) for line in blocks("sh")[1].splitlines()]
    token, niceness, *starts, up, status = lines
    assert [word.partition("=")[0] for word in token] == [
        "export",
        "RAY_AUTH_MODE",
        "RAY_AUTH_TOKEN_PATH",
    ]
    assert niceness == ["export", "RAY_worker_niceness=0"]
    assert len(starts) == 3
    for _, *words in starts:
        hosts.ray(words[-1].removeprefix("machine="), *words)
    fleet = Fleet(tmp_path, hosts)
    assert "the controller has fleet.toml" in fleet(*up[2:3])
    end = time.monotonic() + BOUND_S
    while not all(map(is_served, (told := fleet.status()).values())):
        assert time.monotonic() < end, told
    told = fleet(*status[2:3], "--json")
    cameras = {row["name"]: list(row["cameras"]) for row in json.loads(told)["machines"]}
    assert cameras == {"hall-a": ["gate"], "hall-b": ["yard"], "office": ["press"]}
    fleet("down")
