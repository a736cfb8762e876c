"""Events: what was found, as JSON Lines that stay whole whatever is killed.

One object a line:

    {"camera": "gate", "frame_id": 120, "time": "2026-11-22T10:00:00.123456Z", "width": 640,
     "height": 352, "detections": [{"xyxy": [x1, y1, x2, y2], "label": "car", "class_id": 2,
     "score": 0.66, "track_id": null}]}

and `"name"` where the frame is a picture with a file name, `"media_time"`, seconds from its beginning,
where it is one of a recording. Boxes are in pixels of the source frame;
numbers are the shortest that give the same float32 back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.messages import Result
from pipeline.stage import Sink
from stages.sinks.files import DISK_TURN_S
from stages.sinks.lines import LinesFile, utc


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
        self._file = LinesFile("events", config.path)

    @classmethod
    def check(cls, config: EventsConfig) -> None:
        """Raises ResourceError if the file can't be made or written."""
        LinesFile("events", config.path).check()

    def setup(self) -> None:
        """Open the file and cut what a killed writer left after the last whole line."""
        self._file.open()

    def process(self, result: Result) -> None:
        """Write one line. Raises FrameError if the disk does not take it whole; the next may be taken."""
        if self.config.only_hits and not len(result.detections):
            return
        self._file.append(line_of(result, self.config.classes))

    def idle(self) -> None:
        """Let go of a file that is not at its path any more: a rotated log, a deleted one."""
        self._file.follow()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def line_of(result: Result, classes: Sequence[str]) -> bytes:
    """A result as one JSON object and a newline; a label beyond `classes` is named by its number."""
    info, found = result.info, result.detections
    tracks: list[int | None] = [None] * len(found)
    if found.track_ids is not None:
        tracks = [track if track >= 0 else None for track in found.track_ids.tolist()]
    event: dict[str, Any] = {
        "camera": info.camera,
        "frame_id": info.frame_id,
        "time": utc(info.t_wall_ns),
        "width": info.width,
        "height": info.height,
    }
    if info.name is not None:
        event["name"] = info.name
    elif info.recorded and info.pts_ns is not None:
        event["media_time"] = round(info.pts_ns / 1e9, 6)
    if result.model_id:
        event["model"] = result.model_id
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
