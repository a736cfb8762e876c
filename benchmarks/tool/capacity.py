"""How many cameras does this machine take at a latency? Measured, as a document, as a line for people.

    python -m benchmarks.tool.capacity [--fps 5] [--p99-ms 100] [--seconds 60] [--video FILE] [--json FILE]

`manyeyes bench capacity` does the same for any configuration, and writes the page of `certificate.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from benchmarks.rig import plots
from benchmarks.rig.measure import ROOT, Figure, Machine, Target
from benchmarks.tool import limits, trials
from benchmarks.tool.copies import Clip, clips_of, copied
from benchmarks.tool.limits import Limits
from benchmarks.tool.search import SERVED, Found, Trial, find, limiting
from pipeline.plan import config as configuration
from pipeline.plan.config import Config
from pipeline.plan.standard import make

MANY = 8  # cameras of the plan whose batches the bare model is given
SHORT_S = 5.0  # of a trial while searching
SHORT_FRAMES = 25  # of a camera, and at least so long that so many come


def measure(
    config: Config,
    *,
    p99_ms: float,
    fps: float | None,
    seconds: float,
    most: int,
    command: str,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Search and confirm; the document. tell: gets a line for each thing that was found.

    fps: of every camera; None: each clip's own. Raises ConfigError for what can't run at all.
    """
    plots.pyplot()  # what is not installed is better known now
    machine = Machine()
    clips = clips_of(config, fps)
    plan = make(copied(config, clips, MANY, ROOT))
    hardware = [limits.measure(plan, clips)]
    tell(_told_limits(hardware[0]))

    def trial(n: int, window_s: float) -> Trial:
        ran = trials.run(config, clips, n, window_s)
        tell(told_trial(ran, p99_ms))
        return ran

    short_s = min(seconds, max(SHORT_S, SHORT_FRAMES / min(clip.rate_hz for clip in clips)))
    found = find(trial, p99_ms=p99_ms, short_s=short_s, full_s=seconds, most=most)
    hardware.append(limits.measure(plan, clips, only=hardware[0].how))
    question = {
        "p99_ms": p99_ms,
        "served": SERVED,
        "seconds": seconds,
        "policy": "newest",
        "model": str(config.model.path),
        "engine": config.model.engine,
        "clips": [
            {
                "source": str(clip.camera.source), "width": clip.width, "height": clip.height,
                "rate_hz": clip.rate_hz,
            }
            for clip in clips
        ],
    }  # fmt: skip
    return document(question, found, hardware, machine.fingerprint(), clips, command)


def one(config: Config, cameras: int, *, fps: float | None, seconds: float) -> Trial:
    """A single trial, as the search makes them. Raises ConfigError for what can't run at all."""
    return trials.run(config, clips_of(config, fps), cameras, seconds)


def document(
    question: dict[str, Any],
    found: Found,
    hardware: Sequence[Limits],
    machine: dict[str, Any],
    clips: Sequence[Clip],
    command: str,
) -> dict[str, Any]:
    """All that is known, for a file."""
    p99_ms = question["p99_ms"]
    resource, words = "none", "nothing yet: more cameras were not tried"
    if found.failed is not None:
        resource, words = limiting(found.failed, len(os.sched_getaffinity(0)), p99_ms)
    confirmed = {id(found.confirmed), id(found.failed)}
    figures = _figures(found, hardware, clips)
    return {
        "benchmark": "capacity",
        "machine": machine,
        "question": question,
        "cameras": found.cameras,
        "limited_by": {"resource": resource, "words": words},
        "hardware": [limit.to_json() for limit in hardware],
        "hardware_cameras": _mean([limit.shared_fps for limit in hardware])
        / _mean([clip.rate_hz for clip in clips]),
        "trials": [
            {**trial.to_json(p99_ms), "confirmed": id(trial) in confirmed} for trial in found.trials
        ],
        "figures": [
            {**asdict(figure), "verdict": figure.verdict, "better": better, "unit": unit}
            for figure, better, unit in figures
        ],
        "command": command,
    }


