"""A run that is killed goes on as if nothing had happened; several processes train as one."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from patience import BOUND_S

from pipeline.errors import ConfigError, DataError, ModelError
from stages.training import checkpoint
from stages.training.plan import load_plan
from stages.training.runs import train

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
}


def start(
    kind: str, data: Path, run: Path, *, resume: bool = False, **changes: Any
) -> subprocess.Popen[str]:
    program = [sys.executable, str(ROOT / "tests/tiny_runs.py"), kind, str(data), str(run)]
    rest = ["resume" if resume else "new", json.dumps(changes)]
    return subprocess.Popen(
        [*program, *rest],
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def losses_of(process: subprocess.Popen[str]) -> list[dict[str, float]]:
    output, _ = process.communicate(timeout=BOUND_S)
    assert process.returncode == 0, output
    return steps_in(output)


def steps_in(output: str) -> list[dict[str, float]]:
    lines = [line for line in output.splitlines() if line.startswith("step ")]
    return [json.loads(line.split(" ", 2)[2]) for line in lines]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    tiny_runs.draw(folder, "train", 10)
    tiny_runs.draw(folder, "val", 4)
    return folder


def same(a: Any, b: Any) -> bool:
    """Equal through and through, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.timeout(600)  # four processes that import torch, one after the other
def test_killed_and_resumed_ends_with_the_same_weights(data: Path, tmp_path: Path) -> None:
    changes = {"epochs": 3, "save_every": 2, "balanced": True}  # three steps an epoch
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    losses_of(start("fcos", data, whole, **changes))

    for killed_at in (1, 6):  # before the first checkpoint; behind one inside an epoch
        process = start("fcos", data, broken, resume=killed_at > 1, **changes)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(f"step {killed_at} "):
                break
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=BOUND_S)
        assert process.returncode == -signal.SIGKILL
    losses_of(start("fcos", data, broken, resume=True, **changes))

    for name in ("last.pt", "best.pt"):
        one, other = checkpoint.load(whole / name), checkpoint.load(broken / name)
        one.pop("commit"), other.pop("commit")  # of the code, not of the run
        assert same(one, other), name
    lines = (broken / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


@pytest.mark.timeout(600)
def test_two_processes_learn_like_one(data: Path, tmp_path: Path) -> None:
    one = losses_of(start("retinanet", data, tmp_path))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2",
                "--master-addr=127.0.0.1", f"--master-port={port}"]  # fmt: skip
    program = [str(ROOT / "tests/tiny_runs.py"), "retinanet", str(data), str(tmp_path), "new", "{}"]
    done = subprocess.run(
        [*torchrun, *program],
        env=ENVIRONMENT, text=True, capture_output=True, timeout=BOUND_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    two = steps_in(done.stdout)
    assert len(one) == len(two) == 21
    for step in range(20):
        assert two[step] == pytest.approx(one[step], abs=1e-4), step


def test_a_plan_survives_its_file(data: Path, tmp_path: Path) -> None:
    plan = tiny_runs.plan(epochs=1, freeze=("backbone.body.0",))
    sets = [tiny_runs.datasets.load(data, split=split) for split in ("train", "val")]
    train(plan, sets[0], sets[1], tmp_path / "run")
    settled = plan.settled(*(len(data.samples) for data in sets))
    assert load_plan(tmp_path / "run") == settled


def test_refusals(data: Path, tmp_path: Path) -> None:
    plan = tiny_runs.plan(epochs=1)
    training, validation = (
        tiny_runs.datasets.load(data, split=split) for split in ("train", "val")
    )
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match="nothing to resume"):
        train(plan, training, validation, run, resume=True)
    train(plan, training, validation, run)
    with pytest.raises(ConfigError, match="exists already"):
        train(plan, training, validation, run)
    with pytest.raises(ConfigError, match="another plan"):
        train(tiny_runs.plan(epochs=1, batch=5), training, validation, run, resume=True)
    other = tiny_runs.draw(tmp_path / "other", "train", 5, seed=1)
    with pytest.raises(DataError, match="training data set has changed"):
        train(plan, other, validation, run, resume=True)
    other_model = dataclasses.replace(plan.model, width=128)
    state = checkpoint.load(run / "last.pt")
    checkpoint.save(run / "last.pt", {**state, "config": other_model.to_json()})
    with pytest.raises(ModelError, match="is a checkpoint of fcos_tiny with another"):
        train(plan, training, validation, run, resume=True)
