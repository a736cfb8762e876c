"""Happenings: what happened, as JSON Lines that stay whole whatever is killed.

One object a line, as `pipeline.happenings.to_json` has it:

    {"version": 1, "id": "5f3a9c1e-gate-120-0", "run": "5f3a9c1e", "kind": "crossed", "camera": "gate",
     "frame_id": 120, "time": "2026-11-22T10:00:00.123456Z", "object": 17, "label": "car",
     "score": 0.66, "xyxy": [x1, y1, x2, y2], "place": "kerb", "direction": "in"}
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.happenings import KINDS, to_json
from pipeline.messages import Result
from pipeline.stage import Sink
from stages.sinks.files import DISK_TURN_S
from stages.sinks.lines import LinesFile, utc


@dataclass(frozen=True, kw_only=True)
class HappeningsConfig:
    """Which file, and what goes into it."""

    path: str  # appended to; its folder is made if missing
    kinds: tuple[str, ...] | None = None  # None: all


class Happenings(Sink):
    """Appends the lines of a result in one write."""

    Config = HappeningsConfig
    config: HappeningsConfig
    turn_s = DISK_TURN_S
    takes_health = True

    def __init__(self, config: HappeningsConfig) -> None:
        super().__init__(config)
        self._file = LinesFile("happenings", config.path)

    @classmethod
    def check(cls, config: HappeningsConfig) -> None:
        """Raises ConfigError for an unknown kind, ResourceError if the file can't be written."""
        for kind in config.kinds or ():
            if kind not in KINDS:
                raise ConfigError(
                    f"sink happenings: unknown kind {kind!r}; wanted some of {', '.join(KINDS)}"
                )
        LinesFile("happenings", config.path).check()

    def setup(self) -> None:
        """Open the file and cut what a killed writer left after the last whole line."""
        self._file.open()

    def process(self, result: Result) -> None:
        """Write a line for each. Raises FrameError if the disk does not take them whole."""
        info, kinds = result.info, self.config.kinds or KINDS
        time = utc(info.t_wall_ns)
        documents = [
            to_json(one, number, camera=info.camera, frame_id=info.frame_id, time=time)
            for number, one in enumerate(result.happenings)
            if one.kind in kinds
        ]
        if documents:
            lines = (json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
            self._file.append("".join(lines).encode())

    def idle(self) -> None:
        """Let go of a file that is not at its path any more."""
        self._file.follow()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
