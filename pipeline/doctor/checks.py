"""Does this host have what a run needs, and how many cameras will it serve? `manyeyes doctor`.

The runtime knows none of the heavy libraries, so they are asked in a process of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.doctor import timing
from pipeline.errors import ConfigError, ResourceError
from pipeline.host import memory
from pipeline.host.machine import child_environment, cores, quota_cores, visible_cores
from pipeline.host.speed import Speed, Timing, remember
from pipeline.plan import config as configuration
from pipeline.plan.graph import Plan
from pipeline.plan.loading import load
from pipeline.plan.model_path import demo_model
from pipeline.plan.sizing import cameras_at
from pipeline.plan.standard import make
from pipeline.redaction import shown

PROBE = "stages.probe"
LOOK_THROUGH = "stages.sinks.store.query:look_through"
KIND_OF = "stages.detector.archive:kind_of"
READ_FACTS = "stages.detector.bundle:read_facts"
WINDOW = "stages.sinks.window:Window"
SUFFIXES = (".bundle", ".onnx", ".torchscript", ".pt")  # of the same network in another format
RATES_HZ = (5, 10, 25)
MIN_FREE_BYTES, GOOD_FREE_BYTES = 1 << 30, 4 << 30  # a model's process takes 0.5 GiB
MIN_FILES, GOOD_FILES = 256, 1024
_PROBE_S = 120.0
_ADVICE = {  # library: (whether nothing runs without it, what to do)
    "opencv": (
        True,
        "pip install opencv-python; on Debian and Ubuntu: apt install libgl1 libglib2.0-0",
    ),
    "ffmpeg": (True, "pip install --force-reinstall av"),
    "h264": (False, "pip install --force-reinstall av, or leave the video sink out"),
    "torch": (True, "install the torch that pytorch.org names for this machine's driver"),
    "onnx": (False, "pip install 'manyeyes[onnx]'; on CPUs it is often the fastest engine"),
}

Verdict = Literal["ok", "note", "fails"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    what: str
    verdict: Verdict  # note: a run works without it
    found: str
    advice: str = ""  # one sentence, where the verdict is not ok


def check_host(folder: Path) -> list[Row]:
    """The host and the installation; a clip for `measure` is left in `folder`. Takes seconds."""
    return [
        _memfd(),
        _free_memory(),
        _open_files(),
        _cores(),
        *_libraries(folder),
        _window(),
    ]


def check_store(path: Path) -> Row:
    """Looks through every page of a store, and changes nothing; takes as long as reading it."""
    try:
        found: str = load(LOOK_THROUGH)(str(path))
    except ConfigError as error:
        return Row(what="store", verdict="fails", found="broken", advice=str(error))
    return Row(what="store", verdict="ok", found=found)


def measure(
    models: list[Path], source: str | None, folder: Path, tell: Callable[[str], None]
) -> Speed:
    """Every model file and what lies beside it in another format, over the frames of `source`.

    models: none: the demo model. source: as for `run`; None: the clip in `folder`. Remembered for
    later runs. Takes about ten seconds for each file and number of threads. Raises ConfigError.
    """
    files = list(dict.fromkeys(f for m in models or [_demo()] for f in (m, *siblings(m))))
    clip = folder / "clip.mp4"
    if source is None and not clip.exists():
        raise ConfigError("doctor: there is no H.264 encoder to make a clip with; name a --source")
    plans = [plan_of(file, source or str(clip)) for file in files]
    speed = timing.measure(plans, shown(source) if source else "rendered 1280x720 H.264", tell)
    remember(speed)
    return speed


def plan_of(model: Path, source: str) -> Plan:
    """A run of one camera, for its stages."""
    return make(configuration.from_sources([source], model=model, policy="every"))


def siblings(model: Path) -> list[Path]:
    """The same network in other formats: `street.onnx` beside `street.bundle`."""
    kind, facts = load(KIND_OF)(model), load(READ_FACTS)(str(model))
    found = []
    for other in (model.with_suffix(suffix) for suffix in SUFFIXES):
        with contextlib.suppress(ConfigError):  # not there, or no bundle
            theirs = load(READ_FACTS)(str(other))
            same = (theirs.classes, theirs.input) == (facts.classes, facts.input)
            if same and load(KIND_OF)(other) != kind:
                found.append(other)
    return found


def config_of(models: list[Path]) -> configuration.Config:
    """As a run of the first of them has it."""
    return configuration.from_sources(["synthetic://"], model=(models or [_demo()])[0])


def document(rows: list[Row], speed: Speed | None) -> dict[str, Any]:
    """All of it, for programs."""
    return {
        "healthy": all(row.verdict != "fails" for row in rows),
        "rows": [asdict(row) for row in rows],
        "speed": None if speed is None else asdict(speed),
        "best": None if speed is None else asdict(speed.best),
        "cameras": {} if speed is None else {hz: cameras_at(speed.best, hz)[0] for hz in RATES_HZ},
    }


def sentences(speed: Speed | None, config: configuration.Config) -> Iterator[str]:
    """What the measurement says for this model: the fastest engine, and how many cameras it bears."""
    model = str(config.model.path)
    if speed is None:
        yield f"speed: not measured on this host; `manyeyes doctor --model {model}` does"
        return
    mine, best = speed.of(model, config.model.precision), speed.best
    if mine and best not in mine:
        gain = min(timing.picture_s for timing in mine) / best.picture_s
        asked = ["name it as path in [model]"] if best.model != mine[0].model else []
        if best.is_bf16_on_cpu:
            asked.append('write precision = "bf16" there, if scores may move by a few hundredths')
        yield (
            f"fastest here: {best.model} ({best.engine}, {best.device}), {gain:.1f} × as fast as now; "
            f"{', and '.join(asked)}"
        )
    else:
        yield f"fastest here: {best.engine} on {best.device}, S(b) = {_law(best)}"
    counts = ", ".join(f"{cameras_at(best, hz)[0]} at {hz} fps" for hz in RATES_HZ)
    limit = cameras_at(best, RATES_HZ[0])[1]
    yield f"with it this host bears about so many cameras: {counts} ({limit} being the limit)"


def cores_wanted(speed: Speed | None, config: configuration.Config) -> str:
    """What all cameras want of the cores, one sentence; as far as that can be known beforehand."""
    if speed is None:
        return "CPU: not known before it was measured; `manyeyes doctor` does"
    model = config.model
    mine = speed.of(str(model.path), model.precision, model.engine) or (speed.best,)
    frame_s = mine[0].frame_s + mine[0].picture_s * mine[0].on_cpu
    rates = [camera.max_fps for camera in config.camera]
    known = sum(rate for rate in rates if rate is not None)
    unknown = rates.count(None)
    text = (
        f"CPU: {known * frame_s:.1f} of {cores():g} cores for {known:g} frames a second"
        if known
        else ""
    )
    if unknown:
        each = f"{unknown * frame_s:.2f} of {cores():g} cores for each frame a second of {unknown} cameras"
        text = f"{text}, and {each}" if text else f"CPU: {each}"
        text += " whose rate is not known before they are opened (max_fps limits it)"
    return text


def _law(measured: Timing) -> str:
    return f"{measured.alpha_s * 1e3:.1f} + {measured.beta_s * 1e3:.1f} b ms"


def _demo() -> Path:
    return demo_model()


# -- the rows --------------------------------------------------------------------------------------


def _memfd() -> Row:
    what = "shared memory (memfd)"
    try:
        fd = memory.create("doctor", 4096)
        memory.seal(fd)
        os.close(fd)
        os.close(os.pidfd_open(os.getpid()))
    except (OSError, ResourceError) as error:
        return Row(
            what=what, verdict="fails", found=str(error),
            advice="Linux 5.3 or newer is needed, and a container whose seccomp profile allows it",
        )  # fmt: skip
    return Row(
        what=what, verdict="ok", found="sealed memfd, pidfd; the size of /dev/shm is no matter"
    )


def _free_memory() -> Row:
    free = memory.available_bytes()
    return Row(
        what="free memory",
        verdict=_level(free, MIN_FREE_BYTES, GOOD_FREE_BYTES),
        found=f"{free / 2**30:.1f} GiB",
        advice="raise the container's limit or end something: each inference process takes 0.5 GiB",
    )


def _open_files() -> Row:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return Row(
        what="open files",
        verdict=_level(limit, MIN_FILES, GOOD_FILES),
        found=str(limit),
        advice="raise it with `ulimit -n 4096` or LimitNOFILE: a camera takes about ten",
    )


def _cores() -> Row:
    visible, quota = visible_cores(), quota_cores()
    if quota is None or quota >= visible:
        return Row(what="cores", verdict="ok", found=f"{visible}, without a quota")
    return Row(
        what="cores",
        verdict="note",
        found=f"{visible} visible, a quota of {quota:g}",
        advice="the kernel pauses all threads when the quota is spent: give whole cores (cpuset) instead",
    )


def _libraries(folder: Path) -> list[Row]:
    said = _tried(folder)
    names = {"opencv": "pictures", "ffmpeg": "cameras and files", "h264": "H.264 encoder",
             "torch": "TorchScript models", "onnx": "ONNX models"}  # fmt: skip
    rows = []
    for name, (needed, advice) in _ADVICE.items():
        error = said[name].get("error")
        verdict: Verdict = "ok" if error is None else "fails" if needed else "note"
        found = said[name].get("found") or str(error)
        rows.append(Row(what=names[name], verdict=verdict, found=found, advice=advice))
    return rows


def _tried(folder: Path) -> dict[str, dict[str, str]]:
    """What the probe says of each library, in a process of its own: some end it."""
    last = f"they were not loaded after {_PROBE_S:.0f} s"
    with contextlib.suppress(subprocess.TimeoutExpired, IndexError, ValueError):
        child = subprocess.run(
            [sys.executable, "-P", "-m", PROBE, str(folder)],
            env=child_environment({}), capture_output=True, text=True, check=False, timeout=_PROBE_S,
        )  # fmt: skip
        last = (child.stderr.strip().splitlines() or [f"it ended with {child.returncode}"])[-1]
        said: dict[str, dict[str, str]] = json.loads(child.stdout.splitlines()[-1])
        return said
    return {name: {"error": f"the libraries could not be tried: {last}"} for name in _ADVICE}


def _window() -> Row:
    window = load(WINDOW)
    try:
        window.check(window.Config())
    except ConfigError as error:
        found, _, advice = str(error).partition("; ")
        return Row(what="live window", verdict="note", found=found, advice=advice)
    return Row(what="live window", verdict="ok", found="there is a display")


def _level(value: float, least: float, good: float) -> Verdict:
    return "fails" if value < least else "note" if value < good else "ok"


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A folder for the clip."""
    with tempfile.TemporaryDirectory(prefix="manyeyes-doctor-") as name:
        yield Path(name)
