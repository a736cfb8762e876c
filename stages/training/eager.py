"""A training model where an engine is wanted: what a run folder holds, before it is exported."""

from __future__ import annotations

import torch
from torch import nn

from stages.detector.bundle import Facts
from stages.detector.engine import BaseEngine, Image, Outputs, Settings
from stages.training.candidates import candidates
from stages.training.models import ModelConfig


class Eager(BaseEngine):
    """The layout of `models.layout`, in float32; the model itself is not changed."""

    def __init__(
        self, model: nn.Module, config: ModelConfig, facts: Facts, device: torch.device
    ) -> None:
        super().__init__(facts, Settings())
        self.device = str(device)
        self._network = candidates(model, config).to(device).eval()

    @torch.no_grad()
    def _infer(self, batch: Image) -> list[Outputs]:
        pixels = torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2)
        outputs = [output.cpu().numpy() for output in self._network(pixels)]
        return list(zip(*outputs, strict=True))
