"""fleet.toml: what a machine gets of it, and what bad input gets."""

import json
import stat
import tomllib

import pytest

from pipeline.errors import ConfigError
from pipeline.fleet import config, placement, targets
from pipeline.fleet.placement import Placed
from pipeline.plan import config as run_config

MACHINE = '[[machine]]\nname = "a"\ncameras = 4\n'
CAMERA = '[[camera]]\nname = "gate"\nsource = "synthetic://?seed=1"\n'
WHOLE = """
[fleet]
targets = "targets.json"
[metrics]
host = "0.0.0.0"
[[machine]]
name = "a"
cameras = 4
labels = ["gpu", "x"]
near = "hall-a"
[[machine]]
name = "b"
certificate = "b.json"
host = "10.0.0.2"
port = 9200
[[camera]]
name = "gate"
source = "synthetic://?seed=1"
max_fps = 5
near = "hall-a"
needs = "gpu"
weight = 2
[[camera]]
name = "yard"
source = "clips/yard.mp4"
overlaps = "gate"
[[zone]]
name = "door"
camera = "gate"
polygon = [[0.1, 0.1], [0.5, 0.1], [0.1, 0.5]]
[[line]]
name = "way"
camera = "yard"
points = [[0.1, 0.1], [0.5, 0.1]]
[[sink]]
type = "store"
path = "{machine}/store.db"
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "fleet.toml"
        path.write_text(text)
        (tmp_path / "b.json").write_text('{"benchmark": "capacity", "cameras": 7}')
        (tmp_path / "clips").mkdir(exist_ok=True)
        (tmp_path / "clips" / "yard.mp4").touch()
        return path

    return write


def test_what_is_read(write):
    fleet = config.load(write(WHOLE))
    gate, yard = fleet.cameras
    assert (gate.weight, gate.needs, gate.near) == (2, {"gpu"}, "hall-a")
    assert (yard.weight, yard.needs, yard.near, yard.overlaps) == (1, frozenset(), None, {"gate"})
    a, b = fleet.machines
    assert (a.capacity, a.labels, a.near) == (4, {"gpu", "x"}, "hall-a")
    assert b.capacity == 7, "from its certificate"
    assert fleet.addresses == {"a": "a:9108", "b": "10.0.0.2:9200"}


def test_a_machine_runs_a_file_that_a_run_takes_with_its_cameras_alone(write):
    fleet = config.load(write(WHOLE))
    run = run_config.load(fleet.write_run("b", {"yard"}))
    assert [camera.name for camera in run.camera] == ["yard"]
    assert run.camera[0].source == str(fleet.file.parent / "clips/yard.mp4"), "paths mean the same"
    assert (run.zone, [line.name for line in run.line]) == ((), ["way"])
    assert run.sink[0].options["path"] == str(fleet.file.parent / "b/store.db")
    assert (run.metrics.host, run.metrics.port) == ("0.0.0.0", 9200)
    gate = run_config.load(fleet.write_run("a", {"gate"})).camera[0]
    assert gate.max_fps == 5
    assert gate.options == {}, "nothing of the fleet is left in it"


ALERTS = """
[[alert]]
name = "anybody"
kinds = ["appeared"]
to = ["file"]
[[alert]]
name = "at-places"
kinds = ["entered", "crossed"]
to = ["file"]
cameras = ["gate", "yard"]
zones = ["door"]
lines = ["way"]
[[alert]]
name = "inside"
kinds = ["entered"]
to = ["file"]
zones = ["door"]
[[alert]]
name = "out"
kinds = ["crossed"]
to = ["file"]
directions = ["out"]
[[target]]
name = "file"
type = "file"
path = "{machine}-alarms.jsonl"
[outbox]
path = "{machine}-outbox.db"
"""


def test_a_machine_has_the_alerts_that_speak_of_its_cameras(write):
    fleet = config.load(write(WHOLE + ALERTS))
    fleet.check()
    a = run_config.load(fleet.write_run("a", {"gate"}))
    assert [alert.name for alert in a.alert] == ["anybody", "at-places", "inside"]
    places = a.alert[1]
    assert (places.cameras, places.zones, places.lines) == (("gate",), ("door",), None)
    assert places.kinds == ("entered",), "no line of it is here"
    b = run_config.load(fleet.write_run("b", {"yard"}))
    assert [alert.name for alert in b.alert] == ["anybody", "at-places", "out"]
    assert (b.alert[1].zones, b.alert[1].lines) == (None, ("way",))
    assert b.alert[2].directions == ("out",)
    assert b.target[0].options["path"] == str(fleet.file.parent / "b-alarms.jsonl")
    assert b.outbox.path == fleet.file.parent / "b-outbox.db"


OVERLAP = """
[run]
max_cameras = 1
[[zone]]
name = "same"
camera = "yard"
polygon = [[0.1, 0.1], [0.5, 0.1], [0.1, 0.5]]
[[overlap]]
name = "hall"
zones = ["gate/door", "yard/same"]
"""


def test_an_overlap_is_where_its_cameras_are_and_there_may_be_more_than_one_machine_takes(write):
    fleet = config.load(write(WHOLE.replace('overlaps = "gate"', "") + OVERLAP))
    fleet.check()
    assert [camera.together for camera in fleet.cameras] == [{"yard"}, {"gate"}]
    assert run_config.load(fleet.write_run("a", {"gate"})).overlap == ()
    whole = fleet.run_of("b", {"gate", "yard"})
    assert whole["overlap"][0]["zones"] == ["gate/door", "yard/same"]
    assert whole["run"] == {"max_cameras": 1}, "of one machine"


def test_a_machine_may_be_measured_when_it_joins_where_somebody_sees_that(write):
    text = (
        "[fleet]\nplacement = 'ray'\n" + MACHINE.replace("cameras = 4", "measure_hz = 5") + CAMERA
    )
    assert config.load(write(text)).measured_hz == {"a": 5}


def test_metrics_that_are_not_wanted_stay_off(write):
    fleet = config.load(write(MACHINE + CAMERA + "[metrics]\nenabled = false\n"))
    assert run_config.load(fleet.write_run("a", {"gate"})).metrics.port is None


def test_prometheus_gets_the_machines_that_run_something(write, tmp_path):
    fleet = config.load(write(WHOLE))
    targets.write(fleet, Placed(where={"gate": "b", "yard": "b"}))
    written = json.loads((tmp_path / "targets.json").read_text())
    assert written == [{"targets": ["10.0.0.2:9200"], "labels": {"machine": "b"}}]


BAD = {
    "no machine": (CAMERA, "there is no machine; add a [[machine]]"),
    "no camera": (MACHINE, "there is no camera; add a [[camera]]"),
    "machine twice": (MACHINE * 2 + CAMERA, "machine 'a': the name is used twice"),
    "camera twice": (MACHINE + CAMERA * 2, "camera 'gate': the name is used twice"),
    "capacity unknown": (
        '[[machine]]\nname = "a"\n' + CAMERA,
        "machine 'a': its capacity is unknown; write cameras = NUMBER, or certificate = ",
    ),
    "capacity twice": (
        MACHINE + 'certificate = "b.json"\n' + CAMERA, "machine 'a': its capacity is said twice",
    ),
    "capacity that nobody measures": (
        MACHINE.replace("cameras = 4", "measure_hz = 5") + CAMERA,
        "machine 'a': with placement = 'static' nobody measures it when it joins; write cameras or",
    ),
    "capacity of nothing": (
        MACHINE.replace("4", "0") + CAMERA, "machine 'a': cameras must be a number of cameras > 0",
    ),
    "no certificate there": (
        MACHINE.replace("cameras = 4", 'certificate = "c.json"') + CAMERA,
        "c.json: can't be read: No such file or directory; correct the path",
    ),
    "another file": (
        MACHINE.replace("cameras = 4", 'certificate = "fleet.toml"') + CAMERA,
        "fleet.toml: is none; wanted the capacity.json of `manyeyes bench capacity`",
    ),
    "unknown key of a machine": (
        MACHINE + "camera = 3\n" + CAMERA, "machine 'a': unknown key 'camera'; did you mean 'cameras'?",
    ),
    "unknown key of the fleet": (
        "[fleet]\nlease = 3\n" + MACHINE + CAMERA, "[fleet]: unknown key 'lease'; did you mean 'lease_s'?",
    ),
    "unknown placement": (
        "[fleet]\nplacement = 'k8s'\n" + MACHINE + CAMERA, "placement must be 'static' or 'ray', got 'k8s'",
    ),
    "unknown key of a camera": (
        MACHINE + CAMERA + "nead = 'gpu'\n", "camera 'gate': unknown key 'nead'",
    ),
    "weight": (MACHINE + CAMERA + "weight = 0\n", "camera 'gate': weight must be a number > 0, in cameras"),
    "label": (MACHINE + CAMERA + "needs = ['g p u']\n", "camera 'gate': needs must be a label or a list"),
    "nowhere": (
        MACHINE + "near = 'hall-b'\n" + CAMERA + "near = 'hal-b'\n",
        "camera 'gate': near: there is no machine with near = 'hal-b'; did you mean 'hall-b'?",
    ),
    "overlap with nobody": (
        MACHINE + CAMERA + "overlaps = 'gats'\n",
        "camera 'gate': overlaps: there is no camera 'gats'; did you mean 'gate'?",
    ),
    "a mistake of a run": (
        MACHINE + CAMERA + "[model]\nscore_threshold = 40\n",
        "[model]: score_threshold must be within 0..1, got 40",
    ),
    "no tables": ("camera = 3\n" + MACHINE, "camera must be tables, each under [[camera]]"),
    "cameras that are none": ("camera = [1]\n" + MACHINE, "fleet.toml"),
    "a machine that is none": ("machine = [1]\n" + CAMERA, "fleet.toml"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(write, name):
    text, words = BAD[name]
    with pytest.raises(ConfigError) as caught:
        config.load(write(text)).check()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# -- who runs what, as a file ----------------------------------------------------------------------


def test_who_runs_what_is_read_as_it_was_written(write):
    fleet = config.load(write(WHOLE))
    assert placement.recall(fleet) == Placed()
    placed = Placed(where={"gate": "a", "yard": "b"}).drain("a", drained=True)
    placement.remember(fleet, placed)
    assert placement.recall(fleet) == placed
    assert placement.recall(fleet).drain("a", drained=False).drained == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"version": 2}',
        '{"version": 1, "where": {"gate": 3}, "drained": [], "machines": []}',
    ],
)
def test_a_file_that_says_something_else_is_refused(write, text):
    fleet = config.load(write(WHOLE))
    placement.file_of(fleet).write_text(text)
    with pytest.raises(ConfigError, match="remove it, and plan anew"):
        placement.recall(fleet)


def test_a_camera_without_a_machine_is_not_forgotten(write):
    fleet = config.load(write(WHOLE))
    placed = Placed(where={"gate": "a"})
    with pytest.raises(
        ConfigError, match="camera 'yard': no machine is said for it yet; `manyeyes"
    ):
        placement.cameras_of(fleet, placed, "a")
    assert placement.cameras_of(fleet, Placed(where={"gate": "a", "yard": "b"}), "a") == ("gate",)


def test_the_part_of_a_machine_says_where_it_comes_from(write):
    fleet = config.load(write(WHOLE))
    path = fleet.write_run("a", {"gate"})
    text = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600, "sources may hold tokens"
    path.with_name(f"{path.name}.part").touch(0o644)  # of one that was killed
    assert stat.S_IMODE(fleet.write_run("a", {"gate"}).stat().st_mode) == 0o600
    assert text.startswith("# a's part of fleet.toml; written by `manyeyes fleet`, change that one")
    assert tomllib.loads(text)["camera"][0]["name"] == "gate"
