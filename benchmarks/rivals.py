"""Ours against what people use instead: the same cameras, the same model. Figure f.

    python -m benchmarks.rivals [--seconds 780] [--rounds 5] [--only blog,threads] [--setting "8 cameras"]
                                [--video FILE] [--engine users] [--python out/peers/bin/python]
                                [--json FILE]

The cameras are live streams on this machine (streams.py) which everybody opens by URL as their users do;
nobody is handed a frame. A result counts when its detections are there, ours when they have reached a
sink in another process. Latency begins when the camera was due to send the frame. Every trial is checked:
the detections of each frame must be those that the model finds in that frame of the file.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers.contenders import PEERS, USERS_ENGINE, Contender, Ours, Peer
from benchmarks.peers.sightings import MAX_BOXES, Sightings, detections
from benchmarks.peers.streams import Cameras, Clip, burst, make_clip, recorded, rendered
from benchmarks.rig.measure import MIN_PAIRS, ROOT, Figure, Machine, Target, ratio, report
from benchmarks.rig.shares import jain
from pipeline.detections import Detections
from pipeline.plan.model_path import demo_model
from stages.detector.matching import match

RATE_HZ = 30
FAST_HZ = 50  # with which four cameras, too, are more than two cores can serve
SLOW_HZ = 2
SIZE = (640, 360)  # px, of the rendered video
WARM_UP_S = 1.0  # of every trial, after all of a camera's first frames were served
QUIET_S = 0.5  # without a result: they were
OPEN_S = 60.0  # a trial that took longer to come so far has failed
OVERHEAD_S = 4.0  # of a trial, about
SAME_IOU, SAME = 0.8, 0.98  # share of the boxes that must be the reference's
PEERS_PYTHON = ROOT / "out" / "peers" / "bin" / "python"
OURS = "ours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Some cameras."""

    name: str
    rates_hz: tuple[int, ...]
    unwatched: int = 0  # so many cameras, from the first, whose results are not counted
    judged: bool = True  # is there a target?


