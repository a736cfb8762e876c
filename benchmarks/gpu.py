"""Everything that has to be measured on a GPU, in one command. NOT RUN ON ONE so far.

    python -m benchmarks.gpu [--parts models,b1,c,d,e] [--models ssdlite320,ssd300,fasterrcnn]
                             [--cameras 16] [--json FILE]
    python -m benchmarks.gpu --device cpu --quick      the same way without a GPU, to see that it works

models: α and β of each detector, fp32 and fp16, and as CUDA graphs where it can be recorded; b2: against
        torchvision's model(images) on the same device.
b1:     frames a second of a whole run, policy `every`, against min(the bare model at the batch size of
        the run, decoding alone); from rendered stills in memory, which nobody decodes, and from H.264.
c, d:   as benchmarks.latency with the first of the models, and benchmarks.fairness.
e:      the most cameras of 30 fps at p99 ≤ 50 ms and ≥ 99 % served, against min(decoding, bare model).

Each part takes some minutes; what a part has found is in FILE before the next one begins. Beside Python,
torch and torchvision it needs the packages of WHEELS; README.md says how to bring them along.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.detectors import Detector
    from benchmarks.rig.measure import Figure
    from benchmarks.rig.runs import Rig
    from pipeline.plan.config import Config

WHEELS = {  # module: the distribution that has it
    "numpy": "numpy", "zmq": "pyzmq", "msgpack": "msgpack", "pydantic": "pydantic", "typer": "typer",
    "rich": "rich", "prometheus_client": "prometheus-client", "cv2": "opencv-python-headless",
    "av": "av", "defusedxml": "defusedxml", "PIL": "pillow", "matplotlib": "matplotlib",
}  # fmt: skip
PARTS = ("models", "b1", "c", "d", "e")
MODELS = ("ssdlite320", "ssd300", "fasterrcnn")
RATE_HZ, P99_MS = 30.0, 50.0  # of e: MLPerf's multistream scenario had the same limit
SIZE = "1280x720"  # of the synthetic cameras, as of the clip


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line says."""

    device: str
    quick: bool
    models: tuple[str, ...]
    cameras: int
    folder: Path

    @property
    def precisions(self) -> tuple[str, ...]:
        """That are worth knowing on this device."""
        return ("fp32",) if self.device == "cpu" else ("fp32", "fp16")

    def seconds(self, long: float, short: float) -> float:
        """Of a measurement."""
        return short if self.quick else long


def main() -> None:
    """Parse, measure, print; exit code 78 where something is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--quick", action="store_true", help="to see that it works; says nothing")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of them, by comma")
    parser.add_argument("--models", default=",".join(MODELS), help="some of them, by comma")
    parser.add_argument("--cameras", type=int, default=16, help="of b1")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args()
    parts, models = (
        _some("--parts", options.parts, PARTS),
        _some("--models", options.models, MODELS),
    )
    if missing := [name for module, name in WHEELS.items() if not importlib.util.find_spec(module)]:
        _refuse(f"this Python has no {', '.join(missing)}; bring their wheels and pip install them")
    _check(options.device)

    from benchmarks.rig.measure import Machine, report

    machine, figures = Machine(), []
    with tempfile.TemporaryDirectory(prefix="manyeyes-gpu-") as name:
        settings = Settings(
            device=options.device, quick=options.quick, models=models,
            cameras=2 if options.quick else options.cameras, folder=Path(name),
        )  # fmt: skip
        bundles = Bundles(settings)
        for part in parts:
            figures += RUNS[part](settings, bundles)
            report(f"gpu, {part}", figures, machine, options.json)


def _some(option: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or not set(names) <= set(known):
        _refuse(f"{option} {text!r}: wanted some of {', '.join(known)}")
    return names


def _check(device: str) -> None:
    try:
        import torch
        import torchvision  # noqa: F401
    except ImportError as error:
        _refuse(f"there is no {error.name}; this needs torch 2.9 or newer, and its torchvision")
    if device != "cpu" and not torch.cuda.is_available():
        _refuse(f"torch {torch.__version__} sees no CUDA device; `--device cpu --quick` needs none")


def _refuse(sentence: str) -> None:
    sys.stdout.flush()
    print(f"benchmarks.gpu: {sentence}", file=sys.stderr)
    sys.exit(78)


class Bundles:
    """Detectors and the clip, made when they are first asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: dict[str, Detector] = {}

    def __getitem__(self, name: str) -> Detector:
        from benchmarks import detectors

        if name not in self._made:
            batches = (1, 2, 4) if self._settings.quick else detectors.BATCHES
            self._made[name] = detectors.make(name, self._settings.folder, batches)
        return self._made[name]

    def model(self, name: str) -> dict[str, Any]:
        """For `[model]` of a configuration."""
        limit = max(self[name].facts.batch_sizes)
        return {
            "path": self[name].path, "device": self._settings.device, "max_batch": limit,
            "score_threshold": self[name].threshold,
        }  # fmt: skip

    @property
    def clip(self) -> Path:
        """H.264 of 1280x720."""
        from benchmarks.throughput import FRAMES
        from stages.probe import write_clip

        path = self._settings.folder / "clip.mp4"
        return path if path.exists() else write_clip(path, FRAMES)


