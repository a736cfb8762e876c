"""What the README shows is parsed, checked and run."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from patience import BOUND_S

from pipeline.face import cli
from pipeline.plan import config
from pipeline.plan.model_path import demo_model
from pipeline.testing import frame, run_inline
from stages.training import demo

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PYPROJECT = (ROOT / "pyproject.toml").read_text()
TRAINING = (ROOT / "stages/training/README.md").read_text()
MANYEYES = Path(sys.executable).with_name("manyeyes")


def blocks(language, page=README):
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [text for kind, text in found if kind == language]


def commands(program, page=README):
    lines = "\n".join(blocks("sh", page)).replace("\\\n", " ").splitlines()
    inline = re.findall(rf"`({program} [^`]+)`", page)
    return [line for line in [*lines, *inline] if line.startswith(f"{program} ")]


STREET, OBJECTS, PLACES, BLUR = blocks("toml")
STAGE, STAGE_TEST = blocks("python")


@pytest.fixture
def mypkg(tmp_path, monkeypatch):
    """A folder with the stage of the README in its package, as its reader would have it."""
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg" / "blur.py").write_text(STAGE)
    (tmp_path / "test_blur.py").write_text(STAGE_TEST)
    (tmp_path / "blur.toml").write_text(BLUR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "mypkg"]:
        del sys.modules[name]


def manyeyes(*arguments):
    return subprocess.run(
        [MANYEYES, *map(str, arguments)], capture_output=True, text=True, timeout=BOUND_S
    )


# -- commands --------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", commands("manyeyes", README + TRAINING))
def test_every_command_shown_exists_with_its_arguments_and_options(line):
    command, words = typer.main.get_command(cli.app), shlex.split(line)[1:]
    context = command.make_context("manyeyes", words[:1], resilient_parsing=True)
    while hasattr(command, "get_command"):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"there is no command {name!r}"
        command = found
        context = typer.Context(command, info_name=name, parent=context)
    command.make_context(command.name, words)  # raises for what it does not know or misses


def test_commands_are_found():
    assert len(commands("manyeyes")) >= 15
    assert len(commands("make")) >= 4


@pytest.mark.parametrize("line", commands("make"))
def test_every_target_shown_exists(line):
    target = line.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", sorted({*re.findall(r"`\[(\w+)\]`", README)}))
def test_what_is_named_in_brackets_is_an_extra_or_a_table_of_a_configuration(name):
    extras = tomllib.loads(PYPROJECT)["project"]["optional-dependencies"]
    assert name in extras or name in config.Config.model_fields


@pytest.mark.parametrize("path", re.findall(r"`((?:\w+/)+[\w./]*)`", README))
def test_every_path_named_exists(path):
    assert (ROOT / path).exists() or path.startswith(("mypkg/", "out/")), path


@pytest.mark.parametrize(
    "path", sorted({*re.findall(r"\b(?:pipeline|stages|benchmarks|tests)/[\w/]+", PYPROJECT)})
)
def test_every_path_that_says_who_needs_a_dependency_exists(path):
    assert (ROOT / path).exists() or (ROOT / f"{path}.py").exists(), path


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)", README))
def test_every_link_leads_somewhere(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("name", re.findall(r"`python -m ([\w.]+)", README))
def test_every_module_named_exists(name):
    assert importlib.util.find_spec(name) is not None


# -- configurations --------------------------------------------------------------------------------


def test_the_two_cameras(tmp_path, monkeypatch):
    (tmp_path / "street.toml").write_text(STREET)
    shutil.copy(demo_model(), tmp_path / "yolox.bundle")
    monkeypatch.setenv("GATE_USER", "u")
    monkeypatch.setenv("GATE_PASSWORD", "p")
    monkeypatch.chdir(tmp_path)
    loaded = config.load("street.toml")
    assert [camera.name for camera in loaded.camera] == ["gate", "yard"]
    checked = manyeyes("check", "street.toml")
    assert (checked.returncode, checked.stderr) == (0, "")
    drawn = manyeyes("graph", "street.toml", "--svg", "wiring.svg")
    assert (drawn.returncode, drawn.stderr) == (0, "")
    assert "capture.gate" in (tmp_path / "wiring.svg").read_text()


def test_the_objects(tmp_path, monkeypatch):
    (tmp_path / "objects.toml").write_text(OBJECTS)
    shutil.copy(demo_model(), tmp_path / "street.mp4")  # it is there, and nobody reads it
    monkeypatch.chdir(tmp_path)
    drawn = manyeyes("graph", "objects.toml")
    assert (drawn.returncode, drawn.stderr) == (0, "")
    assert "─► track" in drawn.stdout


def test_the_places_and_what_happens_there(tmp_path, monkeypatch):
    """On a rendered camera, with lines of exactly the keys that are shown."""
    text = PLACES.replace("street.mp4", "synthetic://?seed=1&frames=40")
    (tmp_path / "places.toml").write_text("[metrics]\nenabled = false\n" + text)
    monkeypatch.chdir(tmp_path)
    done = manyeyes("run", "places.toml", "--policy", "every")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in Path("happenings.jsonl").read_text().splitlines()]
    shown = json.loads(blocks("json")[1])
    crossed = next(line for line in lines if line["kind"] == "crossed")
    assert list(shown) == list(crossed)
    assert {line["kind"] for line in lines} >= {"appeared", "crossed", "entered"}
    asked = manyeyes("events", "places.toml", "--zone", "kerb", "--since", "2h", "--json")
    assert asked.returncode == 0, asked.stderr
    kept = [json.loads(line) for line in asked.stdout.splitlines()]
    assert {row["object"] for row in kept} == {
        line["object"] for line in lines if line.get("place") == "kerb"
    }
    assert "kerb" in manyeyes("events", "incidents.db").stdout
    why = manyeyes("explain", "places.toml", "--camera", "gate", "--at", "1m", "--within", "300")
    assert "there is no [[alert]]" in why.stdout


def test_the_event_shown_has_the_keys_of_a_real_one(mypkg):
    done = manyeyes("run", "synthetic://?frames=3", "--policy", "every", "--events", "out.jsonl")
    assert done.returncode == 0, done.stderr
    shown = json.loads(blocks("json")[0])
    real = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert len(real) == 3
    found = next(event for event in real if event["detections"])
    assert shown.keys() == found.keys()
    assert shown["detections"][0].keys() == found["detections"][0].keys()


# -- training --------------------------------------------------------------------------------------


def test_the_events_of_a_run_get_the_figures_of_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(demo_model(), "montreal.bundle")
    demo.render(tmp_path / "scenes", "val", 10)
    manyeyes("data", "split", "scenes", "-o", "montreal", "--parts", "train=0.2,test=0.8")
    shown = commands("manyeyes", TRAINING)
    judged = shown.index("manyeyes evaluate test.jsonl montreal-test --score montreal.bundle")
    for line in shown[judged - 2 : judged]:
        done = manyeyes(*shlex.split(line)[1:])
        assert done.returncode == 0, done.stderr
    figures = []
    for of in ("test.jsonl", "montreal.bundle"):
        done = manyeyes("evaluate", of, "montreal-test", "--json")
        assert done.returncode == 0, done.stderr
        figures.append(json.loads(done.stdout)["coco"])
    assert figures[0] == pytest.approx(figures[1], abs=1e-3)
    assert figures[1]["AP50"] > 0.5  # or equal figures would say little


# -- the stage -------------------------------------------------------------------------------------


def test_the_stage_is_short():
    assert len(STAGE.splitlines()) <= 25


def test_the_test_of_the_stage_passes_and_can_fail(mypkg):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_blur.py"]
    assert subprocess.run(command, capture_output=True).returncode == 0
    spoilt = STAGE.replace("(side, side)", "(1, 1)")
    assert spoilt != STAGE
    (mypkg / "mypkg" / "blur.py").write_text(spoilt)
    assert subprocess.run(command, capture_output=True).returncode == 1


def test_the_stage_gives_its_memory_and_keeps_the_frame_as_it_was(mypkg):
    from mypkg.blur import Blur, BlurConfig

    picture = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    before = picture.copy()
    (blurred,) = run_inline(Blur(BlurConfig(radius=3)), [frame(picture, frame_id=7)])
    assert np.array_equal(picture, before)
    assert blurred.info.frame_id == 7
    assert blurred.image.std() < picture.std() / 2
    assert run_inline(Blur(BlurConfig()), []) == []


def test_the_stage_runs_in_a_pipeline(mypkg):
    graph = manyeyes("graph", "blur.toml")
    assert re.search(r"^blur +mypkg\.blur:Blur", graph.stdout, re.MULTILINE), graph.stdout
    assert "─► blur" in graph.stdout
    sharpness = {}
    for name, text in (
        ("blurred", BLUR),
        ("sharp", re.sub(r"\[\[stage]].*?\n\n", "", BLUR, flags=re.S)),
    ):
        folder = mypkg / name
        folder.mkdir()
        same = re.sub("(seed=[12])", r"\1&frames=1", text)  # the same picture in both
        (folder / "run.toml").write_text("[metrics]\nenabled = false\n\n" + same)
        done = manyeyes("run", folder / "run.toml")
        assert done.returncode == 0, done.stderr
        assert ("mypkg" in text) == (name == "blurred")
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        assert {event["camera"] for event in events} == {"gate", "yard"}
        assert any(event["detections"] for event in events)
        for camera in ("gate", "yard"):
            picture = cv2.imread(str(folder / "snapshots" / f"{camera}.jpg"))
            edges = np.abs(cv2.Laplacian(picture[60:], cv2.CV_64F))  # below the title
            sharpness[name, camera] = np.percentile(edges, 90)  # boxes are sharp, but few pixels
    for camera in ("gate", "yard"):
        assert sharpness["blurred", camera] < sharpness["sharp", camera] / 2
