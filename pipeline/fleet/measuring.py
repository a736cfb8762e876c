"""How many cameras a machine takes that joins without a certificate: what `manyeyes doctor` measures."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from pipeline.host.machine import child_environment
from pipeline.host.speed import recall
from pipeline.plan.sizing import cameras_at

_DOCTOR_S = 3600.0  # it takes half a minute on idle cores, and as long as a large model does


class Measuring:
    """Of one model at one rate, beside whatever else is done; about half a minute, once for a host."""

    def __init__(self, model: Path, rate_hz: float) -> None:
        self.cameras: float | None = None  # not known yet
        self.failure = ""
        self._model, self._rate_hz = model, rate_hz
        threading.Thread(target=self._measure, daemon=True).start()

    def _measure(self) -> None:
        if recall(self._model) is None:
            command = [
                sys.executable,
                "-P",
                "-m",
                "pipeline",
                "doctor",
                "--model",
                str(self._model),
            ]
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, check=False, timeout=_DOCTOR_S,
                    stdin=subprocess.DEVNULL, env=child_environment({}),
                )  # fmt: skip
            except (OSError, subprocess.TimeoutExpired) as error:
                self.failure = f"its capacity is unknown: doctor: {_why(error)}"
                return
            if done.returncode:
                last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[
                    -1
                ]
                self.failure = f"its capacity is unknown: doctor: {last.removeprefix('manyeyes: ')}"
                return
        if (speed := recall(self._model)) is None:
            self.failure = "its capacity is unknown: what doctor measured could not be kept here"
            return
        self.cameras = float(cameras_at(speed.best, self._rate_hz)[0])


def _why(error: OSError | subprocess.TimeoutExpired) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it was not through after {error.timeout:.0f} s"
    return f"it could not be started: {error.strerror or error}"
