"""Tiny models of every layout, scripted on the spot: what they find follows from their pixels."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn


class Candidates(nn.Module):
    """One box a picture, around the top left quarter; its score is the mean of channel 0 / 255."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = x.to(torch.float32)
        b, h, w = x.size(0), float(x.size(2)), float(x.size(3))
        boxes = torch.zeros((b, 3, 4), device=x.device)
        boxes[:, 0, 2] = w / 2
        boxes[:, 0, 3] = h / 2
        scores = torch.zeros((b, 3), device=x.device)
        scores[:, 0] = x[:, 0].mean(dim=(1, 2)) / 255
        return boxes, scores, torch.ones((b, 3), dtype=torch.int64, device=x.device)


class Yolox(nn.Module):
    """Three decoded rows (N, 5+2); objectness is the mean of all pixels / 255."""

    def forward(self, x: Tensor) -> Tensor:
        row = torch.tensor([16.0, 12.0, 8.0, 4.0, 1.0, 0.25, 1.0]).to(x.device)
        out = row.repeat(x.size(0), 3, 1)
        out[:, :, 4] = (x.mean(dim=(1, 2, 3)) / 255)[:, None]
        return out


class YoloxRaw(nn.Module):
    """All 84 predictions of a 64x64 picture, not decoded; the first of them is sure of class 1."""

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros((x.size(0), 84, 7)).to(x.device)
        out[:, :, 2:4] = -0.5
        out[:, 0, 4] = 1.0
        out[:, 0, 6] = 0.9
        return out


class Ultralytics(nn.Module):
    """(B, 4+2, N); one of two predictions has a score."""

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros((x.size(0), 6, 20)).to(x.device)
        out[:, :4, 0] = torch.tensor([16.0, 12.0, 8.0, 4.0])
        out[:, 5, 0] = 0.75
        return out


class Torchvision(nn.Module):
    """Losses and a dict a picture, as scripted torchvision detectors answer."""

    def forward(self, images: list[Tensor]) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        found: list[dict[str, Tensor]] = []
        losses: dict[str, Tensor] = {}
        for i in range(len(images)):
            n = 1 + int(255 * images[i].mean()) % 4  # as many boxes as it likes
            found.append(
                {
                    "boxes": torch.tensor([[1.0, 2.0, 3.0, 4.0]]).repeat(n, 1),
                    "scores": torch.full((n,), 0.5),
                    "labels": torch.ones(n, dtype=torch.int64),
                }
            )
        return losses, found


def save(module: nn.Module, path: Path) -> str:
    """Script and save; the deprecation of torch.jit is the engine's business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module.eval()).save(str(path))
    return str(path)
