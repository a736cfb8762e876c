"""Do boxes lie on their objects? Figure v.

    python -m benchmarks.boxes [--seconds 120] [--json FILE]

`manyeyes demo` with rendered cameras, whose truth travels with each frame, and a render stage that notes
what it draws. The value is the median IoU of a drawn box with the object of its class that it overlaps
most. v1 is the demo as it is, four cameras of 8 Hz; then two cameras of 15 Hz, with detection as often as
that (v2), at a third (v3) and a tenth (v4) of it, since no more was asked for; and at a third because a
batch takes three periods, so that results are late, too (v5).

Beside each: what it would be if the last result before a frame were drawn on it as it is, how many objects
have a box of IoU 0.5 or more, and how old pictures are when they are drawn.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rig.measure import Figure, Target, command, median
from benchmarks.rig.runs import changed
from pipeline.accounts.layout import DETECT
from pipeline.detections import Detections, iou_matrix
from pipeline.messages import Frame, Output, Tensor
from pipeline.plan import config as configuration
from pipeline.plan.graph import Plan
from pipeline.plan.standard import make
from pipeline.supervision.supervisor import Options, Supervisor
from stages.inference import Inference, InferenceConfig
from stages.render import Render, RenderConfig

SECONDS = 120  # of all parts together, beside their starts
DEMO, TWO = (4, 8.0), (2, 15.0)  # cameras, frames a second of each: as the command has them
MOST_VALUES = 1000  # boxes of a part that the interval is made of
FOUND_IOU = 0.5
Boxes = tuple[list[list[float]], list[int]]  # xyxy, labels


def figures(seconds: float) -> list[Figure]:
    """Measure all of them."""
    each_s = seconds / 5
    good = Target(sign="≥", limit=0.85)
    third_hz, tenth_hz = TWO[1] / 3, TWO[1] / 10
    return [
        _figure("v1", "the demo", run(*DEMO, each_s), good),
        _figure("v2", "detection at 1/1", run(*TWO, each_s), good),
        _figure("v3", "at 1/3, as asked", run(*TWO, each_s, _asked(third_hz)), good),
        _figure("v4", "at 1/10, as asked", run(*TWO, each_s, _asked(tenth_hz))),
        _figure("v5", "at 1/3, slow model", run(*TWO, each_s, _slow(1 / third_hz))),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One frame as it was drawn."""

    camera: str
    frame_id: int
    age_ms: float  # from capture until it was drawn
    drawn: Boxes
    truth: Boxes


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What was seen of one run."""

    rows: list[Row]
    results: dict[tuple[str, int], Boxes]  # (camera, frame_id): what was found in it


def run(
    cameras: int, rate_hz: float, seconds: float, edit: Callable[[Plan], Plan] = lambda plan: plan
) -> Part:
    """A demo of so many cameras; edit: the last word on its plan."""
    with tempfile.TemporaryDirectory(prefix="manyeyes-boxes-") as name:
        folder = Path(name)
        sources = [
            f"synthetic://?seed={seed}&size=640x360&rate={rate_hz:g}"
            for seed in range(1, cameras + 1)
        ]
        events = folder / "events.jsonl"
        config = configuration.from_sources(
            sources,
            events=events,
            video=folder,
            seconds=seconds,
            track=importlib.util.find_spec("trackers") is not None,  # as `manyeyes demo`
        )
        plan = _noting(edit(make(config)), folder / "rows.jsonl")
        Supervisor(plan, Options(seconds=seconds)).run()
        rows = [Row(**row) for row in _lines(folder / "rows.jsonl")]
        results = {
            (event["camera"], event["frame_id"]): (
                [found["xyxy"] for found in event["detections"]],
                [found["class_id"] for found in event["detections"]],
            )
            for event in _lines(events)
        }
    return Part(rows=rows, results=results)


def ious(drawn: Boxes, truth: Boxes) -> np.ndarray[Any, Any]:
    """Of each drawn box with each object, 0 where their classes differ: (N, M)."""
    boxes = [np.array(xyxy, np.float32).reshape(-1, 4) for xyxy, _ in (drawn, truth)]
    same = np.equal.outer(np.array(drawn[1], int), np.array(truth[1], int))
    return np.where(same, iou_matrix(*boxes), 0)


def staying(part: Part) -> list[float]:
    """Best IoU of each box of the last result before a frame, if it were drawn on it as it is."""
    values: list[float] = []
    last: dict[str, Boxes] = {}
    for row in sorted(part.rows, key=lambda row: row.frame_id):
        if row.camera in last:
            values += _best(ious(last[row.camera], row.truth), axis=1)
        if (found := part.results.get((row.camera, row.frame_id))) is not None:
            last[row.camera] = found
    return values


def _best(table: np.ndarray[Any, Any], axis: int) -> list[float]:
    best: list[float] = table.max(axis=axis, initial=0.0).tolist()
    return best


def _figure(id: str, what: str, part: Part, target: Target | None = None) -> Figure:
    tables = [ious(row.drawn, row.truth) for row in part.rows]
    values = np.array([iou for table in tables for iou in _best(table, axis=1)])
    found = [iou >= FOUND_IOU for table in tables for iou in _best(table, axis=0)]
    ages = [row.age_ms for row in part.rows]
    return median(
        id,
        f"median IoU of drawn boxes, {what}",
        values[:: -(-len(values) // MOST_VALUES)],
        target,
        detail=f"boxes that stay {np.median(staying(part)):.2f}; p10 {np.quantile(values, 0.1):.2f}; "
        f"{np.mean(found):.0%} of objects; {len(part.results)} results for {len(part.rows)} pictures, "
        f"p50 {np.median(ages):.0f} ms old",
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines():
        yield json.loads(line)


# -- the plan, changed -----------------------------------------------------------------------------


def _noting(plan: Plan, rows: Path) -> Plan:
    return _as(changed(plan, "render", rows=str(rows)), "render", NotingRender)


def _asked(hz: float) -> Callable[[Plan], Plan]:
    """No more than so many frames a second are asked for by the detect path."""

    def edit(plan: Plan) -> Plan:
        processes = tuple(
            replace(
                spec,
                outputs=tuple(
                    replace(edge, max_hz=hz) if edge.paths[:1] == (DETECT,) else edge
                    for edge in spec.outputs
                ),
            )
            if spec.role == "source"
            else spec
            for spec in plan.processes
        )
        return replace(plan, processes=processes)

    return edit


def _slow(batch_s: float) -> Callable[[Plan], Plan]:
    """A batch takes so long."""
    return lambda plan: _as(changed(plan, "inference", batch_s=batch_s), "inference", SlowInference)


def _as(plan: Plan, stage: str, kind: type) -> Plan:
    processes = tuple(
        replace(spec, run=f"{__spec__.name}:{kind.__name__}")
        if spec.name.split(".")[0] == stage
        else spec
        for spec in plan.processes
    )
    return replace(plan, processes=processes)


@dataclass(frozen=True, kw_only=True)
class NotingConfig(RenderConfig):
    """And where to note."""

    rows: str


class NotingRender(Render):
    """Notes what it draws, one JSON line a frame."""

    Config = NotingConfig
    config: NotingConfig

    def setup(self) -> None:
        """As it does."""
        super().setup()
        self._fd = os.open(self.config.rows, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def process(  # type: ignore[override]  # as JoinStage
        self, frame: Frame, detections: Detections | None
    ) -> Frame:
        """As it does."""
        out = super().process(frame, detections)
        info = frame.info
        row = Row(
            camera=info.camera,
            frame_id=info.frame_id,
            age_ms=(time.monotonic_ns() - info.t_capture_ns) / 1e6,
            drawn=_boxes(_followed(detections)),
            truth=_boxes(info.truth),
        )
        os.write(self._fd, json.dumps(asdict(row)).encode() + b"\n")
        return out


def _boxes(found: Detections | None) -> Boxes:
    if found is None:
        return [], []
    return found.xyxy.tolist(), found.labels.tolist()


def _followed(found: Detections | None) -> Detections | None:
    """Without what is not drawn, since it is of no object yet."""
    if found is None or found.track_ids is None:
        return found
    return found[np.flatnonzero(found.track_ids >= 0)]


@dataclass(frozen=True)
class SlowConfig(InferenceConfig):
    """And how long a batch takes, in seconds."""

    batch_s: float = 0.0


class SlowInference(Inference):
    """Answers when its time is over, and not before."""

    Config = SlowConfig
    config: SlowConfig

    def process_batch(self, items: Sequence[Tensor]) -> Sequence[Output]:
        """As it does."""
        end_s = time.monotonic() + self.config.batch_s
        outputs = super().process_batch(items)
        time.sleep(max(0.0, end_s - time.monotonic()))
        return outputs


if __name__ == "__main__":
    command("boxes", __doc__, figures, SECONDS)
