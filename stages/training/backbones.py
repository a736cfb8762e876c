"""Feature extractors: a torchvision classifier cut before its pooling, and SSD levels on top of it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops.misc import Conv2dNormActivation, FrozenBatchNorm2d

from pipeline.errors import ConfigError

_CUT = re.compile(r"^(?P<name>\w+?)(\[:(?P<end>\d+)\])?$")
_HEADS = ("classifier", "fc", "avgpool", "head", "heads", "dropout", "flatten", "permute", "norm")


class Levels(nn.Module):
    """Stages one after the other; the outputs of those from `first` on are the feature maps."""

    def __init__(self, stages: Sequence[nn.Module], first: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.first = first

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Normalised pictures (B, 3, H, W) -> feature maps, the finest first."""
        out: dict[str, Tensor] = {}
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i >= self.first:
                out[str(i)] = x
        return out


def trunk(backbone: str, *, width_mult: float, weights: Path | None) -> list[nn.Module]:
    """The blocks of a torchvision classifier, in order, up to its pooling or the cut.

    Args:
        backbone: a name of `torchvision.models`, such as "resnet18", or one with a cut, such as
            "mobilenet_v2[:14]": the first fourteen blocks.
        width_mult: of the channels; other than 1 only where torchvision's function takes it.
        weights: a state dict of the whole network or of the part that is kept.
    """
    parts = _CUT.match(backbone)
    known = torchvision.models.list_models(module=torchvision.models)
    name = parts["name"] if parts else backbone
    if parts is None or name not in known:
        raise ConfigError(
            f"backbone '{backbone}': wanted a classifier of torchvision, with a cut if need be, such "
            f"as mobilenet_v2 or mobilenet_v2[:14]{did_you_mean(name, known)}"
        )
    options: dict[str, Any] = {} if width_mult == 1.0 else {"width_mult": width_mult}
    try:
        network = torchvision.models.get_model(name, weights=None, **options)
    except TypeError as error:
        raise ConfigError(
            f"backbone '{name}': width_mult {width_mult} is not offered; leave it at 1, or take "
            "mobilenet_v2"
        ) from error
    blocks = _blocks(network)
    if parts["end"]:
        end = int(parts["end"])
        if not 1 <= end <= len(blocks):
            raise ConfigError(
                f"backbone '{backbone}': the cut must be within 1..{len(blocks)}, got {end}"
            )
        blocks = blocks[:end]
    if weights is not None:
        _load(network, blocks, weights, name)
    return blocks


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about an unknown name: a guess, or nothing."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _blocks(network: nn.Module) -> list[nn.Module]:
    blocks: list[nn.Module] = []
    for name, child in network.named_children():
        if name in _HEADS or "aux" in name.lower():
            break
        inner = isinstance(child, nn.Sequential) and name in ("features", "layers", "trunk_output")
        blocks.extend(child.children() if inner else [child])
    return blocks


def _load(network: nn.Module, blocks: list[nn.Module], weights: Path, name: str) -> None:
    state = read_state(weights)
    kept = {id(p) for block in blocks for p in block.parameters()}
    wanted = {key for key, p in network.named_parameters() if id(p) in kept}
    own = network.state_dict()
    fits = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    missing = sorted(wanted - fits.keys())
    if missing:
        key = missing[0]
        got = f"shape {tuple(state[key].shape)}" if key in state else "no such tensor"
        raise ConfigError(
            f"{weights}: does not fit the backbone '{name}': wanted {key} of shape "
            f"{tuple(own[key].shape)}, got {got} ({len(missing)} of {len(wanted)} tensors differ); "
            "pass weights of that network"
        )
    network.load_state_dict(fits, strict=False)


def read_state(path: Path) -> dict[str, Any]:
    """The state dict in a file, alone or under "model" or "state_dict"; runs no code of the file."""
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such file; wanted weights (a state dict saved by torch.save)"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for what is no file of its own
        raise ConfigError(
            f"{path}: wanted a state dict of tensors and plain values (torch.save), got a file that "
            f"does not open as one ({type(error).__name__}); save model.state_dict() instead"
        ) from error
    if isinstance(state, dict):
        for key in ("model", "state_dict"):
            if isinstance(state.get(key), dict):
                state = state[key]
    if not isinstance(state, dict) or not any(isinstance(v, Tensor) for v in state.values()):
        raise ConfigError(
            f"{path}: wanted a state dict, got {type(state).__name__} without tensors"
        )
    return {str(k): v for k, v in state.items() if isinstance(v, Tensor)}


