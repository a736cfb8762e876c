"""Data sets of every format in one in-memory form: pictures, boxes, classes, and what was wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stages.training.formats import Problem

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One picture and what is in it. Arrays have one length N, which may be 0."""

    path: Path
    width: int  # px, after EXIF orientation
    height: int
    xyxy: npt.NDArray[np.float32]  # (N, 4) px, edge coordinates, inside the picture, x1 < x2, y1 < y2
    labels: npt.NDArray[np.int32]  # (N,) 0-based index into DataSet.classes
    crowd: npt.NDArray[np.bool_]  # (N,) the box holds a crowd of its class (COCO's iscrowd)
    difficult: npt.NDArray[np.bool_]  # (N,) neither to be found nor to be missed (VOC's difficult)
    image_id: int  # unique in the data set; the file's own where it has ids
    group: str  # folder of the picture, relative to the data set; "" at its root


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataSet:
    """Pictures whose headers were read and whose boxes make sense; what did not is in `problems`."""

    name: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...]
    sha256: str  # of classes, boxes and the bytes of the pictures; not of their folder


def load(
    path: Path | str, *, split: str | None = None, format: str | None = None, strict: bool = False
) -> DataSet:
    """Read a data set of any known format: voc, coco, openimages or yolo."""
    raise NotImplementedError


def read_image(sample: Sample) -> Image:
    """The picture of a sample: uint8 (height, width, 3) BGR, EXIF orientation applied."""
    raise NotImplementedError
