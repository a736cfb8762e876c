"""`benchmarks.gpu` without a GPU: what it says, and what of it runs anywhere."""

import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch

from benchmarks import detectors, gpu
from benchmarks.rig.measure import ROOT, Figure, Target


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_one_sentence_and_78():
    found = run("--quick")
    assert found.returncode == 78
    assert found.stdout == ""
    assert found.stderr.count("\n") == 1
    assert "sees no CUDA device; `--device cpu --quick` needs none" in found.stderr


@pytest.mark.parametrize(
    "arguments", [("--parts", "z"), ("--models", ""), ("--models", "ssd300,x")]
)
def test_unknown_parts_and_models_are_named(arguments):
    found = run("--device", "cpu", *arguments)
    assert found.returncode == 78
    assert f"benchmarks.gpu: {arguments[0]}" in found.stderr
    assert "wanted some of" in found.stderr


def test_missing_wheels_are_named(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "WHEELS", {"numpy": "numpy", "no_such": "no-such", "nor_this": "nor"})
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu"])
    with pytest.raises(SystemExit) as caught:
        gpu.main()
    assert caught.value.code == 78
    assert "this Python has no no-such, nor; bring their wheels" in capsys.readouterr().err


def test_pictures_lie_in_slots_that_nobody_can_write():
    pictures = np.random.default_rng(0).integers(0, 256, (3, 8, 16, 3), np.uint8)
    with detectors.in_slots(pictures) as views:
        assert np.array_equal(views, pictures)
        for view in views:
            with pytest.raises(ValueError, match="read-only"):
                view[0] = 0


@pytest.mark.parametrize("target", [None, Target(sign="≥", limit=0.9)])
def test_a_figure_comes_back_from_a_document(target):
    figure = Figure(id="e", what="x", value=1.0, low=0.9, high=1.1, n=3, target=target)
    row = {**asdict(figure), "verdict": figure.verdict, "better": "higher", "unit": ""}
    assert gpu.figure_of(row) == figure
