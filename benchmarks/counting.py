"""How wrong are the counts of a line? Figures u1 and u2.

    python -m benchmarks.counting [--seconds 600] [--size 320x180] [--model] [--json FILE]

Rendered scenes know who crosses the line in their middle, and when: a crossing is a change of side of
somebody's feet, looked at 25 times a second. u1: from true boxes with a pixel of noise, without ids, at
25, 8 and 5 pictures a second and in bursts. u2, with --model: from the boxes of the demo model. Beside each
what supervision's LineZone counts with the ids of the same tracker.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rig.measure import Figure, Machine, Target, median, report
from pipeline.detections import Detections
from pipeline.messages import FrameInfo, Result
from pipeline.plan.model_path import demo_model
from pipeline.runtime import LocalRuntime
from stages.detector.bundle import read_facts
from stages.imaging.scenes import Scene as Rendered
from stages.scene.stage import Scene, SceneConfig
from stages.track.stage import Track, TrackConfig
from stages.training.predict import Predictor

SEEDS = (11, 12, 13)
BASE_HZ = 25
BURST = 20  # frames on, frames off
LINE = {"name": "middle", "camera": "scene", "points": ((0.5, 1.0), (0.5, 0.0))}
RIGHT = Target(sign="≤", limit=1.0)
_GONE_S = 5.0

KEPT: dict[str, Callable[[int], bool]] = {
    "25 a second": lambda _: True,
    "8 a second": lambda n: n % 3 == 0,
    "5 a second": lambda n: n % 5 == 0,
    f"bursts of {BURST} on, {BURST} off": lambda n: n // BURST % 2 == 0,
}
WITH_MODEL = "8 a second"


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600, help="of each rendered scene")
    parser.add_argument("--size", default="320x180", help="of its pictures")
    parser.add_argument("--model", action="store_true", help="with the demo model's boxes, too")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    machine = Machine()
    counts = _count(options.seconds, (width, height), options.model)
    report("counting", list(_figures(counts)), machine, options.json)


@dataclass
class Count:
    """Of one line, in one scene."""

    true: int = 0
    ours: int = 0
    theirs: int = 0  # supervision's


def _figures(counts: dict[tuple[str, str], list[Count]]) -> Iterator[Figure]:
    for (boxes, kept), scenes in counts.items():
        true, ours, theirs = (
            sum(getattr(c, k) for c in scenes) for k in ("true", "ours", "theirs")
        )
        yield median(
            "u1" if boxes == "true boxes" else "u2",
            f"count error in %, {boxes}, {kept}",
            [100 * abs(ours - true) / true],
            RIGHT if boxes == "true boxes" else None,
            detail=f"{ours} of {true}; LineZone {theirs}",
        )


def _count(
    seconds: float, size_wh_px: tuple[int, int], with_model: bool
) -> dict[tuple[str, str], list[Count]]:
    counts: dict[tuple[str, str], list[Count]] = {}
    for seed in SEEDS:
        rendered, sides = Rendered(seed, size_wh_px), Sides(size_wh_px[0] / 2)
        counters = {("true boxes", kept): Counter(size_wh_px) for kept in KEPT}
        model = Predictor(demo_model(), batch=1) if with_model else None
        if model is not None:
            counters["demo model", WITH_MODEL] = Counter(size_wh_px)
        rng = np.random.default_rng(seed)
        for n in range(round(seconds * BASE_HZ)):
            image, truth = rendered.render(n / BASE_HZ)
            sides.see(truth)
            noise = rng.normal(0, 1, (len(truth), 2)).astype(np.float32)
            xyxy = truth.xyxy + np.concatenate([noise, noise], axis=1)
            given = Detections(xyxy, np.full(len(truth), 0.9, np.float32), truth.labels)
            for (boxes, kept), counter in counters.items():
                if KEPT[kept](n):
                    of_model = model is not None and boxes != "true boxes"
                    counter.see(n, model([image])[0] if of_model else given)
        for key, counter in counters.items():
            counts.setdefault(key, []).append(counter.count(sides.crossings))
    return counts


@dataclass
class Sides:
    """The truth: how often feet change sides."""

    x_px: float
    crossings: int = 0
    _side: dict[int, bool] = field(default_factory=dict)

    def see(self, truth: Detections) -> None:
        """One frame, with known identities."""
        feet_x = (truth.xyxy[:, 0] + truth.xyxy[:, 2]) / 2
        for track, x in zip(np.asarray(truth.track_ids).tolist(), feet_x.tolist(), strict=True):
            self.crossings += self._side.get(track, x > self.x_px) != (x > self.x_px)
            self._side[track] = x > self.x_px


class Counter:
    """Tracker and scene as in a run, and LineZone behind the same tracker."""

    def __init__(self, size_wh_px: tuple[int, int]) -> None:
        import supervision as sv

        self._size = width, height = size_wh_px
        self._track = Track(TrackConfig())
        classes = tuple(read_facts(demo_model()).classes)
        self._scene = Scene(SceneConfig(classes=classes, lines=(LINE,), gone_s=_GONE_S))
        for stage in (self._track, self._scene):
            stage.runtime = LocalRuntime(("scene",))
            stage.setup()
        ends = sv.Point(width / 2, height), sv.Point(width / 2, 0)
        self._zone = sv.LineZone(*ends, triggering_anchors=[sv.Position.BOTTOM_CENTER])
        self._ours = 0
        self._sv = sv

    def see(self, n: int, found: Detections) -> None:
        """One frame that was not dropped."""
        info = FrameInfo("scene", n, round(1e9 * (1 + n / BASE_HZ)), 0, *self._size)
        done = self._scene.process(self._track.process(Result(info=info, detections=found)))
        self._ours += sum(one.kind == "crossed" for one in done.happenings)
        ids: Any = done.detections.track_ids
        known = done.detections[ids >= 0]
        self._zone.trigger(self._sv.Detections(known.xyxy, tracker_id=known.track_ids))

    def count(self, true: int) -> Count:
        """So far."""
        return Count(true, self._ours, self._zone.in_count + self._zone.out_count)


if __name__ == "__main__":
    main()
