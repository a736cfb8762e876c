"""A model on pictures, folders and videos without the pipeline: drawn, and as lines of events."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.detections import Detections
from pipeline.errors import DataError
from pipeline.messages import Image
from stages.imaging.drawing import draw
from stages.imaging.films import film_of, turn_of, width_of
from stages.training.convert import new_folder
from stages.training.formats import PICTURE_SUFFIXES, pictures_below
from stages.training.pictures import decode
from stages.training.predict import Predictor


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One picture to look at; `rate_hz` is that of its video."""

    source: str
    index: int
    path: Path  # of the picture or the video
    name: str | None  # of a picture, seen from its source
    image: Image
    rate_hz: Fraction | None


def annotate(
    predictor: Predictor,
    sources: Sequence[Path | str],
    output: Path | str,
    progress: Callable[[int], None] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, int]:
    """Find things in pictures, folders of pictures and videos; write a new folder.

    output: gets each picture drawn (JPEG), each video drawn (MP4, H.264), and detections.jsonl, whose
        lines are events as the pipeline writes them. Appears whole or not at all.
    progress: called with the number of pictures done. note: is told of pictures that are broken; they
        are left out, and so is the rest of a video that breaks off.
    Returns how often each class was found, those that were.
    Raises DataError naming the source that is none, ResourceError if the folder can't be written.
    """
    counts: Counter[str] = Counter()
    done, names = 0, _Names()
    with new_folder(Path(output)) as folder, ExitStack() as stack:
        lines = stack.enter_context((folder / "detections.jsonl").open("w", encoding="utf-8"))
        film = stack.enter_context(_Film(folder))
        for batch in batches(shots(sources, note), predictor.batch):
            for shot, found in zip(batch, predictor([shot.image for shot in batch]), strict=True):
                lines.write(json.dumps(_event(shot, found, predictor.classes)) + "\n")
                drawn = draw(shot.image.copy(), found, predictor.classes)
                if shot.name is None:
                    film.add(shot, drawn)
                else:
                    name = names.free(f"{shot.source}_{shot.name.replace('/', '_')}")
                    cv2.imwrite(str(folder / name), drawn)
                for label in found.labels.tolist():
                    counts[predictor.classes[label]] += 1
            done += len(batch)
            if progress is not None:
                progress(done)
    return dict(counts)


