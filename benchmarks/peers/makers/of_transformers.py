"""Models of Hugging Face's transformers, exported by its own exporter, and what its processors find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.makers.comparing import SCORE, Made, Model
from pipeline.detections import Detections
from pipeline.messages import Image
from stages.detector import golden

WIDE, SQUARE = (576, 320), (320, 320)  # px, of those that keep the shape of a picture, and others
SURE_SHARE = 0.003  # of all scores that are to be above SCORE
CLASSES = ("person", "bicycle", "car", "bus", "dog", "tree", "bench")
_SHORT = {"encoder_layers": 1, "decoder_layers": 2, "num_queries": 100}
_SMALL = {
    "encoder_in_channels": [96, 128, 160], "encoder_hidden_dim": 64, "d_model": 64,
    "decoder_in_channels": [64, 64, 64], "decoder_layers": 2, "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
}  # fmt: skip
# By `model_type`: what differs from the usual description.
KEEP_SHAPE: dict[str, dict[str, Any]] = {
    "detr": _SHORT,
    "table-transformer": _SHORT,
    "conditional_detr": _SHORT,
    "dab-detr": _SHORT,
    "deformable_detr": _SHORT,
    "yolos": {"image_size": [320, 576], "num_hidden_layers": 4},
}
_VIT = {"decoder_layers": 2, "num_queries": 100, "d_model": 64, "decoder_ffn_dim": 128}
STRETCH: dict[str, dict[str, Any]] = {
    "rt_detr": _SMALL,
    "rt_detr_v2": _SMALL,
    "d_fine": _SMALL,
    "deimv2": _SMALL,
    "lw_detr": {**_VIT, "projector_scale_factors": [1.0]},
    "rf_detr": {**_VIT, "num_queries": 400},  # all places: rounding leaves none out
}
_HGNET = {
    "hidden_sizes": [64, 96, 128, 160], "stem_channels": [3, 16, 16],
    "stage_in_channels": [16, 64, 96, 128], "stage_mid_channels": [16, 32, 32, 48],
    "stage_out_channels": [64, 96, 128, 160],
    "stage_num_blocks": [1, 1, 1, 1], "stage_numb_of_layers": [2, 2, 2, 2], "out_indices": [2, 3, 4],
}  # fmt: skip
_WINDOWS = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 4, "image_size": 320}


def models(only: str) -> Iterator[Model]:
    """Every kind whose name contains `only`."""
    for kinds, size in ((KEEP_SHAPE, WIDE), (STRETCH, SQUARE)):
        for kind, more in kinds.items():
            if only in kind:
                shape = WIDE if size == WIDE else None
                yield Model(name=kind, make=partial(_make, kind, more, size), shape_wh=shape)


def _make(
    kind: str,
    more: dict[str, Any],
    size: tuple[int, int],
    folder: Path,
    frames: Sequence[Image],
) -> Made:
    """The files of transformers' own exporter and processor, of a model that finds something."""
    import torch
    import transformers
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    transformers.logging.set_verbosity_error()
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(kind, **_backbone(kind), **more)
    config.id2label = dict(enumerate(CLASSES))
    config.label2id = {name: i for i, name in enumerate(CLASSES)}
    model = transformers.AutoModelForObjectDetection.from_config(config).eval()
    if kind == "rf_detr":
        for learned in (model.model.query_feat, model.model.reference_point_embed):
            # They belong to a rank among places, in which rounding decides.
            learned.weight.data[:] = learned.weight.data[0]
    pillow, other = _processors(kind, size)
    processor = pillow or other
    pictures = [*frames[::3], golden.picture(*size), *golden.pattern(2, *size[::-1])]
    condition(model, [shown(processor, picture) for picture in pictures], kind in KEEP_SHAPE)
    place = folder / kind
    example = {"pixel_values": torch.zeros(1, 3, *size[::-1])}
    exported = OnnxExporter().export(model, example, config=OnnxConfig(dynamic=False))
    exported.save_pretrained(place)
    processor.save_pretrained(place)

    @torch.no_grad()
    def find(processor: Any, frame: Image, whole_levels: bool = False) -> Detections:
        pixels = shown(processor, frame)
        outputs = model(pixel_values=rounded(pixels, processor) if whole_levels else pixels)
        [found] = processor.post_process_object_detection(
            outputs, threshold=SCORE, target_sizes=[frame.shape[:2]]
        )
        xyxy = found["boxes"].numpy()
        height, width = frame.shape[:2]
        return Detections(
            np.clip(xyxy, 0, [width, height] * 2).astype(np.float32),
            found["scores"].numpy(),
            found["labels"].numpy().astype(np.int32),
        )

    file, usual = place / "model.onnx", partial(find, processor)
    if kind == "rf_detr":  # its processor alone resizes floats
        return Made(
            file=file, find=usual, find_otherwise=partial(usual, whole_levels=True), exact_wh=size
        )
    otherwise = partial(find, other) if pillow and other else None
    return Made(file=file, find=usual, find_otherwise=otherwise)


def rounded(pixels: Any, processor: Any) -> Any:
    """What a processor made, (1, 3, height, width), of levels of a byte alone."""
    import torch

    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (processor.image_mean, processor.image_std)
    )
    return (((pixels * std + mean) * 255).round() / 255 - mean) / std


