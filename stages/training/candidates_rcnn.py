"""Faster R-CNN up to its candidates: two stages, with the NMS that lies between them inside.

The number of rows is constant: what the region proposals leave unused is filled up with score 0.
"""

# No `from __future__ import annotations` here: TorchScript reads the types of attributes.

import math

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN

from stages.training.candidates import Normalise, anchors_of, clip, decode
from stages.training.models import ModelConfig


class RcnnNet(nn.Module):
    """Backbone and RPN head: features, objectness and offsets, the finest level first."""

    like: Tensor

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_buffer("like", torch.zeros(()))

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Normalised pictures -> features, objectness (B, A, h, w), offsets (B, 4A, h, w)."""
        features = list(self.backbone(images.to(self.like.dtype)).values())
        objectness, offsets = self.head(features)
        return features, objectness, offsets


class RcnnCandidates(nn.Module):
    """Proposals, RoIAlign, box head, then one flat top K over proposals x classes."""

    anchors: Tensor

    def __init__(self, model: FasterRCNN, config: ModelConfig, k: int) -> None:
        super().__init__()
        rpn, roi = model.rpn, model.roi_heads
        self.normalise = Normalise(model.transform)
        self.net = RcnnNet(model.backbone, rpn.head)
        self.box_head = roi.box_head
        self.box_predictor = roi.box_predictor
        self.register_buffer("anchors", anchors_of(model, rpn.anchor_generator, config))
        self.width = float(config.width)
        self.height = float(config.height)
        self.classes = len(config.classes)
        self.before_nms = int(rpn.pre_nms_top_n())  # proposals of a level
        self.after_nms = int(rpn.post_nms_top_n())  # of a picture
        self.rpn_iou = float(rpn.nms_thresh)
        self.rpn_score = float(rpn.score_thresh)
        self.rpn_side = float(rpn.min_size)  # px
        pool = roi.box_roi_pool
        self.side = int(pool.output_size[0])
        self.sampling = int(pool.sampling_ratio)
        self.pooled, self.scales = _pooled(model, config)  # features that RoIAlign reads
        self.lowest = int(-math.log2(self.scales[0]))
        self.highest = int(-math.log2(self.scales[-1]))
        self.canonical_px = float(pool.canonical_scale)
        self.canonical_level = float(pool.canonical_level)
        self.k = min(k, self.after_nms * self.classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 (B, 3, H, W) -> boxes (B, K, 4), scores (B, K), labels (B, K)."""
        features, objectness, offsets = self.net(self.normalise(images))
        proposals = self.propose(objectness, offsets)
        counts = [len(p) for p in proposals]
        pooled = self.pool(features, proposals)
        logits, rows = self.box_predictor(self.box_head(pooled.to(self.net.like.dtype)))
        scores = torch.softmax(logits.float(), -1)[:, 1:]  # (P, C)
        of_all = torch.cat(proposals).unsqueeze(1)  # (P, 1, 4)
        rows = rows.float().view(-1, self.classes + 1, 4)[:, 1:]
        boxes = clip(decode(rows, of_all, 10.0, 5.0), self.width, self.height)  # (P, C, 4)
        sides = boxes[..., 2:] - boxes[..., :2]
        scores = torch.where((sides >= 1e-2).all(dim=-1), scores, torch.zeros_like(scores))
        return self.top(boxes, scores, counts)

    def propose(self, objectness: list[Tensor], offsets: list[Tensor]) -> list[Tensor]:
        """The proposals of each picture, xyxy px, the best first."""
        tops: list[Tensor] = []
        chosen: list[Tensor] = []
        levels: list[Tensor] = []
        first = 0
        for level in range(len(objectness)):
            scores = rows_of(objectness[level], 1).flatten(1)  # (B, N)
            top, index = scores.topk(min(self.before_nms, scores.size(1)), dim=1)
            rows = rows_of(offsets[level], 4).gather(1, index.unsqueeze(2).expand(-1, -1, 4))
            tops.append(top)
            chosen.append(decode(rows, self.anchors[first + index], 1.0, 1.0))
            levels.append(torch.full_like(index, level))
            first += scores.size(1)
        probability = torch.sigmoid(torch.cat(tops, dim=1))
        boxes = clip(torch.cat(chosen, dim=1), self.width, self.height)
        level_of = torch.cat(levels, dim=1)
        out: list[Tensor] = []
        for i in range(boxes.size(0)):
            sides = boxes[i][:, 2:] - boxes[i][:, :2]
            good = (sides >= self.rpn_side).all(dim=1) & (probability[i] >= self.rpn_score)
            kept = torch.where(good)[0]
            b, s, g = boxes[i][kept], probability[i][kept], level_of[i][kept]
            keep = torchvision.ops.boxes.batched_nms(b, s, g, self.rpn_iou)
            out.append(b[keep[: self.after_nms]])
        return out

    def pool(self, features: list[Tensor], proposals: list[Tensor]) -> Tensor:
        """RoIAlign of each proposal on the level that its size belongs to: (P, channels, s, s)."""
        boxes = torch.cat(proposals)
        owners = torch.cat([torch.full_like(p[:, :1], i) for i, p in enumerate(proposals)])
        rois = torch.cat([owners, boxes], dim=1)
        if len(self.pooled) == 1:
            return self.align(features[self.pooled[0]], rois, self.scales[0])
        level = self.level_of(boxes)
        out = torch.zeros(
            [len(rois), features[0].size(1), self.side, self.side],
            dtype=torch.float32,
            device=rois.device,
        )
        for i, which in enumerate(self.pooled):
            mine = torch.where(level == i)[0]
            out[mine] = self.align(features[which], rois[mine], self.scales[i])
        return out

    def level_of(self, boxes: Tensor) -> Tensor:
        """The index of the feature map for each box (P, 4): equation 1 of the FPN paper."""
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        level = torch.floor(
            self.canonical_level + torch.log2(torch.sqrt(area) / self.canonical_px) + 1e-6
        )
        return level.clamp(self.lowest, self.highest).to(torch.int64) - self.lowest

    def align(self, feature: Tensor, rois: Tensor, scale: float) -> Tensor:
        """RoIAlign in float32: rois (P, 5) as picture, xyxy -> (P, channels, side, side)."""
        aligned: Tensor = torch.ops.torchvision.roi_align(
            feature.float(), rois, scale, self.side, self.side, self.sampling, False
        )
        return aligned

    def top(
        self, boxes: Tensor, scores: Tensor, counts: list[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best K of each picture's (proposals, classes), filled up with score 0."""
        room = self.after_nms * self.classes
        all_boxes = boxes.new_zeros(len(counts), room, 4)
        all_scores = scores.new_zeros(len(counts), room)
        start = 0
        for i, count in enumerate(counts):
            rows = count * self.classes
            all_boxes[i, :rows] = boxes[start : start + count].reshape(-1, 4)
            all_scores[i, :rows] = scores[start : start + count].flatten()
            start += count
        top, index = all_scores.topk(self.k, dim=1)
        return all_boxes.gather(1, index.unsqueeze(2).expand(-1, -1, 4)), top, index % self.classes


def rows_of(of_level: Tensor, columns: int) -> Tensor:
    """(B, A·columns, h, w) -> float32 (B, h·w·A, columns), the order of the anchors."""
    b, _, h, w = of_level.shape
    return (
        of_level.float().view(b, -1, columns, h, w).permute(0, 3, 4, 1, 2).reshape(b, -1, columns)
    )


@torch.no_grad()
def _pooled(model: FasterRCNN, config: ModelConfig) -> tuple[list[int], list[float]]:
    """Which features RoIAlign reads, and their scale: the power of two nearest to theirs."""
    features = model.backbone(torch.zeros(1, 3, config.height, config.width))
    names = list(features)
    pooled = [names.index(n) for n in model.roi_heads.box_roi_pool.featmap_names if n in names]
    rows = [features[names[i]].shape[-2] for i in pooled]
    return pooled, [2.0 ** round(math.log2(r / config.height)) for r in rows]
