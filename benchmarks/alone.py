"""What a frame costs without a pipeline: every stage of the detect path by itself, in one process.

The sources of all cameras fill some slots in turns, preprocess takes them all, then inference in batches,
then postprocess: the very classes and configurations of a plan, over the same frames, with nothing in
between. No message, lock or wake-up is paid for: Σ of these CPU seconds is what the work itself takes.

Each takes as many frames at a time as the model takes in a batch, and so finds the caches as the one before
left them, as in any program that has all this to do.

    python -m benchmarks.alone FILE          the child: FILE holds the specs of the plan, as JSON
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rig.measure import ROOT
from pipeline.messages import Frame, Result
from pipeline.plan.graph import Plan, ProcessSpec
from pipeline.plan.loading import build

PARTS = ("capture", "preprocess", "inference", "postprocess")


class Alone:
    """Copies of the stages, each copy in a process of its own, all at work at the same time.

    As many copies as the machine has cores, since a core is slower while its neighbours work, and in a
    pipeline at full load they all do.
    """

    def __init__(self, plan: Plan, copies: int) -> None:
        specs = plan.processes
        environment = {**os.environ, **_of(specs, "inference").environment, "PYTHONPATH": str(ROOT)}
        with tempfile.TemporaryDirectory(prefix="manyeyes-alone-") as name:
            file = Path(name) / "specs.json"
            file.write_text(json.dumps([dataclasses.asdict(spec) for spec in specs]))
            command = [sys.executable, "-m", "benchmarks.alone", str(file)]
            self._children = [
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                    cwd=ROOT, env=environment,
                )
                for _ in range(copies)
            ]  # fmt: skip
            self._answers()  # all have read the file

    def run(self, seconds: float) -> dict[str, float]:
        """CPU seconds a frame of every part, the mean of all copies."""
        answers = self._ask({"seconds": seconds})
        return {part: float(np.mean([a[part] for a in answers])) for part in PARTS}

    def found(self, frames: int) -> list[dict[str, Any]]:
        """`as_dict` of the results of the first frames; only before the first `run`."""
        (answer, *_) = self._ask({"frames": frames})
        results: list[dict[str, Any]] = answer
        return results

    def close(self) -> None:
        """End the copies."""
        for child in self._children:
            child.communicate()

    def _ask(self, question: dict[str, Any]) -> list[Any]:
        for child in self._children:
            print(json.dumps(question), file=child.stdin, flush=True)
        return self._answers()

    def _answers(self) -> list[Any]:
        lines = [child.stdout.readline() if child.stdout else "" for child in self._children]
        if not all(lines):
            raise RuntimeError("a copy of the stages died; its own words are above")
        return [json.loads(line) for line in lines]


def _of(specs: Sequence[ProcessSpec], part: str) -> ProcessSpec:
    return next(spec for spec in specs if spec.name.split(".")[0] == part)


def as_dict(result: Result) -> dict[str, Any]:
    """What was found in a frame, as JSON can say it."""
    found = result.detections
    return {
        "camera": result.info.camera,
        "frame_id": result.info.frame_id,
        "xyxy": found.xyxy.tolist(),
        "scores": found.scores.tolist(),
        "labels": found.labels.tolist(),
    }


class Stages:
    """All of them, set up."""

    def __init__(self, specs: Sequence[ProcessSpec]) -> None:
        """specs: of all processes of a plan."""
        self._batch = int(_of(specs, "inference").options["max_batch"])
        sources = [spec for spec in specs if spec.role == "source"]
        self._slots = np.zeros((self._batch, sources[0].slot_bytes), np.uint8)
        parts = [build(spec.run, spec.config) for spec in sources]
        parts += [build(spec.run, spec.config) for spec in (_of(specs, part) for part in PARTS[1:])]
        for part in parts:
            part.setup()
        *self._sources, self._preprocess, self._inference, self._postprocess = parts
        self._cameras = [spec.cameras[0] for spec in sources]
        for source in self._sources:
            source.open()
        self._frames = 0

    def batch(self) -> tuple[list[Result], dict[str, int]]:
        """A batch of frames through every part; the CPU nanoseconds of each part."""
        times = [time.process_time_ns()]
        frames = [self._read(slot) for slot in self._slots]
        times.append(time.process_time_ns())
        tensors = [self._preprocess.process(frame) for frame in frames]
        times.append(time.process_time_ns())
        outputs = self._inference.process_batch(tensors)
        times.append(time.process_time_ns())
        results = [self._postprocess.process(output) for output in outputs]
        times.append(time.process_time_ns())
        return results, dict(zip(PARTS, np.diff(times).tolist(), strict=True))

    def _read(self, slot: np.ndarray[Any, Any]) -> Frame:
        frame_id, camera = divmod(self._frames, len(self._sources))
        while (picture := self._sources[camera].read(slot)) is None:
            pass
        self._frames += 1
        return picture.frame(slot, camera=self._cameras[camera], frame_id=frame_id)


def main() -> None:
    """Answer the questions on stdin."""
    specs = [ProcessSpec.from_json(fields) for fields in json.loads(Path(sys.argv[1]).read_text())]
    stages = Stages(specs)
    print("{}", flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if "frames" in question:
            results: list[Result] = []
            while len(results) < question["frames"]:
                results += stages.batch()[0]
            answer: Any = [as_dict(result) for result in results[: question["frames"]]]
        else:
            answer = _timed(stages, question["seconds"])
        print(json.dumps(answer), flush=True)


def _timed(stages: Stages, seconds: float) -> dict[str, float]:
    spent, frames, end = dict.fromkeys(PARTS, 0), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        results, times = stages.batch()
        spent = {part: spent[part] + times[part] for part in PARTS}
        frames += len(results)
    return {part: ns / 1e9 / frames for part, ns in spent.items()}


if __name__ == "__main__":
    main()
