"""The parity gate: the file that was just written finds what the training model finds.

Both see the same letterboxed pictures, alone and in a batch. Compared are all candidates above a low
score, before NMS: NMS is the same function of them for both, and would only blur a small difference
into a large one. The training model is torchvision's own detector, with its NMS switched off; what it
finds beyond all that the artefact can hold is left out, since an untrained one finds something everywhere.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pipeline.errors import ConfigError, ModelError
from stages.detector import layouts
from stages.detector.bundle import Facts
from stages.detector.engines import Engine
from stages.detector.layouts import Candidates
from stages.imaging.letterbox import prepare
from stages.training.candidates import ROW_BYTES
from stages.training.models import ModelConfig, label_offset

Image = npt.NDArray[np.uint8]

MANY = 4  # pictures of the larger batch
TOLERANCE = {  # px, score, lowest score that is compared
    "fp32": (0.05, 1e-3, 0.01),
    "fp16": (2.0, 3e-2, 0.2),
    "bf16": (8.0, 2e-1, 0.4),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """What was compared, and the largest differences."""

    pictures: int
    batches: tuple[int, ...]
    candidates: int  # compared, over all pictures and batch sizes
    box_px: float
    score: float
    precision: str

    def __str__(self) -> str:
        """One line for the terminal."""
        return (
            f"{self.candidates} candidates on {self.pictures} pictures, batches of "
            f"{' and '.join(map(str, self.batches))}, {self.precision}: none unmatched, boxes within "
            f"{self.box_px:.2g} px, scores within {self.score:.2g}"
        )


def compare(
    model: nn.Module,
    config: ModelConfig,
    engine: Engine,
    facts: Facts,
    pictures: Sequence[Image],
    *,
    precision: str = "fp32",
) -> Parity:
    """Raise ModelError unless engine and training model agree on every picture.

    Args:
        model: built by `models.build`; not changed.
        engine: runs the artefact.
        pictures: uint8 (H, W, 3) BGR, any sizes; at least one, better ten that show objects.
        precision: of the artefact; decides what counts as equal (`TOLERANCE`).
    """
    if not pictures:
        raise ConfigError("export: the parity gate needs at least one picture, got none")
    inputs = np.stack([prepare(p, facts.input, facts.resize)[0] for p in pictures])
    lowest = TOLERANCE[precision][2]
    rows = facts.output_bytes_per_image // ROW_BYTES
    reference = _reference(model, config, inputs, lowest, rows)
    worst_px, worst_score, count = 0.0, 0.0, 0
    batches = tuple(sorted({1, min(MANY, max(facts.batch_sizes))}))
    for batch in batches:
        for i, found in enumerate(_found(engine, facts, inputs, batch, lowest)):
            where = f"picture {i}, batch {batch}"
            px, score, n = _difference(reference[i], found, precision, where)
            worst_px, worst_score, count = max(worst_px, px), max(worst_score, score), count + n
    return Parity(
        pictures=len(pictures),
        batches=batches,
        candidates=count,
        box_px=worst_px,
        score=worst_score,
        precision=precision,
    )


@torch.no_grad()
def _reference(
    model: nn.Module, config: ModelConfig, inputs: Image, lowest: float, rows: int
) -> list[Candidates]:
    """Above `lowest`, and of each level (SSD: of each class) at least the best that could be among `rows`.

    torchvision's NMS takes the square of their number, also where no IoU is too large for it.
    """
    stock: Any = copy.deepcopy(model).cpu().eval()
    part = getattr(stock, "roi_heads", stock)
    part.nms_thresh = 1.0  # no IoU is larger
    part.score_thresh = lowest
    part.detections_per_img, part.topk_candidates = 10**9, 2 * rows
    out = []
    for pixels in inputs:  # one by one: torchvision's result must not depend on its neighbours
        [found] = stock([torch.from_numpy(pixels).permute(2, 0, 1).float() / 255])
        labels = (found["labels"] - label_offset(config)).numpy()
        out.append(Candidates(found["boxes"].numpy(), found["scores"].numpy(), labels))
    return out


def _found(
    engine: Engine, facts: Facts, inputs: Image, batch: int, lowest: float
) -> list[Candidates]:
    out: list[Candidates] = []
    for start in range(0, len(inputs), batch):
        rows = [min(start + i, len(inputs) - 1) for i in range(batch)]  # the last one fills up
        for arrays in engine.infer(inputs[rows])[: len(inputs) - start]:
            layouts.check(arrays, facts, f"model '{facts.name}'")
            out.append(layouts.candidates([a.copy() for a in arrays], facts, lowest))
    return out


def _difference(
    wanted: Candidates, found: Candidates, precision: str, where: str
) -> tuple[float, float, int]:
    """Largest distances (px of corners, scores) of pairs that belong together, and how many."""
    tolerance_px, tolerance, lowest = TOLERANCE[precision]
    # What the artefact cuts off after K rows, and what is within a tolerance of that or of `lowest`,
    # may be on one side only.
    full = len(found.scores) and len(wanted.scores) > len(found.scores)
    edge = max(lowest, float(found.scores.min()) if full else 0.0) + tolerance
    worst_px, worst_score = 0.0, 0.0
    for ours, theirs, who in ((wanted, found, "misses"), (found, wanted, "invents")):
        for i in np.flatnonzero(ours.scores > edge):
            same = np.flatnonzero(theirs.labels == ours.labels[i])
            away = np.abs(theirs.xyxy[same] - ours.xyxy[i]).max(axis=1, initial=0.0)
            near = same[away <= tolerance_px]
            off = np.abs(theirs.scores[near] - ours.scores[i])
            if not len(near) or off.min() > tolerance:
                raise ModelError(
                    f"export: {where}: the exported model {who} a candidate of class "
                    f"{int(ours.labels[i])}, score {ours.scores[i]:.4f}, at "
                    f"{np.round(ours.xyxy[i], 2).tolist()} px (nearest box "
                    f"{away.min(initial=np.inf):.3g} px, score {off.min(initial=np.inf):.3g} away; "
                    f"allowed are {tolerance_px} px and {tolerance} in {precision}); nothing was "
                    "written"
                )
            worst_px = max(worst_px, float(away[np.isin(same, near)][off.argmin()]))
            worst_score = max(worst_score, float(off.min()))
    return worst_px, worst_score, int((wanted.scores > edge).sum())
