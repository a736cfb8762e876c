"""Detectors that find a set of boxes by queries: RT-DETRv2, D-FINE and RF-DETR, of `transformers`.

Nothing here reaches a network: models are built from the tables below, weights come from a folder.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torchvision.ops import box_convert

from pipeline.errors import ConfigError
from stages.training.canvas import Canvas

if TYPE_CHECKING:
    from stages.training.models import ModelConfig

QUERIES = 300  # that each of them has
_PLAIN, _IMAGENET = ((0.0,) * 3, (1.0,) * 3), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

_RT_DETR = {"decoder_layers": 3, "hidden_expansion": 0.5, "encoder_in_channels": [128, 256, 512]}
_BASIC = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512]}
_HGNET = {
    "hidden_sizes": [128, 256, 512, 1024],
    "stem_channels": [3, 16, 16],
    "stage_in_channels": [16, 64, 256, 512],
    "stage_mid_channels": [16, 32, 64, 128],
    "stage_out_channels": [64, 256, 512, 1024],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_numb_of_layers": [3, 3, 3, 3],
    "use_learnable_affine_block": True,
}
_HGNET_M = {
    **_HGNET,
    "hidden_sizes": [192, 384, 768, 1536],
    "stem_channels": [3, 24, 32],
    "stage_in_channels": [32, 96, 384, 768],
    "stage_mid_channels": [32, 64, 128, 256],
    "stage_out_channels": [96, 384, 768, 1536],
    "stage_num_blocks": [1, 1, 3, 1],
    "stage_numb_of_layers": [4, 4, 4, 4],
}
_DFINE_N = {
    "num_feature_levels": 2, "feat_strides": [16, 32], "encode_proj_layers": [1],
    "encoder_in_channels": [512, 1024], "decoder_in_channels": [128, 128], "decoder_n_points": [6, 6],
    "d_model": 128, "encoder_hidden_dim": 128, "encoder_ffn_dim": 512, "decoder_ffn_dim": 512,
    "decoder_layers": 3, "hidden_expansion": 0.34, "depth_mult": 0.5,
}  # fmt: skip
_DFINE = {"decoder_n_points": [3, 6, 3]}
_DINO = {
    "hidden_size": 384, "num_attention_heads": 6, "patch_size": 16, "num_windows": 2,
    "out_features": [f"stage{i}" for i in (3, 6, 9, 12)],
}  # fmt: skip

# As published: the class of transformers, its configuration, and that of its backbone.
_RECIPES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "rtdetr_v2_r18": ("RTDetrV2", _RT_DETR, {**_BASIC, "depths": [2, 2, 2, 2]}),
    "rtdetr_v2_r34": (
        "RTDetrV2", {**_RT_DETR, "decoder_layers": 4}, {**_BASIC, "depths": [3, 4, 6, 3]},
    ),
    "rtdetr_v2_r50": ("RTDetrV2", {}, {}),
    "dfine_n": ("DFine", _DFINE_N, {**_HGNET, "out_indices": [3, 4]}),
    "dfine_s": (
        "DFine",
        {**_DFINE, "decoder_layers": 3, "hidden_expansion": 0.5, "depth_mult": 0.34,
         "encoder_in_channels": [256, 512, 1024]},
        _HGNET,
    ),
    "dfine_m": (
        "DFine",
        {**_DFINE, "decoder_layers": 4, "depth_mult": 0.67, "encoder_in_channels": [384, 768, 1536]},
        _HGNET_M,
    ),
    "rfdetr_nano": ("RfDetr", {"decoder_layers": 2, "decoder_n_points": 2}, {**_DINO, "image_size": 384}),
    "rfdetr_small": ("RfDetr", {"decoder_layers": 3, "decoder_n_points": 2}, {**_DINO, "image_size": 512}),
    "rfdetr_medium": ("RfDetr", {"decoder_layers": 4, "decoder_n_points": 2}, {**_DINO, "image_size": 576}),
}  # fmt: skip
_BACKBONES = {"RTDetrV2": "RTDetrResNet", "DFine": "HGNetV2", "RfDetr": "RfDetrDinov2"}
NAMED = tuple(_RECIPES)


class Detr(nn.Module):
    """One of NAMED, called as torchvision calls its detectors; see `models.build`.

    Needs no NMS: each query is a box, so it finds QUERIES of them at most.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.network = _network(config)
        vit = _RECIPES[config.architecture][0] == "RfDetr"
        self.transform = Canvas((config.width, config.height), *(_IMAGENET if vit else _PLAIN))
        self.detections_per_img = QUERIES

    @property
    def backbone(self) -> nn.Module:
        """The part in front that was pre-trained, where weights are published."""
        backbone: nn.Module = self.network.model.backbone
        return backbone

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses in training, boxes, scores and labels of each picture otherwise."""
        stacked, _ = self.transform(list(images))
        pixels = stacked.tensors
        height, width = pixels.shape[-2:]
        sides = pixels.new_tensor([width, height, width, height])
        if self.training:
            labels = [
                {
                    "class_labels": target["labels"],
                    "boxes": box_convert(target["boxes"], "xyxy", "cxcywh") / sides,
                }
                for target in targets or ()
            ]
            return {"loss": self.network(pixel_values=pixels, labels=labels).loss}
        found = self.network(pixel_values=pixels)
        scores = found.logits.sigmoid().flatten(1)  # (B, Q x C): a query may stand for two classes
        count = min(self.detections_per_img, scores.shape[1])
        tops, chosen = scores.topk(count, dim=1)
        classes = found.logits.shape[2]
        boxes = box_convert(found.pred_boxes, "cxcywh", "xyxy") * sides  # (B, Q, 4)
        return [
            {"boxes": rows[index // classes], "scores": top, "labels": index % classes}
            for rows, top, index in zip(boxes, tops, chosen, strict=True)
        ]


def published(folder: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Weights for a `Detr`, and their classes, from a folder as transformers saves it.

    Runs no code of the folder and asks no network. Raises ConfigError: no such model.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder}: no config.json in it; wanted the folder of a model of transformers, with its "
            "config.json and model.safetensors"
        )
    kind = _library().AutoModelForObjectDetection
    try:
        network, about = kind.from_pretrained(
            str(folder), local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # of many classes, safetensors' own among them
        raise ConfigError(
            f"{folder}: transformers cannot open it ({' '.join(str(error).split())[:200]}); wanted one "
            "of " + ", ".join(NAMED)
        ) from error
    if about["missing_keys"]:
        raise ConfigError(
            f"{folder}: its file lacks {len(about['missing_keys'])} tensors of its model, such as "
            f"{min(about['missing_keys'])}; fetch it again"
        )
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    classes = network.config.id2label
    return state, tuple(classes[index] for index in sorted(classes))


def _network(config: ModelConfig) -> Any:
    family, settings, of_backbone = _RECIPES[config.architecture]
    library = _library()
    if family != "RfDetr":  # `models.build` freezes norms where that is asked for
        of_backbone = {"out_indices": [2, 3, 4], **of_backbone}
        settings = {"freeze_backbone_batch_norms": False, **settings}
    backbone = getattr(library, f"{_BACKBONES[family]}Config")(**of_backbone)
    names = dict(enumerate(config.classes))
    network = getattr(library, f"{family}ForObjectDetection")(
        getattr(library, f"{family}Config")(backbone_config=backbone, id2label=names, **settings)
    )
    for module in network.modules():
        # transformers draws these from N(0, 0.01): right before weights are loaded over them, but
        # from scratch nothing would come through
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    return network


@cache
def _library() -> Any:
    """transformers, kept from the network, and quiet."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    import scipy.optimize  # noqa: F401  its losses match boxes by that; says at once if it lacks
    import transformers

    told: Any = transformers.utils.logging
    told.set_verbosity_error()
    told.disable_progress_bar()
    return transformers
