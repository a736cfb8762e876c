"""What is installed runs: the container image's own steps, in folders where nothing and everything lies."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from patience import BOUND_S

ROOT = Path(__file__).parent.parent
PACKAGES = ("pipeline", "stages", "benchmarks")
# Files of these names in the user's folder: ours, the standard library, what children load first.
HOSTILE = (*PACKAGES, *sys.stdlib_module_names, "numpy", "zmq", "msgpack", "cv2", "av", "torch")
BLUR = '''
from dataclasses import dataclass

from pipeline.messages import Frame
from pipeline.stage import Stage


@dataclass(frozen=True)
class Nothing:
    pass


class Same(Stage):
    """Gives what it takes, through memory of its own."""

    Config = Nothing

    @classmethod
    def slot_bytes(cls, config: Nothing, frame_bytes: int) -> int:
        return frame_bytes

    def process(self, frame: Frame) -> Frame:
        image = self.runtime.empty(frame.image.shape, "uint8")
        image[:] = frame.image
        return frame.with_image(image)
'''
RUN = """
[model]
engine = "stub"
[run]
policy = "every"
[metrics]
enabled = false
[[camera]]
name = "gate"
source = "synthetic://?seed=1&size=96x64&frames=5&realtime=false"
[[stage]]
name = "same"
run = "mypkg.same:Same"
[[sink]]
type = "events"
path = "events.jsonl"
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from exactly what the Dockerfile copies."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for line in (ROOT / "deploy/Dockerfile").read_text().splitlines():
        words = line.split()
        if words[:1] != ["COPY"] or words[1].startswith("--from"):
            continue
        if line.endswith(".toml"):
            continue  # a configuration, for the second part of the image
        for name in words[1:-1]:
            if (ROOT / name).is_dir():
                kept = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, source / name, ignore=kept)
            else:
                shutil.copy(ROOT / name, source / name)
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    (built,) = folder.glob("*.whl")
    return built


def _pip(*arguments, python=sys.executable):
    # the libraries of this environment, and no registry: what is tested is ours
    command = [sys.executable, "-m", "pip", "--python", python, *map(str, arguments)]
    command += ["--no-index", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """`bin` of a new environment: our wheel, and the libraries of this one."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # named in a .pth, they are searched, and links in them to this working tree are not followed
    libraries = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "libraries.pth").write_text("\n".join(libraries))
    _pip("install", "--no-deps", wheel, python=folder / "bin" / "python")
    return folder / "bin"


@pytest.fixture
def run(installed, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()

    def call(*arguments, program="manyeyes", **variables):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        done = subprocess.run(
            [installed / program, *map(str, arguments)], cwd=folder, env=clean | variables,
            capture_output=True, text=True, timeout=BOUND_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call.folder = folder
    return call


def test_all_files_that_are_no_code_are_in_the_wheel(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            name = path.relative_to(ROOT).as_posix()
            if path.is_file() and "__pycache__" not in name and path.suffix != ".md":
                assert name in inside
    assert "stages/detector/demo.bundle" in inside


def test_help_and_the_demo_from_an_empty_folder(run):
    where = run("-c", "import pipeline; print(pipeline.__file__)", program="python")
    assert not where.startswith(str(ROOT) + os.sep)
    assert "bench" in run("--help")
    run("demo", "--seconds", "3", "--cameras", "2")
    events = (run.folder / "out/demo/events.jsonl").read_text().splitlines()
    assert {json.loads(event)["camera"] for event in events} == {"cam0", "cam1"}


def test_a_folder_full_of_names_that_are_taken_hides_nothing(run):
    for name in HOSTILE:
        (run.folder / f"{name}.py").write_text(f"raise SystemExit('{name} of the current folder')")
    package = run.folder / "mypkg"
    package.mkdir()
    (package / "same.py").write_text(BLUR)
    (run.folder / "run.toml").write_text(RUN)
    events = run.folder / "events.jsonl"
    run("run", "run.toml")
    assert len(events.read_text().splitlines()) == 5
    # `PYTHONPATH=$PYTHONPATH:…` has an empty part, the current folder: -E keeps it from the first
    # interpreter alone, which would not come up
    events.unlink()
    script = "from pipeline.face.cli import main; main()"
    run("-P", "-E", "-c", script, "run", "run.toml", program="python", PYTHONPATH=os.pathsep)
    assert len(events.read_text().splitlines()) == 5


def test_a_stage_is_found_by_pythonpath_too(run, tmp_path):
    package = tmp_path / "elsewhere" / "mypkg"
    package.mkdir(parents=True)
    (package / "same.py").write_text(BLUR)
    (run.folder / "run.toml").write_text(RUN)
    run("run", "run.toml", PYTHONPATH=str(package.parent))
    assert len((run.folder / "events.jsonl").read_text().splitlines()) == 5
