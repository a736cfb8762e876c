"""What a model finds in pictures, as a data set: labels to correct instead of labels to draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pipeline.detections import Detections
from pipeline.errors import DataError
from stages.training.annotate import Shot, batches, shots
from stages.training.convert import convert
from stages.training.datasets import DataSet, Sample
from stages.training.predict import Predictor


def label(
    predictor: Predictor,
    sources: Sequence[Path | str],
    output: Path | str,
    target: str,
    progress: Callable[[int], None] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, int]:
    """Find things in pictures and folders of pictures; write pictures and labels as a new data set.

    target: coco, yolo or voc. Scores are not kept: what is below the threshold is no label.
    Returns how often each class was found, those that were. Raises as `annotate` and `convert`;
    DataError for a video: a data set is of pictures.
    """
    samples: list[Sample] = []
    counts: Counter[str] = Counter()
    for batch in batches(shots(sources, note), predictor.batch):
        for shot, found in zip(batch, predictor([shot.image for shot in batch]), strict=True):
            samples.append(_sample(shot, found, len(samples) + 1))
            counts.update(predictor.classes[label] for label in found.labels.tolist())
        if progress is not None:
            progress(len(samples))
    found_in = DataSet(
        name=Path(output).name,
        classes=predictor.classes,
        samples=tuple(samples),
        problems=(),
        sha256="",
    )
    convert(found_in, output, target)
    return dict(counts)


def _sample(shot: Shot, found: Detections, image_id: int) -> Sample:
    if shot.name is None:
        raise DataError(
            f"{shot.path}: a video, wanted pictures to label; save its frames as pictures first"
        )
    height, width = shot.image.shape[:2]
    none = np.zeros(len(found), bool)
    inside = (found.xyxy[:, 2:] > found.xyxy[:, :2]).all(axis=1)  # (N,)
    return Sample(
        path=shot.path,
        width=width,
        height=height,
        xyxy=found.xyxy[inside],
        labels=found.labels[inside],
        crowd=none[inside],
        difficult=none[inside],
        image_id=image_id,
        group=Path(shot.name).parent.as_posix().removeprefix("."),
    )