# -- the parts -------------------------------------------------------------------------------------


def models(settings: Settings, bundles: Bundles) -> list[Figure]:
    """α, β, b2."""
    from benchmarks import detectors

    figures: list[Figure] = []
    for name in settings.models:
        detector = bundles[name]
        for precision in settings.precisions:
            for graphs in (False, True) if settings.device != "cpu" else (False,):
                figures += detectors.speeds(detector, settings.device, precision, graphs=graphs)
        for batch in (1, 2) if settings.quick else (1, 8, 32):
            figures.append(
                detectors.against_stock(detector, settings.device, settings.precisions[-1], batch)
            )
    return figures


def b1(settings: Settings, bundles: Bundles) -> list[Figure]:
    """Every model, from memory and from H.264."""
    figures = []
    for name in settings.models:
        for source in ("memory", "H.264"):
            figures.append(_throughput(settings, bundles, name, source))
    return figures


def _throughput(settings: Settings, bundles: Bundles, name: str, source: str) -> Figure:
    import numpy as np

    from benchmarks import detectors
    from benchmarks.rig.measure import MIN_PAIRS, Target, ratio
    from benchmarks.rig.replay import Pace
    from benchmarks.rig.runs import Rig
    from benchmarks.throughput import gated

    folder = settings.folder / f"b1-{name}-{source}"
    folder.mkdir()
    gate, model, files = Pace(folder / "gate", 1), bundles.model(name), source == "H.264"
    config = _config(settings, bundles, source, model)
    engine = detectors.load(bundles[name], settings.device, settings.precisions[-1])
    window_s = settings.seconds(5.0, 1.0)

    def pipeline(rig: Rig) -> float:
        _flow(rig, gate, True)
        rig.window(1.0)
        fps = rig.window(window_s).fps
        _flow(rig, gate, False)
        rig.window(1.0)  # what is under way ends here
        return fps

    runs, limits = [], []
    with (
        Rig(config, edit=lambda plan: gated(plan, folder) if files else plan) as rig,
        detectors.in_slots(bundles[name].pictures) as pictures,
    ):
        _flow(rig, gate, False)
        pipeline(rig)  # a warm-up
        for _ in range(MIN_PAIRS):
            cells = rig.ledger["batch_size"].sum(axis=0)
            runs.append(pipeline(rig))
            sizes = rig.ledger["batch_size"].sum(axis=0) - cells
            batch = max(1, round(float(np.average(np.arange(len(sizes)), weights=sizes))))
            bare = batch / detectors.seconds_of(lambda: engine.infer_pictures(pictures[:batch]))  # noqa: B023
            decode = _decoding(bundles, window_s) if files else float("inf")
            limits.append((min(bare, decode), bare, decode, batch))
    middle = [float(np.median([limit[i] for limit in limits])) for i in range(4)]
    return ratio(
        "b1", f"{name}, {len(config.camera)} cameras from {source}: fps / min(bare model, decoding)",
        runs, [limit[0] for limit in limits], Target(sign="≥", limit=0.95),
        detail=f"{np.median(runs):.0f} : {middle[0]:.0f} fps (bare {middle[1]:.0f} in batches of "
        f"{middle[3]:.0f}, decoding {middle[2]:.0f})",
    )  # fmt: skip


