"""What export ships of a detector with queries: the network alone, whose boxes need no NMS.

    uint8 (B, 3, H, W) RGB -> normalise -> network -> logits (B, Q, C), boxes (B, Q, 4) cxcywh as shares

That is the layout `detr`. It is traced, not scripted: nothing in it depends on data but by top-k.
"""

from torch import Tensor, nn

from stages.training.candidates import Normalise
from stages.training.detr import QUERIES, Detr


class DetrCandidates(nn.Module):
    """The same parameters as the `Detr` that it is made of."""

    def __init__(self, model: Detr, classes: int) -> None:
        super().__init__()
        self.normalise = Normalise(model.transform)
        self.network = model.network
        self.bytes_per_image = QUERIES * (classes + 4) * 4  # of float32

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, H, W) -> logits (B, Q, C), boxes (B, Q, 4)."""
        found = self.network(pixel_values=self.normalise(images))
        return found.logits, found.pred_boxes
