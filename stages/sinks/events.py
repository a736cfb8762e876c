"""Events: what was found, as JSON Lines that stay whole whatever is killed.

One object a line:

    {"camera": "gate", "frame_id": 120, "time": "2026-11-22T10:00:00.123456Z", "width": 640,
     "height": 352, "detections": [{"xyxy": [x1, y1, x2, y2], "label": "car", "class_id": 2,
     "score": 0.66, "track_id": null}]}

and `"name"` where the frame is a picture with a file name. Boxes are in pixels of the source frame;
numbers are the shortest that give the same float32 back.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.errors import FrameError, ResourceError
from pipeline.messages import Result
from pipeline.stage import Sink
from stages.sinks.files import DISK_TURN_S, check_folder, is_at, make_folder

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BLOCK_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class EventsConfig:
    """Which file, and what goes into it."""

    path: str  # appended to; its folder is made if missing
    classes: tuple[str, ...] = ()  # name of each label
    only_hits: bool = False  # leave out frames in which nothing was found


class Events(Sink):
    """Appends one line per result, in one write; a file that was renamed or deleted gets a successor."""

    Config = EventsConfig
    config: EventsConfig
    turn_s = DISK_TURN_S

    def __init__(self, config: EventsConfig) -> None:
        super().__init__(config)
        self._fd = -1

    @classmethod
    def check(cls, config: EventsConfig) -> None:
        """Raises ResourceError if the file can't be made or written."""
        path = Path(config.path)
        if path.is_dir():
            raise ResourceError(f"sink events: wanted a file at {path}, got a folder; name a file")
        check_folder("events", path.parent)
        if path.exists() and not os.access(path, os.W_OK):
            raise ResourceError(f"sink events: the file {path} is not writable; change its mode")

    def setup(self) -> None:
        """Open the file and cut what a killed writer left after the last whole line."""
        self.check(self.config)
        path = Path(self.config.path)
        make_folder("events", path.parent)
        try:
            self._open()
        except OSError as error:
            raise ResourceError(
                f"sink events: {path} can't be opened ({error.strerror}); choose another path"
            ) from error

    def process(self, result: Result) -> None:
        """Write one line. Raises FrameError if the disk does not take it whole; the next may be taken."""
        if self.config.only_hits and not len(result.detections):
            return
        line = line_of(result, self.config.classes)
        try:
            if self._fd < 0:
                Path(self.config.path).parent.mkdir(parents=True, exist_ok=True)
                self._open()
            if os.write(self._fd, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self.close()  # whoever opens it again cuts what was written of the line
            raise FrameError(
                f"sink events: {self.config.path} can't be written ({error.strerror}); make room"
            ) from error

    def idle(self) -> None:
        """Let go of a file that is not at its path any more: a rotated log, a deleted one."""
        if self._fd >= 0 and not is_at(self._fd, self.config.path):
            self.close()

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(self.config.path, flags, 0o644)
        if stat.S_ISREG(os.fstat(self._fd).st_mode):
            _cut_torn_tail(self._fd)


def line_of(result: Result, classes: Sequence[str]) -> bytes:
    """A result as one JSON object and a newline; a label beyond `classes` is named by its number."""
    info, found = result.info, result.detections
    tracks: list[int | None] = [None] * len(found)
    if found.track_ids is not None:
        tracks = [track if track >= 0 else None for track in found.track_ids.tolist()]
    event: dict[str, Any] = {
        "camera": info.camera,
        "frame_id": info.frame_id,
        "time": _utc(info.t_wall_ns),
        "width": info.width,
        "height": info.height,
    }
    if info.name is not None:
        event["name"] = info.name
    event["detections"] = [
        {
            "xyxy": [float(str(edge)) for edge in box],
            "label": classes[label] if 0 <= label < len(classes) else str(label),
            "class_id": label,
            "score": float(str(score)),
            "track_id": track,
        }
        for box, label, score, track in zip(
            found.xyxy, found.labels.tolist(), found.scores, tracks, strict=True
        )
    ]
    return json.dumps(event, ensure_ascii=False).encode() + b"\n"


def _utc(t_wall_ns: int) -> str:
    """Since 1970 in ns, as UTC with microseconds; in integers, so that nothing is rounded up."""
    moment = _EPOCH + timedelta(microseconds=t_wall_ns // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _cut_torn_tail(fd: int) -> None:
    """Remove the bytes after the last newline; reads from the end only as far as needed."""
    end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    os.ftruncate(fd, end)
