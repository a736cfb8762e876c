"""The fastest engine that runs a bundle rightly on this host: tried for two seconds, then remembered.

A bundle with a twin can be run by more than one engine. Which is faster is a matter of the cores, and of
the libraries' versions; that it computes rightly is what the golden test shows. One process tries, the
others of the host wait for its answer, a JSON file:

    {"engine": "onnx", "picture_ms": {"torchscript": 19.4, "onnx": 7.1}, "left_out": {}}
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from pipeline.errors import ConfigError
from stages.detector import bundle, golden, openvino_engine
from stages.detector.bundle import Facts
from stages.detector.engine import Engine

log = logging.getLogger(__name__)

TRIAL_S = 1.0  # for each engine
_CALLS = (1, 30)  # of each engine: at least, at most; a start must not wait for a slow model
_ASK_S = 0.2  # whether another process has found it

_ABLE = {"fp16": ("torchscript",), "bf16": ("torchscript", "openvino")}  # the others are fp32

Load = Callable[[str], Engine]  # the engine of this name, loaded


def load(
    names: Sequence[str],
    facts: Facts,
    load_as: Load,
    *,
    measured: str = "",
    memory: Path | None = None,
    alive: Callable[[], None] = lambda: None,
) -> tuple[str, Engine]:
    """The name of the fastest of these engines that passes the golden test, and that engine.

    names: `candidates`; measured: the one that is known to be the fastest; memory: the file that keeps
    what a trial finds, for one bundle, host and set of versions; None: it is tried each time. alive: is
    called some times a second while another process tries, which is waited for. Takes seconds, with a
    large model minutes. Raises ConfigError where none passes.
    """
    if len(names) == 1:
        return names[0], load_as(names[0])
    with _locked(memory, alive):
        known = measured or (recall(memory) or {"engine": ""})["engine"]
        if known in names:
            try:
                return known, _proven(known, facts, load_as)
            except ConfigError as error:
                log.warning("engine '%s' was the fastest, and fails now: %s", known, error)
        engines, left_out = _passing(names, facts, load_as)
        picture_ms = {name: round(s * 1e3, 3) for name, s in _timed(engines, facts).items()}
        best = min(picture_ms, key=lambda name: picture_ms[name])
        found = {"engine": best, "picture_ms": picture_ms, "left_out": left_out}
        _remember(memory, found)
        log.info("engine: %s", describe(found))
        return best, engines[best]


def candidates(path: str, facts: Facts, precision: str) -> tuple[str, ...]:
    """The engines to choose from, that of the file's own format first.

    It alone, where there is no golden record to prove another with. What is not installed is left out;
    half precision is a matter of some engines alone.
    """
    own, *others = bundle.runnable(path, facts)
    if not facts.golden:
        others = []
    if not openvino_engine.is_installed():
        others = [name for name in others if name != "openvino"]
    able = [name for name in (own, *others) if name in _ABLE.get(precision, (own, *others))]
    return tuple(able) or (own,)


def recall(memory: Path | None) -> dict[str, Any] | None:
    """What was found and kept; None: nothing, or nothing that can be read."""
    if memory is None:
        return None
    try:
        known = json.loads(memory.read_text())
        numbers = {str(name): float(ms) for name, ms in known["picture_ms"].items()}
        return {"engine": str(known["engine"]), "picture_ms": numbers}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def describe(known: dict[str, Any]) -> str:
    """`onnx, the fastest here (ms a picture: torchscript 19.4, onnx 7.1)`."""
    numbers = ", ".join(f"{name} {ms:.1f}" for name, ms in known["picture_ms"].items())
    return f"{known['engine']}, the fastest here (ms a picture: {numbers})"


def _proven(name: str, facts: Facts, load_as: Load) -> Engine:
    engine = load_as(name)
    golden.check(facts, engine)
    return engine


def _passing(
    names: Sequence[str], facts: Facts, load_as: Load
) -> tuple[dict[str, Engine], dict[str, str]]:
    """The engines that pass, and why others do not."""
    engines: dict[str, Engine] = {}
    left_out: dict[str, ConfigError] = {}
    for name in names:
        try:
            engines[name] = _proven(name, facts, load_as)
        except ConfigError as error:  # not installed, or not right
            left_out[name] = error
            log.warning("engine '%s' is left out: %s", name, error)
    if not engines:
        raise left_out[names[0]]
    return engines, {name: str(error) for name, error in left_out.items()}


def _timed(engines: dict[str, Engine], facts: Facts) -> dict[str, float]:
    """Median seconds of a picture, alone. In turns, so that a slow moment of the host is everyone's."""
    [pixels] = golden.pattern(1, facts.input.height, facts.input.width)
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    end = time.monotonic() + TRIAL_S * len(engines)
    for n in range(_CALLS[1] + 1):
        if n > _CALLS[0] and time.monotonic() > end:
            break
        for name, engine in engines.items():
            engine.buffer(1)[0] = pixels
            start = time.perf_counter()
            engine.infer(engine.buffer(1))
            if n:  # the first is slower: TorchScript profiles it
                seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(s)) for name, s in seconds.items()}


@contextlib.contextmanager
def _locked(memory: Path | None, alive: Callable[[], None]) -> Iterator[None]:
    """One process at a time; the kernel lets go of the lock of one that dies."""
    with contextlib.ExitStack() as stack:
        if memory is not None:
            with contextlib.suppress(OSError):  # a cache that can't be written is no error
                memory.parent.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(memory.with_suffix(".lock").open("w"))
                while not _is_ours(lock):
                    alive()
                    time.sleep(_ASK_S)
        yield


def _is_ours(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remember(memory: Path | None, found: dict[str, Any]) -> None:
    if memory is not None:
        with contextlib.suppress(OSError):
            memory.write_text(json.dumps(found))  # nobody reads meanwhile: it is locked
