"""Data sets of every format in one in-memory form: pictures, boxes, classes, and what was wrong.

    formats.find → formats.read → Raw → every picture opened once → Sample, Problem → DataSet

Nothing is silently dropped: what was repaired, dropped or skipped is a Problem with file and line.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError
from pipeline.messages import Image
from stages.training.formats import (
    UNREAD_SUFFIXES,
    Problem,
    Raw,
    RawBox,
    RawPicture,
    coco,
    cvat,
    foreign,
    labelme,
    openimages,
    table,
    voc,
    yolo,
)
from stages.training.pictures import Look, decode, look_at, turned

FORMATS = {  # in order of looking
    "coco": coco,
    "voc": voc,
    "cvat": cvat,
    "openimages": openimages,
    "csv": table,
    "labelme": labelme,
    "yolo": yolo,
}
CLIP_TOLERANCE_PX = 0.05  # what rounding in the file may put outside without a word


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One picture and what is in it. Arrays have one length N, which may be 0."""

    path: Path
    width: int  # px, after EXIF orientation
    height: int
    xyxy: npt.NDArray[
        np.float32
    ]  # (N, 4) px, edge coordinates, inside the picture, x1 < x2, y1 < y2
    labels: npt.NDArray[np.int32]  # (N,) 0-based index into DataSet.classes
    crowd: npt.NDArray[np.bool_]  # (N,) the box holds a crowd of its class (COCO's iscrowd)
    difficult: npt.NDArray[np.bool_]  # (N,) neither to be found nor to be missed (VOC's difficult)
    image_id: int  # unique in the data set; the file's own where it has ids
    group: str  # folder of the picture, relative to the data set; "" at its root
    area: npt.NDArray[np.float32] | None = (
        None  # (N,) px² where the file states it; None: of the box
    )
    digest: bytes = b""  # SHA-256 of the file
    likeness: int = 0  # equal or nearly so in pictures that look alike (see `pictures.likeness`)
    part: tuple[int, int, int, int] | None = None  # of the picture in the file, in px; None: all


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataSet:
    """Pictures that decode and boxes that make sense; what did not is in `problems`."""

    name: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...]
    sha256: str  # of classes, boxes and the bytes of the pictures; not of names, order or folder
    category_ids: tuple[int, ...] = ()  # COCO's number of each class; empty: 1, 2, 3, …

    def category_id(self, label: int) -> int:
        """COCO's number of a class."""
        return self.category_ids[label] if self.category_ids else label + 1


def load(
    path: Path | str, *, split: str | None = None, format: str | None = None, strict: bool = False
) -> DataSet:
    """Read a data set of any known format and open each picture once.

    path: a folder, or the JSON, CSV or YAML itself.
    split: `train`, `val`, `test` or what the data set calls it; None: everything in it.
    format: a key of FORMATS; None: by looking (in that case the first wins where several are present).
    strict: any problem is an error.

    Samples come in the order of the annotation file, or sorted by path. Raises DataError in one
    sentence: no such path, unknown format or split, no picture left, or (strict) the first problem.
    """
    root = Path(path)
    if not root.exists():
        raise DataError(f"{root}: no such file or folder; wanted a data set")
    problems: list[Problem] = []
    reader, inside, rest = _recognise(root, split, format)
    raw = reader.read(inside, rest, problems)
    classes = raw.classes
    if classes is None:
        classes = tuple(sorted({box.name for picture in raw.pictures for box in picture.boxes}))
    samples, digest = _samples(raw, classes, problems)
    if strict and problems:
        raise DataError(f"{problems[0]} (strict; {len(problems)} problem(s) in all)")
    if not samples:
        which = f" of split {split!r}" if split else ""
        first = f"; the first problem: {problems[0]}" if problems else ""
        raise DataError(f"{root}: no usable picture{which}, wanted at least one{first}")
    name = root.stem if root.is_file() else root.resolve().name
    return DataSet(
        name=f"{name}/{split}" if split else name,
        classes=classes,
        samples=tuple(samples),
        problems=tuple(problems),
        sha256=digest,
        category_ids=raw.category_ids or (),
    )


