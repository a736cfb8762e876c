"""docs/fleet.md, as it stands there: from one machine to three, with rendered cameras on this one."""

import json
import re
import shlex
import signal
import socket
import time

import pytest
from fleet_page import CERTIFICATE, ROOT, blocks, fleet_toml
from patience import BOUND_S


def free_ports(n):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


@pytest.fixture
def fleet(manyeyes):
    """The page's file, with machines that are this one."""
    ports = iter(free_ports(3))
    here = re.compile(r'^host = "10.*$', re.M)
    text = here.sub(lambda _: f'host = "127.0.0.1"\nport = {next(ports)}', fleet_toml())
    manyeyes.write(CERTIFICATE, "hall-a.json")
    manyeyes.write(text, "fleet.toml")
    return manyeyes


def commands():
    lines = blocks("sh")[0].splitlines()
    assert len(lines) == 5
    return [shlex.split(line)[1:] for line in lines]


def test_the_readme_has_the_same_five_commands():
    assert blocks("sh")[0] in (ROOT / "README.md").read_text()


def wait_for_all(manyeyes, status):
    end = time.monotonic() + BOUND_S
    while True:
        code, out, err = manyeyes(*status, "--json")
        if code == 0:
            return json.loads(out)["machines"]
        assert code == 1, err
        assert time.monotonic() < end, out


def test_from_one_machine_to_three(fleet):
    plan, *ups, status = commands()
    code, out, err = fleet(*plan)
    assert code == 0, err
    assert "start `fleet up` again on: hall-a, hall-b, office" in out
    code, _, err = fleet(*status)
    assert (code, err) == (1, "manyeyes: not served: gate, yard, press\n")
    runs = [fleet.start(*up) for up in ups]
    try:
        machines = wait_for_all(fleet, status)
        cameras = {row["name"]: list(row["cameras"]) for row in machines}
        assert cameras == {"hall-a": ["gate"], "hall-b": ["yard"], "office": ["press"]}
        assert {row["state"] for row in machines} == {"serving"}
    finally:
        for run in runs:
            run.send_signal(signal.SIGTERM)
        ends = [run.communicate(timeout=BOUND_S) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], ends
    assert {"hall-a.db", "hall-b.db", "office.db"} <= {str(path) for path in fleet.files()}
    code, out, err = fleet("fleet", "events", "fleet.toml", "--each", "--json", "--limit", "1000")
    assert code == 0, err
    happened = [json.loads(line) for line in out.splitlines()]
    assert {row["machine"]: row["camera"] for row in happened}.items() <= {
        ("hall-a", "gate"), ("hall-b", "yard"), ("office", "press"),
    }  # fmt: skip
    assert happened, "the stub sees nothing but what is rendered"
    times = [row["time"] for row in happened]
    assert times == sorted(times, reverse=True)
    fleet.assert_nothing_left()


def test_a_machine_is_drained_and_its_camera_moves(fleet):
    assert fleet(*commands()[0])[0] == 0
    code, out, err = fleet("fleet", "drain", "fleet.toml", "hall-b", "--json")
    assert code == 0, err
    assert json.loads(out)["moves"] == [
        {"camera": "yard", "from": "hall-b", "to": "office", "why": "hall-b is drained"}
    ]
    code, out, _ = fleet("fleet", "up", "fleet.toml", "--machine", "hall-b")
    assert (code, out) == (0, "hall-b has no camera; nothing is run\n")
    code, out, _ = fleet("fleet", "plan", "fleet.toml")
    assert "nothing moves" in out


BAD = {
    "a camera that no machine takes": (
        ('needs = "gpu"', 'needs = "tpu"'), ("plan", "fleet.toml", "--write"),
        "fleet.toml: camera 'press': no machine has 'tpu'; add it to the labels of one",
    ),
    "up without a machine": (("", ""), ("up", "fleet.toml"), "--machine, one of hall-a, hall-b, office"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_nothing_moves(fleet, name):
    change, command, words = BAD[name]
    path = fleet.folder / "fleet.toml"
    path.write_text(path.read_text().replace(*change))
    before = fleet.files()
    code, _, err = fleet("fleet", *command)
    assert code == 78, err
    assert err.count("\n") == 1
    assert words in err
    assert fleet.files() == before
