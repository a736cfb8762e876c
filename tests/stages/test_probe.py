"""What the libraries here can do, tried in a process of its own."""

import json
import subprocess
import sys

import av
import pytest

from stages import probe


def test_everything_is_tried_and_a_clip_is_left(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "stages.probe", str(tmp_path)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert said.keys() == probe.PROBES.keys()
    assert said["opencv"]["found"].startswith("OpenCV")
    assert said["torch"]["found"].startswith("torch")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == probe.FRAMES


def test_what_breaks_is_said_and_the_rest_is_tried(tmp_path, monkeypatch):
    def broken(folder):
        raise OSError("libGL.so.1: cannot open shared object file\nmore")

    monkeypatch.setattr(
        probe, "PROBES", {"opencv": broken, "empty": lambda folder: int(""), "fine": str}
    )
    said = probe.probe(tmp_path)
    assert said["opencv"] == {"error": "libGL.so.1: cannot open shared object file"}
    assert "invalid literal" in said["empty"]["error"]
    assert said["fine"] == {"found": str(tmp_path)}


@pytest.mark.parametrize("where", ["nowhere", "file/below"])
def test_a_folder_that_is_not_there_costs_the_clip_alone(tmp_path, where):
    said = probe.probe(tmp_path / where)
    assert "error" in said["h264"]
    assert "found" in said["ffmpeg"]
