import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stages.detector.group_norm import group_norm, rewrite


def normalised(x, groups, weight, bias, eps):
    """The definition, in double precision."""
    b, c, *sides = x.shape
    rows = x.double().reshape(b, groups, -1)
    mean, variance = rows.mean(2, keepdim=True), rows.var(2, keepdim=True, correction=0)
    y = ((rows - mean) / (variance + eps).sqrt()).reshape(x.shape)
    shape = (1, c, *(1 for _ in sides))
    return (y * weight.double().view(shape) + bias.double().view(shape)).float()


@given(
    batch=st.integers(1, 4),
    groups=st.integers(1, 8),
    channels=st.integers(1, 8),  # a group
    sides=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    level=st.floats(-10, 10),
    seed=st.integers(0, 1000),
)
def test_equals_the_definition_and_stays_channels_last(batch, groups, channels, sides, level, seed):
    torch.manual_seed(seed)
    c = groups * channels
    x = (torch.randn(batch, c, *sides) + level).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(c), torch.randn(c)
    y = group_norm(x, groups, weight, bias, 1e-2, False)
    torch.testing.assert_close(y, normalised(x, groups, weight, bias, 1e-2), atol=1e-3, rtol=1e-3)
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("level", [0.0, 1.0, 1000.0])
def test_a_flat_picture_becomes_its_bias_as_nearly_as_torch_has_it(level):
    x = torch.full((2, 4, 3, 5), level).contiguous(memory_format=torch.channels_last)
    bias = torch.arange(4.0)
    ours = group_norm(x, 2, torch.ones(4), bias, 1e-5, False) - bias.view(1, 4, 1, 1)
    theirs = torch.group_norm(x, 2, torch.ones(4), bias) - bias.view(1, 4, 1, 1)
    assert ours.abs().max() <= theirs.abs().max()


@pytest.mark.parametrize("x", [torch.randn(2, 4, 6, 5), torch.randn(2, 4, 7), torch.randn(2, 4)])
def test_what_is_not_channels_last_is_left_to_torch(x):
    weight, bias = torch.randn(4), torch.randn(4)
    wanted = torch.group_norm(x, 2, weight, bias, 1e-5, False)
    assert torch.equal(group_norm(x, 2, weight, bias, 1e-5, False), wanted)
    assert torch.equal(
        group_norm(x, 2, None, None, 1e-5, False), torch.group_norm(x, 2, None, None)
    )


def test_a_frozen_model_is_rewritten_and_says_the_same():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    nn.init.normal_(model[1].weight), nn.init.normal_(model[1].bias)
    x = torch.randn(2, 3, 16, 12).contiguous(memory_format=torch.channels_last)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.filterwarnings("ignore", r"`torch\.jit\.")
        module = torch.jit.freeze(
            torch.jit.script(model.eval().to(memory_format=torch.channels_last))
        )
        wanted = module(x).clone()
        rewrite(module)
        assert "aten::rsqrt" in str(module.graph)
        torch.testing.assert_close(module(x), wanted, atol=1e-5, rtol=1e-5)
        single = module(x.contiguous())  # laid out in another way: the other branch
        torch.testing.assert_close(single, wanted, atol=1e-5, rtol=1e-5)
