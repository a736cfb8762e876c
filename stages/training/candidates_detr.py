"""What export ships of a detector with queries: the network alone, whose boxes need no NMS.

    uint8 (B, 3, H, W) RGB -> normalise -> network -> logits (B, Q, C), boxes (B, Q, 4) cxcywh as shares

That is the layout `detr`. It is traced, not scripted: nothing in it depends on data but by top-k.
"""

from typing import Any

import torch
from torch import Tensor, nn

from stages.training.candidates import Normalise
from stages.training.detr import QUERIES, Detr


class DetrCandidates(nn.Module):
    """The same parameters as the `Detr` that it is made of, which takes no other canvas any more."""

    def __init__(self, model: Detr, classes: int) -> None:
        super().__init__()
        self.normalise = Normalise(model.transform)
        self.network = model.network
        _fix_positions(self.network, *model.transform.fixed_size)
        self.bytes_per_image = QUERIES * (classes + 4) * 4  # of float32

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, H, W) -> logits (B, Q, C), boxes (B, Q, 4)."""
        found = self.network(pixel_values=self.normalise(images))
        return found.logits, found.pred_boxes


@torch.no_grad()
def _fix_positions(network: nn.Module, width: int, height: int) -> None:
    """Keep the position embeddings of RF-DETR as they are on this canvas.

    It scales them in each call, and always in a trace, by a filter that ONNX does not have.
    """
    for module in network.modules():
        if hasattr(module, "interpolate_pos_encoding"):
            of: Any = module
            side, depth = of.patch_size, of.position_embeddings.shape[2]
            seen = torch.empty(1, 1 + (width // side) * (height // side), depth)
            of.register_buffer("fixed", of.interpolate_pos_encoding(seen, height, width))
            of.interpolate_pos_encoding = lambda *_, of=of: of.fixed
