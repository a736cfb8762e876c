"""The average follows the weights at once, batch-norm statistics and all."""

from __future__ import annotations

import torch
from torch import nn

from stages.training.ema import Ema


def test_the_ramp_and_the_statistics() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2))
    ema = Ema(model, 0.998)
    start = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight.add_(1.0)
        model[1].running_mean.fill_(5.0)
        model[1].num_batches_tracked.fill_(3)
    ema.update(model)
    average = ema.model
    assert isinstance(average, nn.Sequential)
    torch.testing.assert_close(average[0].weight, start + 0.9)  # the first decay is 1 / 10
    torch.testing.assert_close(average[1].running_mean, torch.full((2,), 4.5))
    assert average[1].num_batches_tracked == 3
    assert not average.training
    for _ in range(300):
        ema.update(model)
    torch.testing.assert_close(average[1].running_mean, torch.full((2,), 5.0))


def test_it_goes_on_where_it_was_saved() -> None:
    model = nn.Linear(3, 1)
    one, other = Ema(model, 0.99), Ema(model, 0.99)
    for _ in range(3):
        one.update(model)
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        model.weight.mul_(2)
    one.update(model)
    other.update(model)
    assert torch.equal(one.model.weight, other.model.weight)
    assert one.updates == other.updates == 4
