"""COCO's twelve figures by faster-coco-eval, and the two documents that COCO's tools read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.detections import Detections
from stages.training.datasets import DataSet, Sample

Array = npt.NDArray[Any]

FIGURES = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip
"""COCO's twelve, in COCO's order; -1 where the data set has nothing to find."""


def coco_figures(
    predictions: Sequence[Detections], dataset: DataSet
) -> tuple[dict[str, float], list[tuple[float, float]]]:
    """COCO's twelve figures, and (AP, AP50) of each class (nan where there is nothing to find)."""
    from faster_coco_eval import COCO, COCOeval_faster

    truth, results = coco_truth(dataset), coco_results(predictions, dataset)
    if not dataset.classes:
        return dict.fromkeys(FIGURES, -1.0), []
    annotated = COCO(truth)
    judge = COCOeval_faster(
        annotated, annotated.loadRes(results), "bbox", print_function=lambda *_: None
    )
    judge.run()
    figures = dict(zip(FIGURES, (float(value) for value in judge.stats[:12]), strict=True))
    precision = judge.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, class)
    per_class = []
    for label in range(len(dataset.classes)):
        of_class = precision[:, :, label]
        known = (of_class > -1).any()
        ap = (float(of_class.mean()), float(of_class[0].mean())) if known else (math.nan, math.nan)
        per_class.append(ap)
    return figures, per_class


def coco_truth(dataset: DataSet) -> dict[str, Any]:
    """The data set as COCO's annotation object: difficult as iscrowd."""
    annotations: list[dict[str, Any]] = []
    for sample in dataset.samples:
        areas = areas_px2(sample)
        for i, (x1, y1, x2, y2) in enumerate(sample.xyxy.astype(np.float64).tolist()):
            annotations.append(
                {
                    "id": len(annotations) + 1,  # pycocotools takes 0 for "not matched"
                    "image_id": sample.image_id,
                    "category_id": dataset.category_id(int(sample.labels[i])),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(areas[i]),
                    "iscrowd": int(sample.crowd[i] or sample.difficult[i]),
                }
            )
    return {
        "images": [
            {"id": s.image_id, "width": s.width, "height": s.height, "file_name": s.path.name}
            for s in dataset.samples
        ],
        "categories": [
            {"id": dataset.category_id(label), "name": name}
            for label, name in enumerate(dataset.classes)
        ],
        "annotations": annotations,
    }


def coco_results(predictions: Sequence[Detections], dataset: DataSet) -> list[dict[str, Any]]:
    """Detections as COCO's list of results; category ids as in `coco_truth`."""
    return [
        {
            "image_id": sample.image_id,
            "category_id": dataset.category_id(label),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for found, sample in zip(predictions, dataset.samples, strict=True)
        for (x1, y1, x2, y2), score, label in zip(
            found.xyxy.astype(np.float64).tolist(),
            found.scores.tolist(),
            found.labels.tolist(),
            strict=True,
        )
    ]


def areas_px2(sample: Sample) -> Array:
    """The area of each object in px²: as the data set states it, else of its box."""
    if sample.area is not None:
        return sample.area.astype(np.float64)
    areas: Array = (sample.xyxy[:, 2:] - sample.xyxy[:, :2]).astype(np.float64).prod(axis=1)
    return areas
