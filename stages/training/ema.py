"""The exponential moving average of a model's weights, ramped so that it is right from the first step."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class Ema:
    """Averages every float of a model, batch-norm statistics included.

    After update n (from 0) the decay is min(decay, (1 + n) / (10 + n)), as in TensorFlow's
    ExponentialMovingAverage with `num_updates`: with a constant decay the averaged batch-norm
    statistics lag behind the weights for hundreds of steps, and a short run ends with a useless model.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """decay: 0..1, the share of the old average that stays at each update."""
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Called once after each step of the optimiser."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for average, value in zip(_tensors(self.model), _tensors(model), strict=True):
            if average.is_floating_point():
                averages.append(average)
                values.append(value)
            else:  # counters
                average.copy_(value)
        if averages:
            torch._foreach_lerp_(averages, values, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: weights and the number of updates."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """Each once, where a state dict names one that is shared by several modules several times."""
    return itertools.chain(model.parameters(), model.buffers())
