"""A checkpoint is whole or the old one, and opens without running code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from pipeline.errors import ModelError, ResourceError
from stages.training import checkpoint


def test_there_and_back(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    checkpoint.save(file, {"model": {"w": torch.arange(3.0)}, "step": 4, "ema": None})
    state = checkpoint.load(file)
    assert state["step"] == 4
    assert torch.equal(state["model"]["w"], torch.arange(3.0))
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_keeps_the_last_good_one(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    checkpoint.save(file, {"model": {}, "step": 1})
    (tmp_path / "a.pt.new").symlink_to("/dev/full")
    with pytest.raises(ResourceError, match=r"No space left on device.*the last good one is kept"):
        checkpoint.save(file, {"model": {"w": torch.zeros(100_000)}, "step": 2})
    assert checkpoint.load(file)["step"] == 1
    assert list(tmp_path.iterdir()) == [file]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"could not be written .*there is none yet"):
        checkpoint.save(tmp_path / "gone" / "a.pt", {"model": {}})


class Evil:
    def __reduce__(self) -> object:
        return os.mkdir, ("evil",)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps(Evil())])
def test_what_is_no_checkpoint(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "a.pt"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"a\.pt: wanted a checkpoint"):
        checkpoint.load(file)
    assert not (tmp_path / "evil").exists()


def test_torn_and_foreign_files(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    with pytest.raises(ModelError, match="no such file"):
        checkpoint.load(file)
    torch.save({"weights": 1}, file)
    with pytest.raises(ModelError, match="another kind of file"):
        checkpoint.load(file)
    checkpoint.save(file, {"model": {"w": torch.zeros(1000)}})
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ModelError, match="does not open as one"):
        checkpoint.load(file)
    torch.save({"model": {}, "format": 99}, file)
    with pytest.raises(ModelError, match="reads checkpoints of format 1, got format 99"):
        checkpoint.load(file)