def _figures(
    found: Found, hardware: Sequence[Limits], clips: Sequence[Clip]
) -> list[tuple[Figure, str, str]]:
    n = found.cameras
    rows = [
        (_figure("capacity", "cameras", n, n, n + 1, len(found.trials)), "higher", ""),
    ]
    ends = {"e": ("min(decoding alone, bare model alone)", [limit.fps for limit in hardware])}
    if hardware[0].shared:
        ends["e, shared"] = (
            "what both can do on the same cores", [limit.shared_fps for limit in hardware],
        )  # fmt: skip
    for id, (what, rates) in ends.items():
        middle = _mean(rates)
        figure = _figure(
            id, f"frames/s at capacity / {what}", _offered_hz(clips, n) / middle,
            _offered_hz(clips, n) / max(rates), _offered_hz(clips, n + 1) / min(rates), len(rates),
            target=Target(sign="≥", limit=0.9) if found.failed else None,  # else it took even more
            detail=f"{_offered_hz(clips, n):.1f} : {middle:.1f} frames/s",
        )  # fmt: skip
        rows.append((figure, "higher", ""))
    if found.confirmed is not None:
        for id, what, value in (
            ("p99", "latency at capacity, ms", found.confirmed.p99_ms),
            ("cpu", "CPU ms a frame served at capacity", sum(found.confirmed.cpu_ms.values())),
        ):
            rows.append((_figure(id, what, value, value, value, 1), "lower", "ms"))
    return rows


def _figure(
    id: str, what: str, value: float, low: float, high: float, n: int, **more: Any
) -> Figure:
    return Figure(id=id, what=what, value=value, low=low, high=high, n=n, **more)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _offered_hz(clips: Sequence[Clip], n: int) -> float:
    return sum(clips[i % len(clips)].rate_hz for i in range(n))


# -- in words --------------------------------------------------------------------------------------


def _told_limits(limit: Limits) -> str:
    decode = "from memory" if math.isinf(limit.decode_fps) else f"{limit.decode_fps:.0f} frames/s"
    return f"alone on this machine: decoding {decode}, model {limit.model_fps:.0f} ({limit.how})"


def told_trial(trial: Trial, p99_ms: float) -> str:
    """One line for a terminal."""
    why = trial.why(p99_ms)
    seen = "" if trial.failure else (
        f"p99 {trial.p99_ms:.0f} ms, {trial.served:.1%} served, {trial.cores:.1f} cores "
        f"(others {trial.others:.1f}; a core's work {trial.core_ms:.2f} ms): "
    )  # fmt: skip
    return f"{trial.cameras:4d} cameras, {trial.seconds:.0f} s: {seen}{why or 'passes'}"


def headline(document: dict[str, Any]) -> str:
    """The answer in a sentence, without the number itself."""
    question = document["question"]
    rates = sorted({f"{clip['rate_hz']:g}" for clip in question["clips"]}, key=float)
    n = document["cameras"]
    return (
        f"camera{'' if n == 1 else 's'} at {' and '.join(rates)} frames a second: 99 % of the results at "
        f"most {question['p99_ms']:g} ms after capture, and at least {question['served']:.0%} of all "
        f"frames served, for {question['seconds']:g} s"
    )


def summary(document: dict[str, Any]) -> Text:
    """For a terminal."""
    shares = [row for row in document["figures"] if row["id"].startswith("e")]
    text = Text()
    text.append(f"{document['cameras']} ", "bold green" if document["cameras"] else "bold red")
    text.append(headline(document) + "\n")
    text.append(f"one more is limited by {document['limited_by']['words']}\n")
    for row in shares:
        text.append(
            f"{row['id']}: {row['value']:.2f} ({row['low']:.2f} – {row['high']:.2f}) of "
            f"{row['what'].partition(' / ')[2]}, {row['detail']}"
            f"{'; target ≥ 0.9: ' + row['verdict'] if row['target'] else ''}\n"
        )
    return text


def main() -> None:
    """Rendered scenes, or a video, and the demo model; a line for each trial on stderr."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fps", type=float, default=5.0, help="of each camera")
    parser.add_argument("--p99-ms", type=float, default=100.0)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="that the answer is confirmed for"
    )
    parser.add_argument(
        "--video", default="synthetic://?size=640x360", help="what the cameras show"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(
        configuration.from_sources([options.video]), p99_ms=options.p99_ms, fps=options.fps,
        seconds=options.seconds, most=256, tell=lambda line: print(line, file=sys.stderr),
        command=shlex.join(["python", "-m", "benchmarks.tool.capacity", *sys.argv[1:]]),
    )  # fmt: skip
    Console().print(summary(found), soft_wrap=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        plots.write(found, options.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