SETTINGS = (
    Setting(name="1 camera", rates_hz=(RATE_HZ,), judged=False),
    Setting(name="4 cameras", rates_hz=(FAST_HZ,) * 4),
    Setting(name="8 cameras", rates_hz=(RATE_HZ,) * 8),
    Setting(
        name=f"3 beside one of {SLOW_HZ} fps",
        rates_hz=(SLOW_HZ, *(RATE_HZ,) * 3),
        unwatched=1,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What came of a trial."""

    fps: float  # results a second, all watched cameras
    p50_s: float  # from due to result
    p99_s: float
    fairness: float  # Jain's index of the results of the watched cameras, 1/n..1
    same: float  # share of the boxes that are the reference's


@dataclass(frozen=True, slots=True)
class Video:
    """What a camera sends, and what the model finds in each frame of it."""

    clip: Clip
    reference: Sequence[Detections]


# -- a trial ---------------------------------------------------------------------------------------


def trial(
    contender: Contender,
    setting: Setting,
    videos: dict[int, Video],
    seconds: float,
) -> Sample:
    """Serve the cameras of a setting for so long, in real time and after a warm-up."""
    with (
        tempfile.TemporaryDirectory(prefix="manyeyes-rivals-") as folder,
        Cameras([videos[rate_hz].clip for rate_hz in setting.rates_hz]) as cameras,
    ):
        log = Path(folder) / "log"
        sightings = Sightings(log, len(setting.rates_hz))
        contender.begin(cameras, log)
        try:
            wait_until_quiet(sightings)
            begin_ns = cameras.go() + round(WARM_UP_S * 1e9)
            end_ns = begin_ns + round(seconds * 1e9)
            time.sleep((end_ns - time.monotonic_ns()) / 1e9)
        finally:
            contender.end(cameras)
        references = [videos[rate_hz].reference for rate_hz in setting.rates_hz]
        return sample(sightings, cameras, setting, references, begin_ns, end_ns)


def wait_until_quiet(sightings: Sightings) -> None:
    """Until every camera has a result and no more come: what they sent at first is served."""
    counts, since_s = sightings.counts, time.monotonic()
    limit_s = since_s + OPEN_S
    while not all(counts) or time.monotonic() - since_s < QUIET_S:
        if time.monotonic() > limit_s:
            raise TimeoutError(f"wanted the first results of every camera, got {counts}")
        time.sleep(0.02)
        if (now := sightings.counts) != counts:
            counts, since_s = now, time.monotonic()


def sample(
    sightings: Sightings,
    cameras: Cameras,
    setting: Setting,
    references: Sequence[Sequence[Detections]],
    begin_ns: int,
    end_ns: int,
) -> Sample:
    """What the log says of the time from begin to end. Raises ValueError if it found other things."""
    served, late_s, same = [], [], []
    for camera in range(setting.unwatched, len(setting.rates_hz)):
        rows = sightings.rows(camera)
        rows = rows[(rows["t_ns"] >= begin_ns) & (rows["t_ns"] < end_ns)]
        served.append(len(rows))
        for row in rows:
            number = int(row["number"])
            due_ns = cameras.due_ns(camera, max(burst(setting.rates_hz[camera]), number))
            late_s.append((int(row["t_ns"]) - due_ns) / 1e9)
            same.append(agreement(detections(row), references[camera][number]))
    alike = float(np.mean(same)) if same else 1.0
    if alike < SAME:
        raise ValueError(f"{setting.name}: {alike:.1%} of the boxes are those of the model")
    if not late_s:  # a bound instead of nothing
        late_s = [(end_ns - begin_ns) / 1e9]
    return Sample(
        fps=max(1, sum(served)) * 1e9 / (end_ns - begin_ns),
        p50_s=float(np.median(late_s)),
        p99_s=float(np.quantile(late_s, 0.99)),
        fairness=jain(served, nobody=1.0),
        same=alike,
    )


def agreement(found: Detections, wanted: Detections) -> float:
    """Share of the boxes of both that have their like in the other; 1 if there are none.

    >>> agreement(Detections.empty(), Detections.empty())
    1.0
    """
    wanted = wanted[:MAX_BOXES]
    boxes = len(found) + len(wanted)
    return 2 * len(match(found, wanted, SAME_IOU)) / boxes if boxes else 1.0


# -- the figures -----------------------------------------------------------------------------------

Samples = dict[tuple[str, str], list[Sample]]  # by setting and contender


def measure(
    contenders: dict[str, Contender],
    videos: dict[int, Video],
    settings: Sequence[Setting],
    rounds: int,
    seconds: float,
) -> Samples:
    """All of them in turns, a round after the other."""
    samples: Samples = defaultdict(list)
    for n in range(rounds):
        for setting in settings:
            for name in list(contenders)[:: 1 if n % 2 else -1]:
                result = trial(contenders[name], setting, videos, seconds)
                samples[setting.name, name].append(result)
                if sys.stderr.isatty():
                    print(f"\r\033[Kround {n + 1}: {setting.name}, {name}", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return samples


def make_videos(
    bundle: Path, file: Path | None, settings: Sequence[Setting], seconds: float
) -> dict[int, Video]:
    """For each rate a video that is long enough."""
    from benchmarks.peers.cameras import Model

    model = Model(str(bundle))
    videos = {}
    for rate_hz in {rate_hz for setting in settings for rate_hz in setting.rates_hz}:
        count = burst(rate_hz) + round(rate_hz * (WARM_UP_S + seconds + 1))
        pictures = recorded(file, count) if file else rendered(count, rate_hz, SIZE)
        clip = make_clip(pictures, rate_hz)
        videos[rate_hz] = Video(clip, [model([image])[0] for image in clip.decoded()])
    return videos


def figures(samples: Samples, settings: Sequence[Setting], peers: Sequence[str]) -> list[Figure]:
    """Ours against each."""
    rows = []
    for setting in settings:
        ours = samples[setting.name, OURS]
        more = Target(sign="≥", limit=1) if setting.judged else None
        less = Target(sign="≤", limit=1) if setting.judged else None
        for name in peers:
            theirs = samples[setting.name, name]
            a, b = [s.fps for s in ours], [s.fps for s in theirs]
            what = f"{setting.name}: results a second / {name}"
            detail = f"{np.median(a):.1f} : {np.median(b):.1f} fps"
            rows.append(ratio("f", what, a, b, more, detail=detail))
            a, b = [s.p99_s for s in ours], [s.p99_s for s in theirs]
            detail = f"{_ms(a)} : {_ms(b)} (p50 {_ms([s.p50_s for s in ours])} : "
            detail += f"{_ms([s.p50_s for s in theirs])})"
            what = f"{setting.name}: p99 latency / {name}"
            rows.append(ratio("f", what, a, b, less, detail=detail))
        if len(setting.rates_hz) - setting.unwatched > 1:
            rows.append(_fairness(setting, samples, peers))
    return rows


def _ms(values_s: Sequence[float]) -> str:
    return f"{np.median(values_s) * 1e3:.0f} ms"


def _fairness(setting: Setting, samples: Samples, peers: Sequence[str]) -> Figure:
    """Against the fairest, whose 1 can be missed by the rounding of a frame, but not beaten."""
    index = {name: [s.fairness for s in samples[setting.name, name]] for name in (OURS, *peers)}
    best = np.max([index[name] for name in peers], axis=0).tolist()
    detail = ", ".join(f"{name} {np.median(values):.3f}" for name, values in index.items())
    target = Target(sign="≥", limit=0.99) if setting.judged else None
    what = f"{setting.name}: fairness / the fairest"
    return ratio("f", what, index[OURS], best, target, detail=detail)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=780, help="about how long to measure")
    parser.add_argument("--rounds", type=int, default=MIN_PAIRS)
    parser.add_argument("--only", default="", help="peers, separated by commas")
    parser.add_argument("--setting", choices=[s.name for s in SETTINGS], help="none: all")
    parser.add_argument("--video", type=Path, help="instead of a rendered scene")
    parser.add_argument("--model", type=Path, default=demo_model(), help="a bundle")
    parser.add_argument(
        "--engine", choices=("users", "torchscript", "onnx"), default="users",
        help="of the peers; users: what the users of each have",
    )  # fmt: skip
    parser.add_argument("--python", type=Path, help="the interpreter of the peers")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args()
    python = options.python or (PEERS_PYTHON if PEERS_PYTHON.exists() else Path(sys.executable))
    names = options.only.split(",") if options.only else list(PEERS)
    settings = [s for s in SETTINGS if not options.setting or s.name == options.setting]
    machine = Machine()
    of_all = None if options.engine == "users" else options.engine
    peers = {
        name: Peer(name, options.model, python, of_all or USERS_ENGINE[name]) for name in names
    }
    contenders: dict[str, Contender] = {OURS: Ours(options.model)}
    try:
        for name, peer in peers.items():
            try:
                print(f"{name}: {peer.ready()}")
                contenders[name] = peer
            except LookupError as error:
                print(f"{name} is left out: {error}")
        trials = options.rounds * len(settings) * len(contenders)
        seconds = max(1.0, options.seconds / trials - OVERHEAD_S)
        videos = make_videos(options.model, options.video, settings, seconds)
        samples = measure(contenders, videos, settings, options.rounds, seconds)
    finally:
        for peer in peers.values():
            peer.close()
    del contenders[OURS]
    report("rivals", figures(samples, settings, list(contenders)), machine, options.json)


if __name__ == "__main__":
    main()
