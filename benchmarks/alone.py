"""What a frame costs without a pipeline: every stage of the detect path by itself, in one process.

A source fills some slots, preprocess takes them all, then inference in batches, then postprocess: the very
classes and configurations of a plan, over the same frames, with nothing in between. So the caches are
warm for each of them, and no message, lock or wake-up is paid for: Σ of these CPU seconds is what the
work itself takes.

    python -m benchmarks.alone FILE          the child: FILE holds the specs of the four, as JSON
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import ROOT
from pipeline.messages import Frame, FrameInfo, Result
from pipeline.runner import build
from pipeline.wiring import Plan, ProcessSpec

PARTS = ("capture", "preprocess", "inference", "postprocess")
CHUNK = 24  # frames that one stage takes in a row


class Alone:
    """Copies of the stages, each copy in a process of its own, all at work at the same time.

    As many copies as the machine has cores, since a core is slower while its neighbours work, and in a
    pipeline at full load they all do.
    """

    def __init__(self, plan: Plan, copies: int) -> None:
        specs = [_first(plan, part) for part in PARTS]
        environment = {**os.environ, **specs[2].environment, "PYTHONPATH": str(ROOT)}
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


def _first(plan: Plan, part: str) -> ProcessSpec:
    return next(spec for spec in plan.processes if spec.name.split(".")[0] == part)


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
    """The four of them, set up."""

    def __init__(self, specs: Sequence[ProcessSpec]) -> None:
        self.batch = int(specs[2].options["max_batch"])
        self._slots = np.zeros((CHUNK, specs[0].slot_bytes), np.uint8)
        parts = [build(spec.run, spec.config) for spec in specs]
        for part in parts:
            part.setup()
        self._source, self._preprocess, self._inference, self._postprocess = parts
        self._source.open()
        self._frames = 0

    def chunk(self) -> tuple[list[Result], dict[str, int]]:
        """CHUNK frames through every part; the CPU nanoseconds of each part."""
        times = [time.process_time_ns()]
        frames = [self._read(slot) for slot in self._slots]
        times.append(time.process_time_ns())
        tensors = [self._preprocess.process(frame) for frame in frames]
        times.append(time.process_time_ns())
        batches = [tensors[i : i + self.batch] for i in range(0, CHUNK, self.batch)]
        outputs = [o for batch in batches for o in self._inference.process_batch(batch)]
        times.append(time.process_time_ns())
        results = [self._postprocess.process(output) for output in outputs]
        times.append(time.process_time_ns())
        return results, dict(zip(PARTS, np.diff(times).tolist(), strict=True))

    def _read(self, slot: np.ndarray[Any, Any]) -> Frame:
        while (picture := self._source.read(slot)) is None:
            pass
        width, height = picture.width, picture.height
        shape = (height, width, 3) if picture.format == "bgr24" else (height * 3 // 2, width)
        self._frames += 1
        info = FrameInfo(
            camera=self._source.runtime.cameras[0], frame_id=self._frames - 1, width=width,
            height=height, t_capture_ns=time.monotonic_ns(), t_wall_ns=0,
        )  # fmt: skip
        return Frame(
            info=info, format=picture.format, pixels=slot[: math.prod(shape)].reshape(shape),
            matrix=picture.matrix, full_range=picture.full_range,
        )  # fmt: skip


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
                results += stages.chunk()[0]
            answer: Any = [as_dict(result) for result in results[: question["frames"]]]
        else:
            answer = _timed(stages, question["seconds"])
        print(json.dumps(answer), flush=True)


def _timed(stages: Stages, seconds: float) -> dict[str, float]:
    spent, chunks, end = dict.fromkeys(PARTS, 0), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        _, times = stages.chunk()
        spent = {part: spent[part] + times[part] for part in PARTS}
        chunks += 1
    return {part: ns / 1e9 / (chunks * CHUNK) for part, ns in spent.items()}


if __name__ == "__main__":
    main()