def shown(processor: Any, picture: Image) -> Any:
    """A tensor (1, 3, height, width)."""
    return processor(picture[:, :, ::-1].copy(), return_tensors="pt").pixel_values


def _backbone(kind: str) -> dict[str, Any]:
    """A small one, where the usual one would be fetched."""
    import transformers

    if kind == "yolos":
        return {}
    if kind in ("d_fine", "deimv2"):
        return {"backbone_config": transformers.HGNetV2Config(**_HGNET)}
    if kind == "lw_detr":
        more = {"num_windows": 4, "window_block_indices": [0, 2], "out_indices": [2, 4]}
        return {"backbone_config": transformers.LwDetrViTConfig(**_WINDOWS, **more)}
    if kind == "rf_detr":
        more = {"num_windows": 2, "patch_size": 16, "out_features": ["stage2", "stage4"]}
        return {"backbone_config": transformers.RfDetrDinov2Config(**_WINDOWS, **more)}
    of_rt = kind.startswith("rt_detr")
    stages = ["stage2", "stage3", "stage4"] if of_rt or kind == "deformable_detr" else ["stage4"]
    make = transformers.RTDetrResNetConfig if of_rt else transformers.ResNetConfig
    small = make(
        embedding_size=32, hidden_sizes=[64, 96, 128, 160], depths=[1, 1, 1, 1], out_features=stages
    )
    return {"backbone_config": small}


def _processors(kind: str, size: tuple[int, int]) -> tuple[Any, Any]:
    """As a maker publishes it for this kind, for pictures of this size: one that resizes with Pillow, as an
    import does, and one with torchvision, which gives other pixels; None: there is none."""
    import transformers
    from transformers.models.auto import image_processing_auto

    names = image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES
    like = {"rt_detr_v2": "rt_detr", "d_fine": "rt_detr", "dab-detr": "conditional_detr"}
    known = names[like.get(kind, kind)]
    sides = {"height": size[1], "width": size[0]}
    if size != SQUARE:
        sides = {"shortest_edge": min(size), "longest_edge": max(size)}
    pillow, other = (
        getattr(transformers, known[name])(size=sides) if name in known else None
        for name in ("pil", "torchvision")
    )
    return pillow, other


def condition(model: Any, pictures: Sequence[Any], of_query: bool) -> None:
    """Answers that are spread: some scores above SCORE, and boxes of all places and sizes.

    Random weights give the same to all queries, nearly; what they differ in is made larger, in the model.
    of_query: see `spread`.
    """
    import torch

    with torch.no_grad():
        norms = [layer for layer in model.modules() if "BatchNorm" in type(layer).__name__]
        for norm in norms:
            if hasattr(norm, "running_var"):
                norm.register_forward_pre_hook(_measure)
        model(pixel_values=pictures[0])
        for norm in norms:
            norm._forward_pre_hooks.clear()
        answers = [model(pixel_values=picture) for picture in pictures]
        logits = torch.cat([answer.logits for answer in answers])  # (B, Q, C)
        boxes = torch.logit(torch.cat([answer.pred_boxes for answer in answers]), 1e-6)
        gain, shift = spread(logits, 2.0, of_query)
        box_gain, box_shift = spread(boxes, torch.tensor([1.0, 1.0, 0.5, 0.5]), of_query)
        box_shift += torch.tensor([0.0, 0.0, -1.5, -1.5])
        if logits.shape[-1] > len(CLASSES):  # the last is for none of them
            shift[..., -1] += 5.0
        else:
            shift -= torch.quantile((logits * gain + shift).flatten(), 1 - SURE_SHARE) + 0.5

    plain = type(model)

    class Spread(plain):
        def forward(self, pixel_values: Any, **more: Any) -> Any:
            out = plain.forward(self, pixel_values=pixel_values, **more)
            out["logits"] = out.logits * gain + shift
            out["pred_boxes"] = torch.sigmoid(
                torch.logit(out.pred_boxes, 1e-6) * box_gain + box_shift
            )
            return out

    model.__class__ = Spread


def spread(answers: Any, deviation: Any, of_query: bool) -> tuple[Any, Any]:
    """Gain and shift with which answers (B, Q, n) differ by `deviation`.

    of_query: queries are learned, and each gets a place of its own from which pictures move it; others are
    taken from the picture, in an order that rounding may change.
    """
    import torch

    if not of_query:
        gain = deviation / answers.std(dim=(0, 1)).clamp(min=0.03)  # more would show rounding
        return gain, -answers.mean(dim=(0, 1)) * gain
    moved = answers.std(dim=0, keepdim=True).mean(dim=1, keepdim=True)
    gain = 0.2 * deviation / moved.clamp(min=0.005)
    places = torch.randn(1, *answers.shape[1:]) * deviation
    return gain, places - answers.mean(dim=0, keepdim=True) * gain


def _measure(norm: Any, inputs: Any) -> None:
    """Statistics of what a norm sees, so that what follows depends on the picture."""
    channels = inputs[0].transpose(0, 1).flatten(1)
    norm.running_mean.copy_(channels.mean(dim=1))
    norm.running_var.copy_(channels.var(dim=1) + 1e-3)
