"""What does following objects cost, and how often does an object get another id? Figures t1 to t4.

    python -m benchmarks.tracking [--seconds 60] [--seeds 31 32] [--tud WHEEL] [--memory] [--json FILE]

WHEEL: of the package motmetrics, which carries two public sequences with detections and truth
(`pip download --no-deps motmetrics`). Scenes are rendered ones, whose truth is given to the tracker with
a pixel of noise, so that only the tracker is judged.
"""

from __future__ import annotations

import argparse
import io
import resource
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rig.measure import Figure, Machine, Target, median, ratio, report
from pipeline.detections import Detections, TrackIds
from pipeline.happenings import Happening
from pipeline.messages import FrameInfo, Result
from pipeline.runtime import LocalRuntime
from stages.imaging.scenes import Scene
from stages.sinks.store.stage import Store, StoreConfig
from stages.track.follower import FollowerConfig, LibraryFollower
from stages.track.stage import SWITCHES, TRACKS, Track, TrackConfig

TYPES = ("bytetrack", "ocsort")
SEEDS = tuple(range(31, 41))  # held out: constants are chosen on 1 to 30
SIZE_WH_PX = (640, 360)  # of the rendered pictures
RATE_HZ = 25
BURST = 20  # frames on, frames off
COST = Target(sign="≤", limit=0.5)
DROPS = Target(sign="≤", limit=1.1)
KEPT = Target(sign="≥", limit=0.99)
SAME = Target(sign="≤", limit=0.1)
CLIPS = ("TUD-Campus", "TUD-Stadtmitte")
_CALLS = 200  # frames of one measurement of cost
_SHORT_LIVED = 1_000_000  # tracks of the memory test
_TOLD = 64  # objects of one result, each of which comes and goes

Truth = list[Detections]


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="of each rendered scene")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=SEEDS, help="of the scenes, 5 or more"
    )
    parser.add_argument("--tud", type=Path, help="a wheel of motmetrics")
    parser.add_argument("--memory", action="store_true", help="a million tracks, some minutes")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args()
    machine = Machine()
    scenes = [_truth(seed, options.seconds) for seed in options.seeds]
    figures = [*map(cost, TYPES), *(f for kind in TYPES for f in switches(kind, scenes))]
    if options.tud:
        figures += [f for kind in TYPES for f in public(kind, options.tud)]
    if options.memory:
        figures += [memory(), memory_of_store()]
    report("tracking", figures, machine, options.json)


# -- t1: cost --------------------------------------------------------------------------------------


def cost(kind: str) -> Figure:
    """t1: milliseconds of the stage for a frame with 20 boxes that move, its saving included."""
    rng = np.random.default_rng(0)
    start, speed = rng.uniform(0, 1000, (20, 2)), rng.uniform(-2, 2, (20, 2))
    runs = []
    for _ in range(7):
        stage = _stage(kind)
        frames = [_moved(start + n * speed) for n in range(_CALLS)]
        begin = time.thread_time()  # others may be at work, too
        for n, found in enumerate(frames):
            stage.process(_result(n, found, n / RATE_HZ))
            stage.save("scene")
        runs.append(1e3 * (time.thread_time() - begin) / _CALLS)
    return median("t1", f"{kind}: ms a frame of 20 boxes", runs, COST)


def _moved(corners: np.ndarray[Any, Any]) -> Detections:
    xyxy = np.concatenate([corners, corners + np.array([40, 80])], axis=1).astype(np.float32)
    n = len(xyxy)
    return Detections(xyxy, np.full(n, 0.9, np.float32), np.zeros(n, np.int32))


# -- t2: switches ----------------------------------------------------------------------------------


