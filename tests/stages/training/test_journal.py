"""The log of a run: a line per epoch, once each, and one sentence when the disk is full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ResourceError
from stages.training import journal


def line(epoch: int, **more: Any) -> dict[str, Any]:
    return {"epoch": epoch, "lr": 0.1, "losses": {"box": 1.5}, "images_per_s": 2.0, **more}


def epochs(folder: Path) -> list[int]:
    text = (folder / journal.METRICS).read_text()
    return [json.loads(row)["epoch"] for row in text.splitlines()]


def test_epochs_that_are_done_again_are_written_once(tmp_path: Path) -> None:
    with journal.writer(tmp_path, 1) as write:
        for epoch in (1, 2, 3):
            write(line(epoch))
    with (tmp_path / journal.METRICS).open("a") as file:
        file.write('{"epoch": 4, "torn')  # killed while it wrote
    with journal.writer(tmp_path, 3) as write:
        write(line(3, validation={"ema": {"map": 0.5, "map_50": 0.8, "f1": 0.7}}))
    assert epochs(tmp_path) == [1, 2, 3]
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with journal.writer(tmp_path, 1) as write:
        write(line(1))
        (tmp_path / "metrics.new").symlink_to("/dev/full")
        with pytest.raises(ResourceError, match=r"No space left on device.*checkpoint is kept"):
            write(line(2))
    assert epochs(tmp_path) == [1]


def test_what_a_person_reads() -> None:
    text = journal.sentence(line(7, validation={"ema": {"map": 0.5, "map_50": 0.8, "f1": 0.7}}))
    assert text == "epoch 7: box 1.500; ema: mAP 0.500 AP50 0.800 F1 0.700; 2.0 pictures/s"
    assert journal.sentence(line(8)) == "epoch 8: box 1.500; 2.0 pictures/s"
