"""What a model and a camera cost on this host: measured once, remembered, read by every later run.

    speed = timing.measure(plans, source)    some seconds for each engine and number of threads
    remember(speed); recall(path)            in the user's cache, until the file or the host is another

The service time of a batch of b pictures is taken as S(b) = α + βb. Everything else is CPU time of a
frame: what a decoder or a letterbox costs does not depend on who else is at work, its duration does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.host.machine import cores, cpu_name, has_gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One model file in one engine with so many threads."""

    model: str  # real path
    engine: str  # torchscript | onnx | openvino
    device: str  # "cpu fp32", "cuda:0 fp16"
    threads: int  # of one inference on the CPU
    alpha_s: float
    beta_s: float
    seconds: dict[int, float]  # batch size → median duration
    cpu_s: float  # CPU time of a picture in the largest batch
    capture_s: float  # CPU time of a frame
    preprocess_s: float
    postprocess_s: float
    pictures: int = 1  # that the model saw of a frame: more than one with tiles

    def seeing(self, pictures: int) -> Timing:
        """The same for so many pictures of a frame: each costs what one does."""
        times = pictures / self.pictures
        return replace(
            self,
            pictures=pictures,
            beta_s=self.beta_s * times,
            seconds={b: s * times for b, s in self.seconds.items()},
            cpu_s=self.cpu_s * times,
            preprocess_s=self.preprocess_s * times,
        )

    @property
    def on_cpu(self) -> bool:
        """Pictures cost cores, and not the time of an accelerator."""
        return self.device.startswith("cpu")

    @property
    def is_bf16_on_cpu(self) -> bool:
        """Which nobody has who does not ask for it: scores move by up to a few hundredths."""
        return self.device == "cpu bf16"

    @property
    def picture_s(self) -> float:
        """What the pictures of a frame take at best: of a core, or of the accelerator."""
        return self.cpu_s if self.on_cpu else min(s / b for b, s in self.seconds.items())

    @property
    def frame_s(self) -> float:
        """CPU time of a frame outside the model."""
        return self.capture_s + self.preprocess_s + self.postprocess_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What was measured for a model file and its siblings in other formats."""

    source: str  # what the frames came from
    timings: tuple[Timing, ...]

    def of(self, model: str, precision: str = "auto", engine: str = "auto") -> tuple[Timing, ...]:
        """Those of one file as a run with this precision has it, by threads; auto: the fastest engine."""
        path, bf16 = os.path.realpath(model), precision == "bf16"
        mine = [t for t in self.timings if t.model == path and t.is_bf16_on_cpu == bf16]
        if engine == "auto" and mine:
            engine = min(mine, key=lambda timing: timing.picture_s).engine
        mine = [timing for timing in mine if timing.engine == engine]
        return tuple(sorted(mine, key=lambda timing: timing.threads))

    def seeing(self, pictures: int) -> Speed:
        """What it would be if the model saw so many pictures of each frame."""
        return replace(self, timings=tuple(timing.seeing(pictures) for timing in self.timings))

    @property
    def best(self) -> Timing:
        """Which costs least for each picture."""
        return min(self.timings, key=lambda timing: timing.picture_s)


def fit(seconds: dict[int, float]) -> tuple[float, float]:
    """(α, β) of α + βb by least squares of the relative errors; neither is negative.

    >>> fit({1: 0.003, 2: 0.005, 4: 0.009})
    (0.001, 0.002)
    """
    b, s = np.array(list(seconds)), np.array(list(seconds.values()))
    rows = np.stack([1 / s, b / s], axis=1)  # (n, 2): relative, so that small batches count
    alpha, beta = np.linalg.lstsq(rows, np.ones(len(s)), rcond=None)[0]
    if alpha < 0 or len(s) == 1:
        alpha, beta = 0.0, float((s / b).mean())
    elif beta < 0:
        alpha, beta = float(s.mean()), 0.0
    return round(float(alpha), 9), round(float(beta), 9)


def remember(speed: Speed) -> None:
    """For `recall` of each of its files; a folder that can't be written is no error."""
    for model in {timing.model for timing in speed.timings}:
        file = _file(model)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(asdict(speed)))
            part.replace(file)
        except OSError:
            return


def recall(model: str | Path) -> Speed | None:
    """What was measured for this very file on this very host; None: nothing yet."""
    try:
        fields = json.loads(_file(str(model)).read_text())
        timings = tuple(timing_of(timing) for timing in fields["timings"])
        return Speed(source=fields["source"], timings=timings)
    except (OSError, ValueError, TypeError, KeyError):  # none, or of another build
        return None


def timing_of(fields: dict[str, Any]) -> Timing:
    """Back from `asdict` and JSON, whose keys are text."""
    seconds = {int(b): float(s) for b, s in fields["seconds"].items()}
    return Timing(**{**fields, "seconds": seconds})


def engine_choices() -> Path:
    """The folder that keeps which engine was the fastest for a model, on this host with these versions."""
    return _cache() / f"engines-{_digest(_host())}"


def _file(model: str) -> Path:
    state = os.stat(model)
    facts = (os.path.realpath(model), state.st_size, state.st_mtime_ns, *_host())
    return _cache() / f"{_digest(facts)}.json"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "manyeyes"


def _host() -> tuple[Any, ...]:
    """What a measurement is true for."""
    versions = []
    for library in ("torch", "onnxruntime", "openvino"):
        with contextlib.suppress(PackageNotFoundError):
            versions.append((library, version(library)))
    return cpu_name(), cores(), has_gpu(), *versions


def _digest(facts: tuple[Any, ...]) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