def switches(kind: str, scenes: list[Truth]) -> Iterable[Figure]:
    """t2: switches and IDF1 with frames dropped against none dropped, a pair for each scene."""
    kept = {
        "none dropped": lambda _: True,
        "half dropped at random": lambda n: bool(np.random.default_rng([7, n]).random() < 0.5),
        f"bursts of {BURST} on, {BURST} off": lambda n: n // BURST % 2 == 0,
    }
    scores = {
        name: [_identity(kind, scene, keep) for scene in scenes] for name, keep in kept.items()
    }
    objects = sum(len({k for truth in scene for k in _ids(truth)}) for scene in scenes)
    base, base_idf1, base_passed, base_misfits = zip(*scores.pop("none dropped"), strict=True)
    for name, found in scores.items():
        n, idf1, passed, misfits = zip(*found, strict=True)
        yield ratio(
            "t2", f"{kind}: switches, {name} / none dropped",
            [value + 1 for value in n], [value + 1 for value in base],  # a scene may have none
            DROPS, detail=f"{_sum(n)} : {_sum(base)} switches of {objects} objects; "
            f"ids that went to another object {sum(passed)} : {sum(base_passed)}, of them to one of "
            f"another class {sum(misfits)} : {sum(base_misfits)}",
        )  # fmt: skip
        yield ratio(
            "t2", f"{kind}: IDF1, {name} / none dropped", idf1, base_idf1, KEPT,
            detail=f"{np.mean(idf1):.3f} : {np.mean(base_idf1):.3f}",
        )  # fmt: skip


def _sum(parts: tuple[int, ...]) -> str:
    return f"{sum(parts)} ({' '.join(map(str, parts))})"


def _identity(kind: str, scene: Truth, keep: Callable[[int], bool]) -> tuple[int, float, int, int]:
    """Switches; IDF1: the share of boxes whose id is that of the best pairing of ids; how often an id
    went from one object to another, and how often to one of another class."""
    stage, rng = _stage(kind), np.random.default_rng(0)
    pairs: Counter[tuple[int, int]] = Counter()
    owner: dict[int, tuple[int, int]] = {}  # our id → theirs, and the class
    boxes = named = passed = misfits = 0
    for n, truth in enumerate(scene):
        noise = rng.normal(0, 1, (len(truth), 2)).astype(np.float32)
        if keep(n):
            xyxy = truth.xyxy + np.concatenate([noise, noise], axis=1)
            found = Detections(xyxy, np.full(len(truth), 0.9, np.float32), truth.labels)
            tracked: Any = stage.process(_result(n, found, n / RATE_HZ, truth, SIZE_WH_PX))
            ours: Any = tracked.detections.track_ids
            for their, label, our in zip(
                _ids(truth), truth.labels.tolist(), ours.tolist(), strict=True
            ):
                if our >= 0:
                    pairs[their, our] += 1
                    before, of_class = owner.get(our, (their, label))
                    passed, misfits = passed + (before != their), misfits + (of_class != label)
                    owner[our] = their, label
            boxes, named = boxes + len(ours), named + int((ours >= 0).sum())
    idf1 = 2 * _best_pairing(pairs) / (boxes + named)
    return stage.runtime.counts[SWITCHES, "scene"], idf1, passed, misfits  # type: ignore[attr-defined]


def _best_pairing(pairs: Counter[tuple[int, int]]) -> int:
    """The most boxes that pairs of one of ours and one of theirs, each used once, can have."""
    from scipy.optimize import linear_sum_assignment

    theirs, ours = ({k: i for i, k in enumerate({p[side] for p in pairs})} for side in (0, 1))
    table = np.zeros((len(theirs), len(ours)), int)
    for (their, our), n in pairs.items():
        table[theirs[their], ours[our]] = n
    return int(table[linear_sum_assignment(table, maximize=True)].sum())


def _truth(seed: int, seconds: float) -> Truth:
    scene = Scene(seed, SIZE_WH_PX)
    return [scene.render(n / RATE_HZ)[1] for n in range(round(seconds * RATE_HZ))]


def _ids(truth: Detections) -> list[int]:
    return [int(track) for track in np.asarray(truth.track_ids)]