def strides(blocks: Sequence[nn.Module], width: int, height: int) -> list[tuple[int, int]]:
    """(channels, rows) of what each block gives for a canvas of that size."""
    x = torch.zeros(1, 3, height, width)
    sizes = []
    with torch.no_grad():
        for block in blocks:
            try:
                x = block.eval()(x)
                flat = x.ndim != 4
            except AssertionError:  # of a transformer's block, about its input
                flat = True
            if flat:
                raise ConfigError("the backbone gives no feature maps (B, C, H, W); take a CNN")
            sizes.append((int(x.shape[1]), int(x.shape[2])))
    return sizes


def blocks_of(backbone: nn.Module) -> list[nn.Module]:
    """The blocks of any detector's backbone that run one after the other, without its pyramid."""
    body = next(
        getattr(backbone, n) for n in ("body", "features", "stages") if hasattr(backbone, n)
    )
    out: list[nn.Module] = []
    for child in body.children():
        out.extend(child.children() if type(child) is nn.Sequential else [child])
    return out


def stages_of(blocks: Sequence[nn.Module], width: int, height: int) -> list[list[nn.Module]]:
    """Blocks grouped by the size of what they give: from one halving of the picture to the next."""
    groups: list[list[nn.Module]] = []
    before = 0
    for block, (_, rows) in zip(blocks, strides(blocks, width, height), strict=True):
        if rows != before:
            groups.append([])
        groups[-1].append(block)
        before = rows
    return groups


def levels(
    blocks: Sequence[nn.Module], *, width: int, height: int, first_stride: int, count: int
) -> tuple[Levels, list[int]]:
    """SSD feature maps: the backbone's from `first_stride` px on, then halved by extra blocks.

    Returns:
        The extractor, and the channels of each of its maps (at most `count`; fewer on a small canvas,
        as the last one is never under 2 px wide and high before it is halved).
    """
    groups = stages_of(blocks, width, height)
    parts: list[nn.Module] = [nn.Sequential(*group) for group in groups]
    sizes = strides(parts, width, height)
    fine = [i for i, (_, rows) in enumerate(sizes) if round(height / rows) >= first_stride]
    if not fine:
        raise ConfigError(
            f"the backbone's coarsest features are {round(height / sizes[-1][1])} px apart, finer than "
            f"first_stride {first_stride}; take a smaller first_stride or cut less of the backbone"
        )
    stages = parts[: fine[0] + count]
    channels = [sizes[i][0] for i in fine][:count]
    rows = sizes[len(stages) - 1][1]
    while len(channels) < count and rows >= 2:
        stages.append(_halve(channels[-1], max(32, min(channels[-1], 512) // 2)))
        channels.append(max(32, min(channels[-1], 512) // 2))
        rows = (rows + 1) // 2
    return Levels(stages, fine[0]), channels


def _halve(channels: int, out: int) -> nn.Sequential:
    # As the extra layers of torchvision's ssdlite: reduce, depthwise stride 2, expand.
    norm: Callable[..., nn.Module] = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
    conv = partial(Conv2dNormActivation, norm_layer=norm, activation_layer=nn.ReLU6)
    half = out // 2
    return nn.Sequential(
        conv(channels, half, kernel_size=1),
        conv(half, half, kernel_size=3, stride=2, groups=half),
        conv(half, out, kernel_size=1),
    )


def freeze_norms(module: nn.Module) -> None:
    """Every BatchNorm2d inside becomes a FrozenBatchNorm2d with its statistics and weights."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, eps=child.eps)
            frozen.load_state_dict(child.state_dict())
            setattr(module, name, frozen)
        else:
            freeze_norms(child)


def single(blocks: Sequence[nn.Module], channels: int) -> nn.Module:
    """All blocks as one feature map with `out_channels`, as Faster R-CNN wants it."""
    backbone: Any = Levels([nn.Sequential(*blocks)], 0)
    backbone.out_channels = channels
    return cast(nn.Module, backbone)
