"""Weights for a detector: torchvision's by name, or a file; rows of the head are kept by class name."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import SSD300_VGG16_Weights

from pipeline.errors import ConfigError
from stages.detector import archive, download
from stages.training import detr
from stages.training.backbones import did_you_mean, read_state

log = logging.getLogger("manyeyes")
COCO = tuple(SSD300_VGG16_Weights.COCO_V1.meta["categories"])  # 91 rows, "__background__" the first
_EPS_0 = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn")  # whose COCO_V1 was trained so
_PER_CLASS = (  # tensors with rows for each class, and how many
    (re.compile(r"\.(class_embed(\.\d+)?|enc_score_head)\.(weight|bias)$"), 1),
    (re.compile(r"\.enc_out_class_embed\.\d+\.(weight|bias)$"), 1),
    (re.compile(r"classification_head\.(cls_logits|module_list\.\d+(\.1)?)\.(weight|bias)$"), 1),
    (re.compile(r"box_predictor\.cls_score\.(weight|bias)$"), 1),
    (re.compile(r"box_predictor\.bbox_pred\.(weight|bias)$"), 4),
)
_OF_TRAINING = "denoising_class_embed.weight"  # a row a class, of a task of training alone
_BEST = "best.pt"  # of a run folder
_COUNTER = "num_batches_tracked"  # of a batch norm; frozen ones have none


def load(
    model: nn.Module,
    architecture: str,
    names: Sequence[str],
    weights: str | Path,
    *,
    published: bool = False,
) -> None:
    """Fill `model`, whose head's rows stand for `names`; raises ConfigError where that can't be.

    weights: a file, a run folder, a folder of transformers, or the name of torchvision's weights for this
    architecture; published: the file is one of those, COCO_V1, which is also seen by its digest.
    """
    path = Path(weights)
    if (path / _BEST).is_file():
        path = path / _BEST
    published = published or _is_published(path, architecture)
    state, old = _read(path, str(weights), architecture, names, published)
    if architecture in _EPS_0 and (published or str(weights) == "COCO_V1"):
        # Their norms have eps 0 and ours 1e-5: the same sum under the root, and no flag to keep.
        state = {k: v - 1e-5 if k.endswith("running_var") else v for k, v in state.items()}
    own = model.state_dict()
    ready: dict[str, Tensor] = {}
    for key in (k for k in state if k in own):
        repeats = next((n for pattern, n in _PER_CLASS if pattern.search(key)), None)
        same_form = own[key].shape[1:] == state[key].shape[1:]
        same_rows = own[key].shape == state[key].shape and old in (None, tuple(names))
        if key.endswith(_OF_TRAINING) and not same_rows:
            ready[key] = own[key]
        elif repeats and same_form and not same_rows:
            where = f"{weights}: {key}"
            ready[key] = _by_name(own[key], state[key], names, old, repeats, where)
        else:
            ready[key] = state[key]
    _fit(model, ready, state, str(weights))


def load_backbone(backbone: nn.Module, architecture: str, path: Path) -> None:
    """Fill the backbone of a torchvision detector from weights of the classifier that it is."""
    state = read_state(path)
    own = backbone.state_dict()
    fits: dict[str, Tensor] = {}
    for key, value in state.items():
        names = [key, f"body.{key}", f"body.{key.removeprefix('features.')}"]
        if architecture == "ssd300_vgg16" and (number := re.match(r"features\.(\d+)\.", key)):
            # the last three convolutions of VGG are the first of torchvision's extra blocks
            names.append(f"extra.0.{int(number[1]) - 23}.{key.rpartition('.')[2]}")
        for name in names:
            if name in own and own[name].shape == value.shape:
                fits[name] = value
    inner = [k for k, _ in backbone.named_parameters() if k.startswith(("body.", "features."))]
    missing = [key for key in inner if key not in fits]
    if missing:
        raise ConfigError(
            f"{path}: does not fit the backbone of '{architecture}': {len(missing)} of {len(inner)} "
            f"tensors are missing or of another shape, the first {missing[0]}; pass weights of that "
            "network, or build 'ssd', 'ssdlite' or 'fasterrcnn' on a backbone of your choice"
        )
    backbone.load_state_dict(fits, strict=False)


def _by_name(
    new: Tensor,
    old: Tensor,
    names: Sequence[str],
    old_names: Sequence[str] | None,
    repeats: int,
    where: str,
) -> Tensor:
    """`new` (anchors x classes x repeats rows) with the rows of classes that `old` knows, too."""
    anchors = new.shape[0] // (len(names) * repeats)
    count = old.shape[0] // (anchors * repeats)
    if old_names is None and count == len(COCO):
        old_names = COCO
    if old_names is None or len(old_names) != count:
        raise ConfigError(
            f"{where} has rows for {count} classes, the model has {len(names)}, and the file does not "
            "say which; pass a checkpoint of `manyeyes train`, or weights of the same classes"
        )
    out = new.clone().view(anchors, len(names), repeats, *new.shape[1:])
    rows = old.reshape(anchors, count, repeats, *old.shape[1:])
    for i, name in enumerate(names):
        if name in old_names:
            out[:, i] = rows[:, list(old_names).index(name)]
    return out.view(new.shape)


def _fit(model: nn.Module, ready: dict[str, Tensor], state: dict[str, Tensor], where: str) -> None:
    own = model.state_dict()
    wrong = [k for k, v in ready.items() if own[k].shape != v.shape]
    if wrong:
        raise ConfigError(
            f"{where}: {wrong[0]} must have the shape {tuple(own[wrong[0]].shape)}, got "
            f"{tuple(ready[wrong[0]].shape)}: these weights are of another architecture or size"
        )
    missing = [k for k in own if k not in ready and not k.endswith(_COUNTER)]
    foreign = [k for k in state if k not in own and not k.endswith(_COUNTER)]
    if missing or foreign:
        raise ConfigError(
            f"{where}: these weights are of another architecture: {len(missing)} tensors are missing "
            f"({', '.join(missing[:2])}), {len(foreign)} unknown ({', '.join(foreign[:2])})"
        )
    model.load_state_dict(ready, strict=False)


def _download(architecture: str, name: str) -> dict[str, Any]:
    try:
        known = torchvision.models.get_model_weights(architecture)
    except ValueError as error:
        instead = "the folder of its model as transformers saves it"
        raise ConfigError(
            f"weights '{name}': torchvision has none for '{architecture}'; pass a file, or "
            f"{instead if architecture in detr.NAMED else 'weights of the backbone alone'}"
        ) from error
    offered = [*known.__members__, "DEFAULT"]
    if name not in offered:
        raise ConfigError(
            f"weights '{name}' of '{architecture}': wanted none, a file or one of "
            f"{', '.join(offered)}{did_you_mean(name, offered)}"
        )
    entry = known[name] if name != "DEFAULT" else known.DEFAULT
    # not torch's own download: it waits for ever where a firewall swallows what is sent
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
    if not path.is_file():
        log.warning("fetching %s to %s", entry.url, path)
        try:
            download.fetch(entry.url, path, _digits(entry.url))
        except download.Unreachable as error:
            raise ConfigError(
                f"weights '{name}': {entry.url} could not be fetched ({error}); fetch it elsewhere and "
                "pass the file, or train with weights none"
            ) from error
    return read_state(path)


def _read(
    path: Path, name: str, architecture: str, names: Sequence[str], published: bool
) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    """A state dict, and what the rows of its head stand for, where that is known."""
    if path.is_dir():
        if architecture not in detr.NAMED:
            raise ConfigError(
                f"{path}: wanted weights of '{architecture}', got a folder without {_BEST}; name a file, "
                "or the folder of a run"
            )
        return detr.published(path)
    if published:
        return read_state(path), COCO
    if path.suffix or path.is_file():
        state, old = read_state(path), _names_in(path)
        return state, (COCO[0], *old) if old and names[0] == COCO[0] else old
    return _download(architecture, name), COCO


def _is_published(path: Path, architecture: str) -> bool:
    """Whether a file is torchvision's COCO_V1, whatever it is called now."""
    if architecture not in _EPS_0 or not path.is_file():
        return False
    wanted = _digits(torchvision.models.get_model_weights(architecture)["COCO_V1"].url)
    return archive.sha256(str(path)).startswith(wanted)


def _digits(url: str) -> str:
    """The first of a file's sha256, which torchvision's names end with."""
    found = re.search(r"-([0-9a-f]{8,})\.pth$", url)
    return found[1] if found else ""


def _names_in(path: Path) -> tuple[str, ...] | None:
    whole = torch.load(path, map_location="cpu", weights_only=True)
    config = whole.get("config")
    classes = config.get("classes") if isinstance(config, dict) else None
    return tuple(classes) if classes else None