# -- t3: public sequences --------------------------------------------------------------------------


def public(kind: str, wheel: Path) -> Iterable[Figure]:
    """t3: HOTA, MOTA, IDF1 in percent: through our follower, the whole stage, and the library itself."""
    rate_hz = 25.0
    for clip in CLIPS:
        boxes = _boxes(wheel, clip)
        ours = _scores(wheel, clip, boxes, LibraryFollower(FollowerConfig(type=kind)), rate_hz)  # type: ignore[arg-type]
        stage = _scores(wheel, clip, boxes, _Whole(kind), rate_hz)
        same = _scores(wheel, clip, boxes, _Library(kind, rate_hz, ours=True), rate_hz)
        stock = _scores(wheel, clip, boxes, _Library(kind, rate_hz, ours=False), rate_hz)
        for name in ours:
            yield median(
                "t3", f"{kind}: {clip}, {name} of the library - ours",
                [stock[name] - stage[name]], SAME,
                detail=f"{stage[name]:.1f}, without what we add {ours[name]:.1f}; the library with our "
                f"settings {same[name]:.1f}, with its own {stock[name]:.1f}",
            )  # fmt: skip


class _Whole:
    """The stage as it is."""

    def __init__(self, kind: str) -> None:
        self._stage, self._n = _stage(kind), 0

    def update(self, found: Detections, t_ns: int) -> TrackIds:
        self._n += 1
        tracked: Any = self._stage.process(_result(self._n, found, t_ns / 1e9, None, (640, 480)))
        return np.asarray(tracked.detections.track_ids)


class _Library:
    """The library as its README has it."""

    def __init__(self, kind: str, rate_hz: float, *, ours: bool) -> None:
        from trackers import ByteTrackTracker, DIoU, OCSORTTracker
        from trackers.utils.state_representations import XCYCSRStateEstimator

        options: dict[str, Any] = {"frame_rate": rate_hz}
        if ours:
            options |= {"lost_track_buffer": 90, "high_conf_det_threshold": 0.0}
        if ours and kind == "bytetrack":
            options |= {
                "track_activation_threshold": 0.0, "iou": DIoU(), "minimum_iou_threshold": 0.0,
                "state_estimator_class": XCYCSRStateEstimator,
            }  # fmt: skip
        self._tracker = (ByteTrackTracker if kind == "bytetrack" else OCSORTTracker)(**options)

    def update(self, found: Detections, t_ns: int) -> TrackIds:
        import supervision as sv

        given = sv.Detections(
            xyxy=found.xyxy, confidence=found.scores, class_id=np.arange(len(found))
        )
        taken = self._tracker.update(given, timestamp=t_ns / 1e9)
        ids = np.full(len(found), -1, np.int64)
        if len(taken):
            ids[taken.class_id] = taken.tracker_id
        return ids


def _boxes(wheel: Path, clip: str) -> dict[int, np.ndarray[Any, Any]]:
    """Frame → its detections as x, y, width, height."""
    rows = np.loadtxt(io.StringIO(_file(wheel, clip, "test")), delimiter=",")
    return {int(n): rows[rows[:, 0] == n, 2:6] for n in np.unique(rows[:, 0])}


def _file(wheel: Path, clip: str, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"motmetrics/data/{clip}/{name}.txt").decode()


