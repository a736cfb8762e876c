"""Files of the form in which models of the list are published, for places without a network.

Those of torchvision are its own architectures with random weights (`conditioned`), the others ONNX files
with the outputs of the published ones, which find one object whatever they see.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.conditioned import conditioned
from stages.detector import importing
from stages.detector.twin import quiet
from stages.detector.zoo import Entry
from stages.training.models import ModelConfig

COCO_ROWS = 91  # of torchvision's weights, which have background and "N/A" among them
_CONDITIONED_PX = 320  # weights do not depend on the canvas; smaller is faster

Tables = dict[str, Tensor]  # by the name of an output


def write(entry: Entry, path: Path) -> None:
    """A stand-in for the file of this entry; takes a second, or up to twenty for torchvision's."""
    name = entry.recipe.get("torchvision")
    if name:
        torch.save(conditioned(as_published(name, _CONDITIONED_PX)).state_dict(), path)
        return
    size = importing.parse_size(entry.recipe["size"])[0]
    answers = _Answers(_ANSWERS[entry.recipe["layout"]](entry.name, size))
    with quiet():
        torch.onnx.export(
            answers,
            (torch.zeros(1, 3, size, size),),
            str(path),
            dynamo=False,
            input_names=["images"],
            output_names=answers.names,
        )


def as_published(name: str, side_px: int) -> ModelConfig:
    """Of as many rows as torchvision's weights; `build` adds the background where there is one."""
    rows = COCO_ROWS - (not name.startswith(("retinanet", "fcos")))
    classes = tuple(f"row {i}" for i in range(rows))
    return ModelConfig(architecture=name, classes=classes, width=side_px, height=side_px)


class _Answers(nn.Module):
    """Answers any picture with these tables."""

    def __init__(self, tables: Tables) -> None:
        super().__init__()
        self.names = list(tables)
        for name, table in tables.items():
            self.register_buffer(name, table)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        nothing = 0 * images.mean()
        return tuple(self.get_buffer(name) + nothing for name in self.names)


def _cells(size: int, strides: tuple[int, ...]) -> list[int]:
    return [(-(-size // stride)) ** 2 for stride in strides]


def _yolox(name: str, size: int) -> Tables:
    """Raw predictions of 80 classes; one object in the first cell."""
    rows = torch.zeros(1, sum(_cells(size, (8, 16, 32))), 85)
    rows[0, 0, 4:8] = 0.9
    return {"output": rows}


def _gfl(name: str, size: int) -> Tables:
    """80 classes and four sides of 8 bins; PicoDet has an output for each stride."""
    cells = _cells(size, (8, 16, 32, 64))
    scores, sides = torch.full((1, sum(cells), 80), 0.01), torch.zeros(1, sum(cells), 32)
    scores[0, cells[0] // 2, 2] = 0.9
    if name.startswith("nanodet"):
        return {"output": torch.cat([scores, sides], dim=2)}
    parts = [*scores.split(cells, dim=1), *sides.split(cells, dim=1)]
    return {f"t{i}": part for i, part in enumerate(parts)}


def _yunet(name: str, size: int) -> Tables:
    tables = {
        f"{part}_{stride}": torch.zeros(1, (size // stride) ** 2, columns)
        for part, columns in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
        for stride in (8, 16, 32)
    }
    tables["cls_8"][0, 900] = tables["obj_8"][0, 900] = 0.9
    return tables


_ANSWERS: dict[str, Callable[[str, int], Tables]] = {
    "yolox-raw": _yolox,
    "gfl": _gfl,
    "yunet": _yunet,
}
