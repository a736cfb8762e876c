"""Postprocess: what the model returned becomes detections in pixels of the source frame."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.detections import Detections, Fit
from pipeline.errors import ConfigError
from pipeline.messages import SHADOW, Output, Result
from pipeline.stage import Stage
from stages.detector.bundle import Facts
from stages.detector.decode import Options, detections_of_all
from stages.detector.matching import match

TRUTH_COUNTERS = ("true_positive", "false_positive", "false_negative")
TRUTH_IOU = 0.5
_UNSURE = 0.05  # the least score that is worth telling of
_LOOK_NS = 1_000_000_000


@dataclass(frozen=True)
class PostprocessConfig:
    """What to keep. None: the bundle's default."""

    facts: str  # JSON, `Facts.to_json`
    score_threshold: float | None = None  # 0..1
    per_class: dict[str, float] = field(
        default_factory=dict
    )  # class name → its own threshold, 0..1
    classes: list[str] | None = None  # class names to keep; None: all
    iou_threshold: float | None = None  # 0..1, of NMS within a class
    max_detections: int | None = None  # of one frame, 1..1000
    labels: tuple[int, ...] | None = None  # of the run for each of the model's; None: the same
    is_shadow: bool = False  # what it finds is compared and not delivered
    tells_missed: bool = False  # the best below the threshold, once a second and camera


class Postprocess(Stage):
    """Threshold, NMS, back to the source frame; counts what it finds, and how right it is if told."""

    Config = PostprocessConfig
    config: PostprocessConfig

    def __init__(self, config: PostprocessConfig) -> None:
        super().__init__(config)
        self._facts = Facts.from_json(config.facts)
        self._options = _options(config, self._facts)
        self._low = replace(self._options, score_threshold=_UNSURE, per_class={})
        self._look_ns: dict[str, int] = {}
        same = config.labels is None or config.labels == tuple(range(len(config.labels)))
        self._labels = None if same else np.array(config.labels, np.int32)

    @classmethod
    def check(cls, config: PostprocessConfig) -> None:
        """Raises ConfigError for a value out of range or a class that the model does not know."""
        _options(config, Facts.from_json(config.facts))

    @classmethod
    def counters(cls, config: PostprocessConfig) -> tuple[str, ...]:
        """`detections:<class name>` for each class, and the three that need a known truth.

        Of one that only looks on, whose detections nobody gets, the three alone.
        """
        classes = () if config.is_shadow else Facts.from_json(config.facts).classes
        return (*(f"detections:{name}" for name in classes), *TRUTH_COUNTERS)

    def process(self, output: Output) -> Result:
        """Never waits; under a millisecond for usual scenes."""
        info = output.info
        fits = (output.fit, *output.tiles)
        found = detections_of_all(
            output.arrays, self._facts, fits, (info.width, info.height), self._options
        )
        if not self.config.is_shadow:
            self._count(found, info.camera)
        if info.truth is not None:
            self._judge(found, info.truth, info.camera)
        missed = self._missed(output, fits, found)
        if self._labels is not None:
            found = replace(found, labels=self._labels[found.labels])
        model_id = SHADOW + output.model_id if self.config.is_shadow else output.model_id
        return Result(info=info, detections=found, model_id=model_id, missed=missed)

    def _missed(
        self, output: Output, fits: tuple[Fit, ...], found: Detections
    ) -> tuple[int, float] | None:
        """The best that was not sure enough, looked for once a second; None: nothing, or not looked for."""
        info = output.info
        if not self.config.tells_missed or info.t_capture_ns < self._look_ns.get(info.camera, 0):
            return None
        self._look_ns[info.camera] = info.t_capture_ns + _LOOK_NS
        low = detections_of_all(
            output.arrays, self._facts, fits, (info.width, info.height), self._low
        )
        unsure = low[~np.isin(low.scores, found.scores)]  # the best first
        if not len(unsure):
            return None
        label = int(unsure.labels[0])
        return label if self._labels is None else int(self._labels[label]), float(unsure.scores[0])

    def _count(self, found: Detections, camera: str) -> None:
        for label, n in zip(*np.unique(found.labels, return_counts=True), strict=True):
            self.runtime.count(f"detections:{self._facts.classes[label]}", camera, int(n))

    def _judge(self, found: Detections, truth: Detections, camera: str) -> None:
        if self._options.classes is not None:  # what nobody asked for cannot be missed
            truth = truth[np.isin(truth.labels, sorted(self._options.classes))]
        hits = len(match(found, truth, TRUTH_IOU))
        numbers = (hits, len(found) - hits, len(truth) - hits)
        for name, n in zip(TRUTH_COUNTERS, numbers, strict=True):
            if n:
                self.runtime.count(name, camera, n)


def _options(config: PostprocessConfig, facts: Facts) -> Options:
    thresholds = {"score_threshold": config.score_threshold, "iou_threshold": config.iou_threshold}
    thresholds |= {f"per_class {name!r}": value for name, value in config.per_class.items()}
    for key, value in thresholds.items():
        if value is not None and not 0 <= value <= 1:
            hint = f"; write {value / 100:g} for {value:g} %" if 1 < value <= 100 else ""
            raise ConfigError(f"{key} must be within 0..1, got {value}{hint}")
    limit = config.max_detections
    if limit is not None and not 1 <= limit <= 1000:
        raise ConfigError(f"max_detections must be within 1..1000, got {limit}")
    return Options(
        score_threshold=config.score_threshold,
        per_class={_label(name, facts): value for name, value in config.per_class.items()},
        classes=None
        if config.classes is None
        else frozenset(_label(n, facts) for n in config.classes),
        iou_threshold=config.iou_threshold,
        max_detections=limit,
    )


def _label(name: str, facts: Facts) -> int:
    if name in facts.classes:
        return facts.classes.index(name)
    close = difflib.get_close_matches(name, facts.classes, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"it knows {', '.join(facts.classes[:10])}"
    raise ConfigError(f"the model {facts.name!r} has no class {name!r}; {hint}")
