"""Where a model that only looks on finds other things than the one that delivers, frame by frame."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.detections import Detections
from pipeline.errors import ConfigError
from pipeline.messages import SHADOW, Result
from pipeline.stage import Stage
from stages.detector.matching import match

COMPARED = "compared"  # frames that both have seen
_KEPT = 64  # frames of a camera that wait for the other one's result; a shadow sees not every frame


@dataclass(frozen=True)
class CompareConfig:
    """What is the same."""

    classes: Sequence[str]  # names by label, of all that either model knows
    iou_threshold: float = 0.5  # 0..1; above it two boxes of one class are one object


class Compare(Stage):
    """Counts, by camera and class of the box, what both found, what only one did, and other classes.

    `both:<class>`, `only_new:<class>` and `only_old:<class>`; new is the one that looks on.
    """

    Config = CompareConfig
    config: CompareConfig

    def __init__(self, config: CompareConfig) -> None:
        super().__init__(config)
        self._waiting: defaultdict[str, dict[int, tuple[bool, Detections]]] = defaultdict(dict)

    @classmethod
    def check(cls, config: CompareConfig) -> None:
        """Raises ConfigError for a threshold out of range."""
        if not 0 <= config.iou_threshold <= 1:
            raise ConfigError(f"iou_threshold must be within 0..1, got {config.iou_threshold}")

    @classmethod
    def counters(cls, config: CompareConfig) -> tuple[str, ...]:
        """Frames that were compared, and of each class what was found."""
        kinds = ("both", "only_new", "only_old")
        return (COMPARED, *(f"{kind}:{name}" for kind in kinds for name in config.classes))

    def process(self, result: Result) -> None:
        """Under a millisecond for usual scenes."""
        is_new, frame_id = result.model_id.startswith(SHADOW), result.info.frame_id
        waiting = self._waiting[result.info.camera]
        other = waiting.pop(frame_id, None)
        if other is not None and other[0] != is_new:
            found = result.detections
            new, old = (found, other[1]) if is_new else (other[1], found)
            self._compare(result.info.camera, new, old)
            return
        waiting[frame_id] = is_new, result.detections
        while len(waiting) > _KEPT:
            del waiting[next(iter(waiting))]

    def remove(self, camera: str) -> None:
        """Forget what waits."""
        self._waiting.pop(camera, None)

    def _compare(self, camera: str, new: Detections, old: Detections) -> None:
        pairs = match(new, old, self.config.iou_threshold)
        in_new, in_old = ({pair[n] for pair in pairs} for n in (0, 1))
        self.runtime.count(COMPARED, camera)
        for i, label in enumerate(new.labels.tolist()):
            self._count("both" if i in in_new else "only_new", label, camera)
        for i, label in enumerate(old.labels.tolist()):
            if i not in in_old:
                self._count("only_old", label, camera)

    def _count(self, kind: str, label: int, camera: str) -> None:
        self.runtime.count(f"{kind}:{self.config.classes[label]}", camera)