def read_image(sample: Sample) -> Image:
    """The picture of a sample, or its part: uint8 (height, width, 3) BGR, EXIF orientation applied.

    Raises DataError as `decode` does, or if the picture is no longer of the size it had.
    """
    image = decode(sample.path)
    if sample.part is not None:
        x1, y1, x2, y2 = sample.part
        image = image[y1:y2, x1:x2].copy()
    if image.shape != (sample.height, sample.width, 3):
        raise DataError(
            f"{sample.path}: wanted {sample.width}x{sample.height} px as when the data set was "
            f"read, got {image.shape[1]}x{image.shape[0]}; load it again"
        )
    return image


def _recognise(
    root: Path, split: str | None, format: str | None
) -> tuple[ModuleType, Path, str | None]:
    """The format's module, where to read, and the split that is still to be found there."""
    if format is not None and format not in FORMATS:
        raise DataError(f"format {format!r}: wanted one of {', '.join(FORMATS)}")
    if root.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"):
        raise DataError(f"{root}: an archive; unpack it and give its folder")
    names = [format] if format else list(FORMATS)
    for name in names:
        if FORMATS[name].find(root):
            return FORMATS[name], root, split
    if split and (root / split).is_dir():  # train/, valid/, test/ with annotations in each
        for name in names:
            if FORMATS[name].find(root / split):
                return FORMATS[name], root / split, None
    named = foreign.name_of(root)
    raise DataError(
        f"{root}: no {format or 'known'} data set; "
        + (
            named
            or "wanted Annotations/*.xml (VOC), a COCO *.json, CVAT's *.xml, an Open Images or "
            "other *.csv, labelme's *.json, or a YOLO *.yaml or labels/*.txt"
        )
    )


def _samples(
    raw: Raw, classes: tuple[str, ...], problems: list[Problem]
) -> tuple[list[Sample], str]:
    index = {name: label for label, name in enumerate(classes)}
    pictures = _once(raw.pictures, problems)
    taken = {picture.image_id for picture in pictures}
    free = iter(i for i in range(1, len(taken) + len(pictures) + 2) if i not in taken)
    samples, digests = [], []
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # Pillow's, of tags that we don't read
        looks = pool.map(look_at, (p.path for p in pictures))  # decoding releases the GIL
        for picture, seen in zip(pictures, looks, strict=True):
            if seen.kind:
                file = picture.path
                problems.append(Problem(kind=seen.kind, file=file, line=None, text=seen.text))
                continue
            image_id = next(free) if picture.image_id is None else picture.image_id
            sample = _sample(picture, seen, index, problems, image_id=image_id, root=raw.root)
            samples.append(sample)
            arrays = (sample.xyxy, sample.labels, sample.crowd, sample.difficult)
            digests.append(seen.digest + b"".join(array.tobytes() for array in arrays))
    _tell_doubts(samples, raw, classes, problems)
    total = hashlib.sha256("\0".join(classes).encode())
    for part in sorted(digests):
        total.update(hashlib.sha256(part).digest())
    return samples, total.hexdigest()


def _once(pictures: Sequence[RawPicture], problems: list[Problem]) -> list[RawPicture]:
    """Each picture once, with the boxes of every time that it is listed."""
    first: dict[Path, RawPicture] = {}
    for picture in pictures:
        known = first.setdefault(picture.path, picture)
        if known is picture:
            continue
        text = "listed twice; the boxes of both are taken together"
        if (known.normalised, known.size_wh_px) == (picture.normalised, picture.size_wh_px):
            have = {(box.name, box.xyxy) for box in known.boxes}
            known.boxes += [box for box in picture.boxes if (box.name, box.xyxy) not in have]
        else:
            text = "listed twice, with another size; the second time is skipped"
        problems.append(Problem(kind="duplicate", file=picture.path, line=None, text=text))
    return list(first.values())


def _tell_doubts(
    samples: Sequence[Sample], raw: Raw, classes: Sequence[str], problems: list[Problem]
) -> None:
    """What is not wrong in any one file: equal pictures, pictures that are not read, alike classes."""
    first: dict[bytes, Path] = {}
    for sample in samples:
        known = first.setdefault(sample.digest, sample.path)
        if known != sample.path:
            text = f"the same picture as {known}, byte for byte"
            problems.append(Problem(kind="identical", file=sample.path, line=None, text=text))
    folders = {picture.path.parent for picture in raw.pictures} or {raw.root}
    for file in sorted(f for folder in folders if folder.is_dir() for f in folder.iterdir()):
        if file.suffix.lower() in UNREAD_SUFFIXES:
            text = f"{file.suffix} pictures are not read; save it as JPEG or PNG"
            problems.append(Problem(kind="suffix", file=file, line=None, text=text))
    alike: dict[str, str] = {}
    for name in classes:
        known_name = alike.setdefault(name.casefold(), name)
        if known_name != name:
            text = f"classes {known_name!r} and {name!r} differ in capitals alone; are they one?"
            problems.append(Problem(kind="names", file=raw.root, line=None, text=text))


