"""docs/architectures.md says what can be trained, and each of its rows is true."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision

from stages.training import detr, models
from stages.training.models import ModelConfig
from stages.training.train import BY_PARTS, TrainConfig

DOCS = Path(__file__).parents[3] / "docs" / "architectures.md"


def rows() -> list[list[str]]:
    """The cells of the table, without its head."""
    lines = [
        line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_every_architecture_has_its_row():
    assert sorted(row[0].strip("`") for row in rows()) == sorted(models.ARCHITECTURES)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0].strip("`"))
def test_a_row_says_what_is_so(row):
    name = row[0].strip("`")
    config = TrainConfig().settled(100, name, canvas_wh_px=(1280, 704))
    queries, on_backbone = name in detr.NAMED, name in models.HEADS
    source = "transformers" if queries else "here" if name == "fcos_tiny" else "torchvision"
    published = name in torchvision.models.list_models(module=torchvision.models.detection)
    assert row[1] == source + ", on `--backbone`" * on_backbone
    assert row[3] == f"{config.optimizer}, {config.lr:g}"
    assert row[4] == ("yes" if config.part_px else "no")
    assert config.part_px == 0 or name.startswith(BY_PARTS)
    assert row[5] == ("no" if queries else "yes")
    assert row[6] == ("a folder" if queries else "`COCO_V1`" if published else "–")
    if published:
        assert "COCO_V1" in torchvision.models.get_model_weights(name).__members__


@pytest.mark.parametrize(
    "row", [row for row in rows() if row[2] != "–"], ids=lambda row: row[0].strip("`")
)
def test_a_row_has_the_size_of_its_network(row):
    name = row[0].strip("`")
    if name in detr.NAMED:
        pytest.importorskip("transformers", reason="the extra detr is not installed")
    config = ModelConfig(architecture=name, classes=("a", "b", "c"), width=640, height=640)
    with torch.device("meta"):  # shapes alone: nothing is computed
        model = detr.Detr(config) if name in detr.NAMED else models._named(config, None)
    assert float(row[2]) == round(sum(p.numel() for p in model.parameters()) / 1e6, 1)