def _scores(
    wheel: Path, clip: str, boxes: dict[int, np.ndarray[Any, Any]], follower: Any, rate_hz: float
) -> dict[str, float]:
    from trackers.eval import evaluate_mot_sequence

    lines = []
    for n, xywh in sorted(boxes.items()):
        xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float32)
        count = len(xyxy)
        found = Detections(xyxy, np.full(count, 0.9, np.float32), np.zeros(count, np.int32))
        ids = follower.update(found, round((1 + n / rate_hz) * 1e9))
        for track, (x, y, w, h) in zip(ids.tolist(), xywh.tolist(), strict=True):
            if track >= 0:
                lines.append(f"{n},{track + 1},{x},{y},{w},{h},1,1,1")
    with tempfile.TemporaryDirectory() as folder:
        truth, found_file = Path(folder) / "gt.txt", Path(folder) / "found.txt"
        text = _file(wheel, clip, "gt")  # where others have a class, it has something else
        truth.write_text("\n".join(f"{line.rsplit(',', 4)[0]},1,1,1" for line in text.split()))
        found_file.write_text("\n".join(lines))
        result: Any = evaluate_mot_sequence(truth, found_file, ["CLEAR", "HOTA", "Identity"])
    return {
        "HOTA": 100 * result.HOTA.HOTA,
        "MOTA": 100 * result.CLEAR.MOTA,
        "IDF1": 100 * result.Identity.IDF1,
    }


# -- t4: memory ------------------------------------------------------------------------------------


def memory() -> Figure:
    """t4: memory after a million objects that live for three frames, against after a tenth."""
    stage, first = _stage("bytetrack"), 0
    corners = np.stack(np.meshgrid(np.arange(20) * 90.0, np.arange(10) * 90.0), axis=-1).reshape(
        -1, 2
    )
    given = n = 0
    while given < _SHORT_LIVED:
        found = _moved(corners + 45 * (n // 3 % 2))
        stage.process(_result(n, found, n // 3 * 6.0 + n % 3 * 0.1))  # all before are forgotten
        n += 1
        given = stage.runtime.counts[TRACKS, "scene"]  # type: ignore[attr-defined]
        if given >= _SHORT_LIVED // 10 and not first:
            first = _rss_bytes()
    return _flat("t4", f"tracker: memory after {given:,} tracks / after a tenth", first)


def memory_of_store() -> Figure:
    """t4: the same of a store that is told of each of a million objects when it comes and when it goes."""
    first = 0
    with tempfile.TemporaryDirectory() as folder:
        store = Store(StoreConfig(path=f"{folder}/store.db", max_mib=64))
        store.runtime = LocalRuntime(("scene",))
        store.setup()
        for n in range(0, _SHORT_LIVED, _TOLD):
            objects = range(n, n + _TOLD)
            happened = [_happening(k, one) for k in ("appeared", "gone") for one in objects]
            told = _result(n, _moved(np.zeros((1, 2))), n / RATE_HZ)
            info = told.info._replace(t_wall_ns=round(1e9 * n))
            store.process(Result(info=info, detections=told.detections, happenings=tuple(happened)))
            store.idle()
            if n >= _SHORT_LIVED // 10 and not first:
                first = _rss_bytes()
        figure = _flat("t4", f"store: memory after {n + _TOLD:,} objects / after a tenth", first)
        store.close()
    return figure


def _happening(kind: Any, track: int) -> Happening:
    return Happening(kind, "5f3a", track, "person", 0.9, (1.0, 2.0, 3.0, 4.0))


def _rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _flat(figure: str, what: str, first: int) -> Figure:
    last = _rss_bytes()
    return median(
        figure, what, [last / first], Target(sign="≤", limit=1.02),
        detail=f"{last / 2**20:.1f} : {first / 2**20:.1f} MiB",
    )  # fmt: skip


# -- all -------------------------------------------------------------------------------------------


def _stage(kind: str) -> Track:
    stage = Track(TrackConfig(type=kind))  # type: ignore[arg-type]
    stage.runtime = LocalRuntime(("scene",))
    stage.setup()
    return stage


def _result(
    n: int,
    found: Detections,
    t_s: float,
    truth: Detections | None = None,
    size_wh_px: tuple[int, int] = (1920, 1080),
) -> Result:
    info = FrameInfo("scene", n, round(1e9 * (1 + t_s)), 0, *size_wh_px, truth=truth)
    return Result(info=info, detections=found)


if __name__ == "__main__":
    main()