def _sample(
    picture: RawPicture,
    seen: Look,
    index: dict[str, int],
    problems: list[Problem],
    *,
    image_id: int,
    root: Path,
) -> Sample:
    stored_wh, on_its_side = seen.stored_wh_px, seen.orientation >= 5
    width, height = stored_wh[::-1] if on_its_side else stored_wh
    claimed = picture.size_wh_px
    # Boxes belong to the picture as the annotation measured it: stored or as it is shown.
    turn = on_its_side and claimed == stored_wh != (width, height)
    if turn:
        text = f"boxes are in stored pixels; turned along with EXIF orientation {seen.orientation}"
        problems.append(Problem(kind="exif", file=picture.annotation, line=None, text=text))
    elif claimed is not None and claimed != (width, height):
        text = f"claims {claimed[0]}x{claimed[1]} px, {picture.path.name} has {width}x{height}"
        problems.append(Problem(kind="size", file=picture.annotation, line=None, text=text))
    kept = []
    have: set[tuple[str, tuple[float, ...]]] = set()
    for box in picture.boxes:
        if (box.name, box.xyxy) in have:
            # kept, as COCO's evaluation does: figures are those of the files as they are
            text = f"a {box.name} of {picture.path.name} stands there twice; remove one"
            file, line = picture.annotation, box.line
            problems.append(Problem(kind="repeated", file=file, line=line, text=text))
        have.add((box.name, box.xyxy))
        scale = (width, height) if picture.normalised else (1, 1)
        x1, y1, x2, y2 = (value * scale[i % 2] for i, value in enumerate(box.xyxy))
        if turn:
            x1, y1, x2, y2 = turned((x1, y1, x2, y2), seen)
        xyxy = _checked(box, (x1, y1, x2, y2), (width, height), picture, problems)
        if xyxy is not None:
            kept.append((box, xyxy))
    areas = [box.area for box, _ in kept]
    parent = os.path.relpath(picture.path.parent, root)
    return Sample(
        path=picture.path,
        width=width,
        height=height,
        xyxy=np.array([xyxy for _, xyxy in kept], np.float32).reshape(-1, 4),
        labels=np.array([index[box.name] for box, _ in kept], np.int32),
        crowd=np.array([box.crowd for box, _ in kept], bool),
        difficult=np.array([box.difficult for box, _ in kept], bool),
        image_id=image_id,
        group="" if parent == "." else Path(parent).as_posix(),
        area=None if not kept or None in areas else np.array(areas, np.float32),
        digest=seen.digest,
        likeness=seen.likeness,
    )


def _checked(
    box: RawBox,
    xyxy: tuple[float, float, float, float],
    size_wh: tuple[int, int],
    picture: RawPicture,
    problems: list[Problem],
) -> npt.NDArray[np.float32] | None:
    """The box inside its picture, or None if nothing of it is left; either is told."""
    raw = np.array(xyxy)  # (4,)
    limit = np.array([*size_wh, *size_wh])
    clipped: npt.NDArray[np.float32] = np.clip(raw, 0, limit).astype(np.float32)
    told = f"{box.name} [{', '.join(f'{v:g}' for v in xyxy)}] in {picture.path.name}"
    told += f" ({size_wh[0]}x{size_wh[1]} px)"
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        text = f"degenerate box {told} has no area inside the picture; it is dropped"
        problems.append(
            Problem(kind="degenerate", file=picture.annotation, line=box.line, text=text)
        )
        return None
    if np.abs(raw - clipped).max() > CLIP_TOLERANCE_PX:
        text = f"box {told} reaches outside; it is clipped"
        problems.append(Problem(kind="clipped", file=picture.annotation, line=box.line, text=text))
    return clipped