def _config(settings: Settings, bundles: Bundles, source: str, model: dict[str, Any]) -> Config:
    from benchmarks.rig.runs import cameras
    from pipeline.plan import config as configuration

    if source == "memory":
        return cameras(settings.cameras, 1000, size=SIZE, policy="every", model=model)
    files = [str(bundles.clip)] * settings.cameras
    config = configuration.from_sources(files, policy="every", model="demo")
    loops = tuple(camera.with_options(loop=True) for camera in config.camera)
    fields = {"camera": loops, "model": config.model.model_copy(update=model)}
    return config.model_copy(update=fields)


def _flow(rig: Rig, gate: Any, on: bool) -> None:
    """Replayed cameras and gated files, whichever the run has, send as fast as asked, or nothing."""
    rig.pace(float("inf") if on else 0)
    gate.set(0, float(on), 0.0, 0.0)


def _decoding(bundles: Bundles, seconds: float) -> float:
    from benchmarks.tool import limits
    from benchmarks.tool.copies import clips_of
    from pipeline.plan import config as configuration

    return limits.decoding(
        clips_of(configuration.from_sources([str(bundles.clip)], model="demo")), seconds
    )


def c(settings: Settings, bundles: Bundles) -> list[Figure]:
    """c1 to c3 of the first model."""
    from benchmarks import latency

    return latency.figures(
        settings.seconds(90, 1), settings.seconds(60, 5), first_hz=60 if settings.quick else 1000,
        model=bundles.model(settings.models[0]),
    )  # fmt: skip


def d(settings: Settings, bundles: Bundles) -> list[Figure]:
    """d1 to d3, which need no GPU, but belong to this host."""
    from benchmarks import fairness

    return fairness.figures(settings.seconds(fairness.SECONDS, 10))


def e(settings: Settings, bundles: Bundles) -> list[Figure]:
    """Capacity of each model, from memory and from H.264."""
    from benchmarks.tool import capacity
    from pipeline.plan import config as configuration

    figures = []
    scene = f"synthetic://?size={SIZE}&rate={RATE_HZ:g}"
    for name in settings.models:
        for source in ("H.264",) if settings.quick else ("memory", "H.264"):
            what = scene if source == "memory" else str(bundles.clip)
            config = configuration.from_sources([what], model="demo")
            model = config.model.model_copy(update=bundles.model(name))
            found = capacity.measure(
                config.model_copy(update={"model": model}), p99_ms=P99_MS, fps=RATE_HZ,
                seconds=settings.seconds(60, 3), most=1 if settings.quick else 256, command="",
                tell=lambda line: print(line, file=sys.stderr),
            )  # fmt: skip
            how = f"{name}, {RATE_HZ:g} fps from {source}: "
            rows = [row for row in found["figures"] if row["id"] in ("capacity", "e")]
            figures += [figure_of({**row, "what": how + row["what"]}) for row in rows]
    return figures


def figure_of(row: dict[str, Any]) -> Figure:
    """Back from a document, which says more of it."""
    from benchmarks.rig.measure import Figure, Target

    fields = {field.name for field in dataclasses.fields(Figure)}
    known = {key: value for key, value in row.items() if key in fields}
    return Figure(**{**known, "target": row["target"] and Target(**row["target"])})


RUNS: dict[str, Callable[[Settings, Bundles], list[Any]]] = {
    "models": models, "b1": b1, "c": c, "d": d, "e": e,
}  # fmt: skip


if __name__ == "__main__":
    main()
