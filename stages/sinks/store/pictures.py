"""Pictures: the best one of each object, a crop and the whole frame, as files beside the store."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.detections import Detections
from pipeline.errors import ConfigError, FrameError
from pipeline.happenings import picture_name
from pipeline.messages import Frame, Image
from pipeline.stage import JoinStage
from stages.sinks.files import DISK_TURN_S, check_folder, make_folder

_BETTER = 1.2  # so many times as good as the one that is kept, or it is not worth the work
_AT_ONCE = 4  # of one frame, the best gains first; the others are looked at in the next one
_FORGET_S = 60.0  # after an object was seen last
_MOST = 4096  # objects that are remembered
_MARGIN = 0.15  # of a box's sides, around it in the crop
_WHOLE_PX = 1280  # longest side of a whole frame
_SWEEP_S = 60.0

KEPT, LOST = "pictures", "pictures_lost"


@dataclass(frozen=True, kw_only=True)
class PicturesConfig:
    """Where, how long, how many."""

    path: str  # a folder; made if missing
    run: str = "0"  # id of the run
    keep_days: float = 30.0  # > 0
    max_mib: float = 4096.0  # of all of them, > 0; the oldest go first
    quality: int = 85  # of the JPEGs, 1..100


class Pictures(JoinStage):
    """Looks at a few frames a second, and writes only what is better than what it has. Gives nothing.

    A full disk costs the pictures that it does not take, which are counted, and nothing else.
    """

    Config = PicturesConfig
    config: PicturesConfig
    turn_s = DISK_TURN_S

    def __init__(self, config: PicturesConfig) -> None:
        super().__init__(config)
        self._best: dict[tuple[str, int], _Best] = {}
        self._sweep_at_s = 0.0

    @classmethod
    def check(cls, config: PicturesConfig) -> None:
        """Raises ConfigError for a number out of range, ResourceError for a folder."""
        if not config.max_mib > 0:
            raise ConfigError(f"sink store: pictures_mib must be >= 0, got {config.max_mib}")
        check_folder("store", Path(config.path))

    @classmethod
    def counters(cls, config: PicturesConfig) -> tuple[str, ...]:
        """Pictures that were written, and those that the disk did not take."""
        return (KEPT, LOST)

    def setup(self) -> None:
        """Make the folder."""
        import cv2

        cv2.setNumThreads(1)
        make_folder("store", Path(self.config.path))

    def process(self, frame: Frame, detections: Detections | None) -> None:  # type: ignore[override]
        """Write pictures of those who were never seen better. Raises FrameError for a full disk."""
        now_s = time.monotonic()
        if now_s >= self._sweep_at_s:
            self._sweep_at_s = now_s + _SWEEP_S
            self._forget(now_s)
            sweep(Path(self.config.path), self.config.keep_days, int(self.config.max_mib * 2**20))
        better = self._better(frame, detections, now_s) if detections is not None else []
        whole = None
        for key, value, box in better:
            whole = whole or _jpeg(_whole(frame.image), self.config.quality)
            crop = _jpeg(_crop(frame, box), self.config.quality)
            try:
                self._write(*key, crop, whole)
            except OSError as error:
                self.runtime.count(LOST, frame.info.camera)
                raise FrameError(
                    f"sink store: pictures in {self.config.path} can't be written "
                    f"({error.strerror}); make room"
                ) from error
            self._best[key].value = value
            self.runtime.count(KEPT, frame.info.camera)

    def _better(
        self, frame: Frame, found: Detections, now_s: float
    ) -> list[tuple[tuple[str, int], float, Any]]:
        """Object, how good it is to be seen here, its box: the largest gains first."""
        if found.track_ids is None:
            return []
        info, gains = frame.info, []
        for i in np.flatnonzero(found.track_ids >= 0).tolist():
            key, box = (info.camera, int(found.track_ids[i])), found.xyxy[i]
            value = worth(box, float(found.scores[i]), (info.width, info.height))
            known = self._best.get(key) or self._new(key, value)
            known.seen_s = now_s
            if value > _BETTER * known.value:
                gains.append((value / (known.value + 1e-9), key, value, box))
        gains.sort(key=lambda gain: gain[0], reverse=True)
        return [gain[1:] for gain in gains[:_AT_ONCE]]

    def _new(self, key: tuple[str, int], value: float) -> _Best:
        """An object that is not remembered; if it has a picture, of a process before this one, perhaps,
        that is taken to be as good as what is seen now."""
        path = os.path.join(self.config.path, f"{picture_name(self.config.run, *key)}.jpg")
        self._best[key] = _Best(value if os.path.exists(path) else 0.0)
        return self._best[key]

    def _write(self, camera: str, track: int, crop: bytes, whole: bytes) -> None:
        folder, name = os.path.split(picture_name(self.config.run, camera, track))
        place = os.path.join(self.config.path, folder)
        os.makedirs(place, exist_ok=True)
        for data, end in ((whole, ".frame.jpg"), (crop, ".jpg")):
            path = os.path.join(place, f"{name}{end}")
            aside = os.path.join(place, f".{name}{end}.part")  # who opens one finds a whole one
            try:
                with open(aside, "wb") as file:
                    file.write(data)
                os.replace(aside, path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(aside)
                raise

    def _forget(self, now_s: float) -> None:
        kept = {k: one for k, one in self._best.items() if now_s - one.seen_s < _FORGET_S}
        newest = sorted(kept, key=lambda key: kept[key].seen_s)[-_MOST:]
        self._best = {key: kept[key] for key in newest}


@dataclass(slots=True)
class _Best:
    value: float = 0.0  # of the picture that is kept
    seen_s: float = 0.0


def worth(box: Any, score: float, size_wh_px: tuple[int, int]) -> float:
    """How good an object is to be seen: large, sure, and not cut by the border of the picture. Pure."""
    width, height = size_wh_px
    x1, y1, x2, y2 = (float(edge) for edge in box)
    share = max(0.0, x2 - x1) * max(0.0, y2 - y1) / (width * height)
    cut = x1 <= 1 or y1 <= 1 or x2 >= width - 1 or y2 >= height - 1
    return float(score * share**0.5 * (0.5 if cut else 1.0))


def sweep(folder: Path, keep_days: float, max_bytes: int) -> int:
    """Remove what is old, counted from the newest, and the oldest of what is too much.

    Returns how many bytes are left.
    """
    files = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            with contextlib.suppress(OSError):  # it is gone already
                stat = os.stat(path)
                files.append((stat.st_mtime, stat.st_size, path))
    files.sort()
    oldest_s = files[-1][0] - keep_days * 86400 if files else 0.0
    total = sum(size for _, size, _ in files)
    for changed_s, size, path in files:
        if changed_s >= oldest_s and total <= max_bytes:
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
            total -= size
            os.removedirs(os.path.dirname(path))  # those that are empty now
    return total


def _whole(image: Image) -> Image:
    import cv2

    longest = max(image.shape[:2])
    if longest <= _WHOLE_PX:
        return image
    scale = _WHOLE_PX / longest
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _crop(frame: Frame, box: Any) -> Image:
    """What is in and around a box, which is in pixels of the source."""
    scale = np.array([frame.width / frame.info.width, frame.height / frame.info.height] * 2)
    x1, y1, x2, y2 = (box * scale).tolist()
    dx, dy = _MARGIN * (x2 - x1), _MARGIN * (y2 - y1)
    left, top = max(0, int(x1 - dx)), max(0, int(y1 - dy))
    right, bottom = min(frame.width, int(x2 + dx) + 1), min(frame.height, int(y2 + dy) + 1)
    left, top = min(left, frame.width - 1), min(top, frame.height - 1)
    return frame.image[top : max(bottom, top + 1), left : max(right, left + 1)]


def _jpeg(image: Image, quality: int) -> bytes:
    import cv2

    data: bytes = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    return data
