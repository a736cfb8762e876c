"""Faster R-CNN up to its candidates without a shape that depends on data: the form that ONNX can hold.

Greedy NMS is the fixed point of keep[j] = valid[j] and no better kept i of the same level overlaps j
(Cluster-NMS, Zheng et al. 2020); a fixed number of sweeps is unrolled. All proposals are padded to
their largest number, RoIAlign runs on all of them at every level, and one level is selected.
"""

import torch
from torch import Tensor, nn

from stages.training.candidates import clip, decode
from stages.training.candidates_rcnn import RcnnCandidates, rows_of

SWEEPS = 12  # a sweep settles one more link of each chain of suppressions; parity sees too few


class StaticRcnn(nn.Module):
    """The same parameters as the RcnnCandidates that it is made of."""

    def __init__(self, module: RcnnCandidates) -> None:
        super().__init__()
        self.of = module
        self.k = module.k

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 (B, 3, H, W) -> boxes (B, K, 4), scores (B, K), labels (B, K)."""
        of = self.of
        features, objectness, offsets = of.net(of.normalise(images))
        proposals, valid = self.propose(objectness, offsets)  # (B, P, 4), (B, P)
        batch, most = proposals.shape[:2]
        pooled = self.pool(features, proposals)
        logits, rows = of.box_predictor(of.box_head(pooled))
        scores = torch.softmax(logits, -1)[:, 1:].reshape(batch, most, of.classes)
        rows = rows.reshape(batch, most, of.classes + 1, 4)[:, :, 1:]
        boxes = clip(decode(rows, proposals.unsqueeze(2), 10.0, 5.0), of.width, of.height)
        sides = boxes[..., 2:] - boxes[..., :2]
        good = (sides >= 1e-2).all(dim=-1) & valid.unsqueeze(2)
        top, index = torch.where(good, scores, 0.0).flatten(1).topk(self.k, dim=1)
        boxes = boxes.flatten(1, 2).gather(1, index.unsqueeze(2).expand(-1, -1, 4))
        return boxes, top, index % of.classes

    def propose(self, objectness: list[Tensor], offsets: list[Tensor]) -> tuple[Tensor, Tensor]:
        """As RcnnCandidates.propose, padded: proposals (B, P, 4), and which of them are real."""
        of = self.of
        tops, chosen, levels = [], [], []
        first = 0
        for level, (of_level, to_level) in enumerate(zip(objectness, offsets, strict=True)):
            scores = rows_of(of_level, 1).flatten(1)
            top, index = scores.topk(min(of.before_nms, scores.size(1)), dim=1)
            rows = rows_of(to_level, 4).gather(1, index.unsqueeze(2).expand(-1, -1, 4))
            tops.append(top)
            chosen.append(decode(rows, of.anchors[first + index], 1.0, 1.0))
            levels.append(torch.full_like(index, level))
            first += scores.size(1)
        scores = torch.sigmoid(torch.cat(tops, dim=1))
        scores, order = scores.topk(scores.size(1), dim=1)
        boxes = clip(torch.cat(chosen, dim=1), of.width, of.height)
        boxes = boxes.gather(1, order.unsqueeze(2).expand(-1, -1, 4))
        level_of = torch.cat(levels, dim=1).gather(1, order)
        sides = boxes[..., 2:] - boxes[..., :2]
        valid = (sides >= of.rpn_side).all(dim=-1) & (scores >= of.rpn_score)
        keep = _nms(boxes, level_of, valid, of.rpn_iou)
        most = min(of.after_nms, scores.size(1))
        best, index = torch.where(keep, scores, -1.0).topk(most, dim=1)
        return boxes.gather(1, index.unsqueeze(2).expand(-1, -1, 4)), best >= 0

    def pool(self, features: list[Tensor], proposals: Tensor) -> Tensor:
        """RoIAlign of all proposals: (B x P, channels, s, s)."""
        of = self.of
        batch, most = proposals.shape[:2]
        owner = torch.arange(batch, device=proposals.device).to(proposals.dtype)
        rois = torch.cat([owner.view(-1, 1, 1).expand(-1, most, 1), proposals], dim=2).flatten(0, 1)
        pooled = of.align(features[of.pooled[0]], rois, of.scales[0])
        if len(of.pooled) == 1:
            return pooled
        level = of.level_of(rois[:, 1:]).view(-1, 1, 1, 1)
        for i in range(1, len(of.pooled)):
            aligned = of.align(features[of.pooled[i]], rois, of.scales[i])
            pooled = torch.where(level == i, aligned, pooled)
        return pooled


def _nms(boxes: Tensor, level: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    """boxes (B, M, 4) by falling score -> which are kept (B, M)."""
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    sides = (high - low).clamp(min=0.0)
    inter = sides[..., 0] * sides[..., 1]  # (B, M, M)
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    iou = inter / (area[:, :, None] + area[:, None, :] - inter)
    rank = torch.arange(boxes.size(1), device=boxes.device)
    better = rank[:, None] < rank[None, :]
    suppresses = (iou > iou_threshold) & (level[:, :, None] == level[:, None, :]) & better
    keep = valid
    for _ in range(SWEEPS):
        keep = valid & ~(keep[:, :, None] & suppresses).any(dim=1)
    return keep
