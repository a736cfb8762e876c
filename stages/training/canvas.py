"""The front of every detector here: pictures of the canvas, normalised and stacked, never resized."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from pipeline.errors import ConfigError


class Canvas(GeneralizedRCNNTransform):  # type: ignore[misc]  # torchvision has no types
    """Normalises and stacks; outside training every picture must have the size of the canvas already."""

    def __init__(
        self, size_wh_px: tuple[int, int], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        low, high = min(size_wh_px), max(size_wh_px)
        super().__init__(low, high, mean, std, size_divisible=1, fixed_size=size_wh_px)

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Nothing: the letterbox did it."""
        width, height = self.fixed_size
        if image.shape[-2:] != (height, width) and not self.training:  # parts are learnt from, too
            raise ConfigError(
                f"the model takes pictures of {width}x{height} px, got "
                f"{image.shape[-1]}x{image.shape[-2]}; letterbox them first"
            )
        return image, target
