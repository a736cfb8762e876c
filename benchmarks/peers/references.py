"""The bare training loop of torchvision's references/detection, in our words: the rival of ours.

Its recipe for SSDLite: CocoDetection, a crop by IoU and a mirror image, the stock model that resizes,
SGD with a linear warm-up, a check that the loss is finite, a checkpoint after each epoch. No average of
the weights, no clipping of gradients, no other augmentation, no cache of pictures.
"""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2


class Reference:
    """A model, its pictures on disk, and what an epoch does to it."""

    def __init__(
        self, model: nn.Module, folder: Path, annotations: Path, *,
        batch: int, workers: int, lr: float, weight_decay: float, device: torch.device,
        checkpoint: Path,
    ) -> None:  # fmt: skip
        self.model, self.device, self.checkpoint = model.to(device), device, checkpoint
        steps = [v2.ToImage(), v2.RandomIoUCrop(), v2.RandomHorizontalFlip()]
        steps += [v2.ToDtype(torch.float32, scale=True), v2.SanitizeBoundingBoxes()]
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            data = CocoDetection(folder, annotations, transforms=v2.Compose(steps))
        self.data = wrap_dataset_for_transforms_v2(data, ("boxes", "labels", "image_id"))
        self.batches = DataLoader(
            self.data, batch, shuffle=True, drop_last=True, num_workers=workers,
            collate_fn=collate, pin_memory=device.type == "cuda",
            # kinder than the reference, whose workers start anew with each epoch
            persistent_workers=workers > 0,
            multiprocessing_context="forkserver" if workers else None,
        )  # fmt: skip
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(trained, lr, momentum=0.9, weight_decay=weight_decay)
        warmup = len(self.batches)
        self.schedule = torch.optim.lr_scheduler.LinearLR(self.optimizer, 1e-3, total_iters=warmup)

    def epoch(self) -> int:
        """Once through all pictures; returns how many."""
        self.model.train()
        count = 0
        for images, targets in self.batches:
            inputs = [image.to(self.device, non_blocking=True) for image in images]
            truth = [
                {k: v.to(self.device) for k, v in t.items() if k != "image_id"} for t in targets
            ]
            loss = sum(self.model(inputs, truth).values())
            if not math.isfinite(loss.item()):
                raise ArithmeticError(f"the reference loop's loss is {loss.item()}")
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            count += len(images)
        state = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}
        torch.save({name: part.state_dict() for name, part in state.items()}, self.checkpoint)
        return count


def collate(items: list[tuple[Tensor, dict[str, Any]]]) -> tuple[Any, ...]:
    """Pictures of one batch, as the model takes them."""
    return tuple(zip(*items, strict=True))
