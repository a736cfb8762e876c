"""Who serves the cameras of benchmarks/rivals.py: ours, and each peer in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import IO, Any, Protocol

from benchmarks.peers.sightings import SightingsSink
from benchmarks.peers.streams import OPENCV, Cameras
from benchmarks.rig.measure import ROOT
from benchmarks.rig.runs import Rig
from pipeline.host.machine import CHILD_ENVIRONMENT
from pipeline.plan import config as configuration
from pipeline.plan.config import SinkConfig

USERS_ENGINE = {  # what their own documentation runs models in on a CPU
    "blog": "torchscript", "threads": "torchscript", "loader": "onnx", "supervision": "onnx",
    "roboflow": "onnx", "roboflow-auto": "onnx",
}  # fmt: skip
PEERS = tuple(USERS_ENGINE)


class Contender(Protocol):
    """Something that serves cameras."""

    def begin(self, cameras: Cameras, log: Path) -> None:
        """Open them and note results from now on; need not wait."""

    def end(self, cameras: Cameras) -> None:
        """Leave them; closes the cameras."""

    def close(self) -> None:
        """End for good."""


class Peer:
    """A process of peers/cameras.py, which has loaded its model and waits for orders."""

    def __init__(self, name: str, bundle: Path, python: Path, engine: str) -> None:
        # as its users start it: with as many threads as its libraries choose
        env = {key: value for key, value in os.environ.items() if key not in CHILD_ENVIRONMENT}
        self._process = subprocess.Popen(
            [str(python), "-m", "benchmarks.peers.cameras", name, str(bundle), engine],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**env, **OPENCV, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def ready(self) -> str:
        """Wait until it is; returns its versions. Raises LookupError: it misses a package."""
        hello = self._answer()
        if "missing" in hello:
            raise LookupError(f"{hello['missing']} is not installed; see benchmarks/README.md")
        words: str = hello["versions"]
        return words

    def begin(self, cameras: Cameras, log: Path) -> None:
        """See Contender."""
        self._order({"urls": cameras.urls, "log": str(log)})

    def end(self, cameras: Cameras) -> None:
        """See Contender."""
        self._order({})
        cameras.close()  # who waits for a frame sees the end of the stream
        self._answer()

    def close(self) -> None:
        """See Contender."""
        self._process.communicate()

    def _order(self, words: dict[str, Any]) -> None:
        stdin = _pipe(self._process.stdin)
        stdin.write(json.dumps(words) + "\n")
        stdin.flush()

    def _answer(self) -> dict[str, Any]:
        line = _pipe(self._process.stdout).readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} died; its own words are above")
        words: dict[str, Any] = json.loads(line)
        return words


class Ours:
    """A run as `manyeyes run URL… --model BUNDLE` makes it, with a sink that notes the results."""

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle
        self._rig: Rig | None = None

    def begin(self, cameras: Cameras, log: Path) -> None:
        """See Contender."""
        options = {"path": str(log), "rates_hz": [clip.rate_hz for clip in cameras.clips]}
        run = f"{SightingsSink.__module__}:{SightingsSink.__name__}"
        sink = SinkConfig(type="custom", run=run, options=options)
        config = configuration.from_sources(cameras.urls, model=self._bundle)
        self._rig = Rig(config.model_copy(update={"sink": (sink,)}))
        self._rig.__enter__()

    def end(self, cameras: Cameras) -> None:
        """See Contender."""
        if self._rig is not None:
            self._rig.__exit__(None, None, None)
        cameras.close()

    def close(self) -> None:
        """See Contender."""


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise RuntimeError("the process has no pipe")
    return stream
