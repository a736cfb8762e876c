"""Data sets of every format in one in-memory form: pictures, boxes, classes, and what was wrong.

    formats.find → formats.read → Raw → every picture opened once → Sample, Problem → DataSet

Nothing is silently dropped: what was repaired, dropped or skipped is a Problem with file and line.
"""

from __future__ import annotations

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
from PIL import Image as Pil
from PIL import UnidentifiedImageError

from pipeline.errors import DataError
from stages.training.formats import Problem, Raw, RawBox, RawPicture, coco, openimages, voc, yolo

Image = npt.NDArray[np.uint8]

FORMATS = {"coco": coco, "voc": voc, "openimages": openimages, "yolo": yolo}  # in order of looking
MAX_PICTURE_BYTES = 256 << 20  # of the file
MAX_PICTURE_PX = 100_000_000
CLIP_TOLERANCE_PX = 0.05  # what rounding in the file may put outside without a word

_ORIENTATION = 0x0112  # EXIF tag
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    UnidentifiedImageError,
    Pil.DecompressionBombError,
)


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
    format: voc, coco, openimages or yolo; None: by looking (in that case COCO wins over VOC over
        Open Images over YOLO where several are present).
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
    """The picture of a sample: uint8 (height, width, 3) BGR, EXIF orientation applied.

    Raises DataError as `decode` does, or if the picture is no longer of the size it had.
    """
    image = decode(sample.path)
    if image.shape != (sample.height, sample.width, 3):
        raise DataError(
            f"{sample.path}: wanted {sample.width}x{sample.height} px as when the data set was "
            f"read, got {image.shape[1]}x{image.shape[0]}; load it again"
        )
    return image


def decode(path: Path) -> Image:
    """A picture file as uint8 (H, W, 3) BGR, EXIF orientation applied.

    Decoded by OpenCV as the pipeline's picture folders are, so that both see the same pixels.
    Raises DataError naming the file if it is gone, broken or too large.
    """
    import cv2

    data = _bytes(path)
    try:
        with _open(data) as picture:
            _check_size(*picture.size)
    except _BROKEN as error:
        raise DataError(f"{path}: no readable picture: {error}") from error
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise DataError(f"{path}: OpenCV cannot decode this picture; save it as JPEG or PNG")
    image: Image = decoded.astype(np.uint8, copy=False)
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
    raise DataError(
        f"{root}: no {format or 'known'} data set; wanted Annotations/*.xml (VOC), a COCO *.json, "
        "an Open Images *.csv, or a YOLO *.yaml or labels/*.txt"
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one look at a picture file told."""

    stored_wh_px: tuple[int, int] = (0, 0)  # before EXIF orientation
    orientation: int = 1  # EXIF, 1..8
    digest: bytes = b""
    kind: str = ""  # of the problem, if there is one
    text: str = ""


def _samples(
    raw: Raw, classes: tuple[str, ...], problems: list[Problem]
) -> tuple[list[Sample], str]:
    index = {name: label for label, name in enumerate(classes)}
    taken = {picture.image_id for picture in raw.pictures}
    free = iter(i for i in range(1, len(taken) + len(raw.pictures) + 2) if i not in taken)
    samples, digests, paths = [], [], set()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # decoding releases the GIL
        for picture, look in zip(
            raw.pictures, pool.map(_look, (p.path for p in raw.pictures)), strict=True
        ):
            twice = _Seen(kind="duplicate", text="listed twice; the second time is skipped")
            seen = twice if picture.path in paths else look
            paths.add(picture.path)
            if seen.kind:
                file = picture.path
                problems.append(Problem(kind=seen.kind, file=file, line=None, text=seen.text))
                continue
            image_id = next(free) if picture.image_id is None else picture.image_id
            sample = _sample(picture, seen, index, problems, image_id=image_id, root=raw.root)
            samples.append(sample)
            arrays = (sample.xyxy, sample.labels, sample.crowd, sample.difficult)
            digests.append(seen.digest + b"".join(array.tobytes() for array in arrays))
    total = hashlib.sha256("\0".join(classes).encode())
    for part in sorted(digests):
        total.update(hashlib.sha256(part).digest())
    return samples, total.hexdigest()


def _look(path: Path) -> _Seen:
    """Decode a picture at an eighth of its size: enough to know that its bytes are all there."""
    if not path.is_file():
        return _Seen(kind="missing", text="no such picture; it is skipped")
    try:
        data = _bytes(path)
        with _open(data) as picture:
            _check_size(*picture.size)
            size = picture.size
            orientation = picture.getexif().get(_ORIENTATION, 1)
            picture.draft("RGB", (max(1, size[0] // 8), max(1, size[1] // 8)))
            picture.load()
    except (*_BROKEN, DataError) as error:
        return _Seen(kind="broken", text=f"no readable picture ({error}); it is skipped")
    if orientation not in range(1, 9):
        orientation = 1
    return _Seen(size, orientation, hashlib.sha256(data).digest())


def _bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_PICTURE_BYTES:
            raise DataError(f"{path}: {size} bytes, wanted at most {MAX_PICTURE_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _open(data: bytes) -> Pil.Image:
    return Pil.open(io.BytesIO(data))


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PICTURE_PX:
        raise ValueError(f"{width}x{height} px, wanted at most {MAX_PICTURE_PX} px in all")


def _sample(
    picture: RawPicture,
    seen: _Seen,
    index: dict[str, int],
    problems: list[Problem],
    *,
    image_id: int,
    root: Path,
) -> Sample:
    (stored_w, stored_h), turned = seen.stored_wh_px, seen.orientation >= 5
    width, height = (stored_h, stored_w) if turned else (stored_w, stored_h)
    claimed = picture.size_wh_px
    # Boxes belong to the picture as the annotation measured it: stored or as it is shown.
    turn = turned and claimed == (stored_w, stored_h) != (width, height)
    if turn:
        text = f"boxes are in stored pixels; turned along with EXIF orientation {seen.orientation}"
        problems.append(Problem(kind="exif", file=picture.annotation, line=None, text=text))
    elif claimed is not None and claimed != (width, height):
        text = f"claims {claimed[0]}x{claimed[1]} px, {picture.path.name} has {width}x{height}"
        problems.append(Problem(kind="size", file=picture.annotation, line=None, text=text))
    kept = []
    for box in picture.boxes:
        scale = (width, height) if picture.normalised else (1, 1)
        x1, y1, x2, y2 = (value * scale[i % 2] for i, value in enumerate(box.xyxy))
        if turn:
            x1, y1, x2, y2 = _turn((x1, y1, x2, y2), seen)
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


def _turn(
    xyxy: tuple[float, float, float, float], seen: _Seen
) -> tuple[float, float, float, float]:
    """A box in stored pixels as a box of the picture as shown (EXIF 2.3, orientation 5 to 8)."""
    w, h = seen.stored_wh_px
    x1, y1, x2, y2 = xyxy
    return {
        5: (y1, x1, y2, x2),
        6: (h - y2, x1, h - y1, x2),
        7: (h - y2, w - x2, h - y1, w - x1),
        8: (y1, w - x2, y2, w - x1),
    }[seen.orientation]