class _Names:
    """File names of drawn pictures: each is used once, whatever folder and suffix the picture had."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def free(self, name: str) -> str:
        """A JPEG's name for a picture's: x.jpg, and x_png.jpg for the x.png beside it."""
        path = Path(name)
        other = f"{path.stem}_{path.suffix.removeprefix('.')}"
        wanted = itertools.chain((path.stem, other), (f"{other}-{n}" for n in itertools.count(2)))
        return next(stem for stem in wanted if self._take(stem.casefold())) + ".jpg"

    def _take(self, stem: str) -> bool:
        free = stem not in self._taken
        self._taken.add(stem)
        return free


def shots(sources: Sequence[Path | str], note: Callable[[str], None]) -> Iterator[Shot]:
    """The pictures of all sources, in order; `note` is told of those of a folder that are broken.

    Raises DataError for a source that is none, or has no picture that can be read.
    """
    names: set[str] = set()
    for source in sources:
        path = Path(source)
        stem = path.stem or path.resolve().name
        stem = stem if stem not in names else f"{stem}-{len(names)}"
        names.add(stem)
        if path.is_dir():
            pictures = pictures_below(path)
            if not pictures:
                raise DataError(
                    f"{path}: no picture in this folder; wanted JPEG, PNG, BMP, WebP or TIFF"
                )
            yield from _readable(path, stem, pictures, note)
        elif path.suffix.lower() in PICTURE_SUFFIXES:
            image = decode(path)
            yield Shot(source=stem, index=0, path=path, name=path.name, image=image, rate_hz=None)
        else:
            yield from _frames(path, stem, note)


def _readable(
    folder: Path, stem: str, pictures: Sequence[Path], note: Callable[[str], None]
) -> Iterator[Shot]:
    broken = None
    whole = 0
    for i, path in enumerate(pictures):
        try:
            image = decode(path)
        except DataError as error:
            note(f"{error}; it is left out")
            broken = error
            continue
        whole += 1
        name = path.relative_to(folder).as_posix()
        yield Shot(source=stem, index=i, path=path, name=name, image=image, rate_hz=None)
    if broken and not whole:
        raise DataError(f"{folder}: no picture can be read; the last: {broken}")


def _frames(path: Path, stem: str, note: Callable[[str], None]) -> Iterator[Shot]:
    import av

    if not path.is_file():
        raise DataError(f"{path}: no such picture, folder or video")
    count = 0
    try:
        with av.open(str(path)) as container:
            film = film_of(container)
            if film is None:
                raise DataError(f"{path}: no video in this file")
            rate = Fraction(film.average_rate or 25)
            for frame in container.decode(film):
                image = _upright(frame, film)
                yield Shot(
                    source=stem, index=count, path=path, name=None, image=image, rate_hz=rate
                )
                count += 1
    except av.FFmpegError as error:
        if count:
            note(
                f"{path}: breaks off after {count} pictures ({error.strerror}); the rest is left out"
            )
            return
        raise DataError(f"{path}: no readable picture or video: {error.strerror}") from error


def _upright(frame: Any, film: Any) -> Image:
    """A decoded picture as a run sees it: turned, with square pixels; uint8 (H, W, 3) BGR."""
    wide = width_of(frame, film.sample_aspect_ratio or film.codec_context.sample_aspect_ratio)
    image = frame.to_ndarray(format="bgr24", width=wide).astype("uint8", copy=False)
    return np.ascontiguousarray(turn_of(frame).upright(image))


class _Film:
    """The video that is being written; another one for each source."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._source = ""
        self._size_wh = (0, 0)
        self._container: Any = None

    def __enter__(self) -> _Film:
        return self

    def __exit__(self, *_: object) -> None:
        if self._container is not None:
            for packet in self._stream.encode(None):
                self._container.mux(packet)
            self._container.close()

    def add(self, shot: Shot, image: Image) -> None:
        """One more frame; a source whose size changes is scaled to its first."""
        import av

        if shot.source != self._source:
            self.__exit__()
            self._source = shot.source
            self._container = av.open(str(self._folder / f"{shot.source}.mp4"), "w")
            self._stream = self._container.add_stream(
                "libx264", rate=shot.rate_hz, options={"crf": "23"}
            )
            self._size_wh = (max(2, image.shape[1] // 2 * 2), max(2, image.shape[0] // 2 * 2))
            self._stream.width, self._stream.height = self._size_wh
            self._stream.pix_fmt = "yuv420p"
        if (image.shape[1], image.shape[0]) != self._size_wh:  # H.264 wants even sides
            image = cv2.resize(image, self._size_wh).astype("uint8", copy=False)
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


def _event(shot: Shot, found: Detections, classes: Sequence[str]) -> dict[str, Any]:
    height, width = shot.image.shape[:2]
    rows = zip(found.xyxy, found.scores, found.labels.tolist(), strict=True)
    detections = [
        {
            "xyxy": [float(str(edge)) for edge in xyxy],  # the shortest that gives the float32 back
            "label": classes[label],
            "class_id": label,
            "score": float(str(score)),
            "track_id": None,
        }
        for xyxy, score, label in rows
    ]
    name = {} if shot.name is None else {"name": shot.name}
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    head = {
        "camera": shot.source,
        "frame_id": shot.index,
        "time": time,
        "width": width,
        "height": height,
    }
    return {**head, **name, "detections": detections}


def batches(shots: Iterator[Shot], size: int) -> Iterator[list[Shot]]:
    """In lists of `size`, the last one perhaps shorter."""
    batch: list[Shot] = []
    for shot in shots:
        batch.append(shot)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
