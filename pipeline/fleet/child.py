"""`manyeyes run` as the child of an agent: see `agent.Run`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ManyeyesError, ResourceError
from pipeline.fleet import config
from pipeline.fleet.leases import Fences
from pipeline.supervision.asking import ask

_PATIENCE_S = 0.5  # with a supervisor that is busy; it is asked again a second later
_CHANGE_S = 3.0  # half of the shortest lease, since an agent that waits extends none
_MAX_SAID_BYTES = 4096
_OF_THE_CLUSTER = (
    "RAY_AUTH_TOKEN",
)  # with it one may run programs on every machine; a run needs no Ray


class RunChild:
    """One at a time."""

    def __init__(self, file: Path, machine: str) -> None:
        """file: of the fleet, which itself need not be there; the run's is written beside it."""
        self._file, self._machine = file, machine
        self._guard: subprocess.Popen[bytes] | None = None
        self._log = file.with_suffix(f".{machine}.log")
        self._pid = -1
        self._told: Mapping[str, Any] = {}

    def start(self, cameras: Fences, tables: Mapping[str, Any], until_s: float) -> None:
        """Write its file, and begin. Raises ConfigError."""
        run = config.checked(dict(tables), self._file).write_run(self._machine, cameras)
        try:
            with self._log.open("wb") as log:
                self._guard = subprocess.Popen(
                    [
                        *(sys.executable, "-P", "-m", "pipeline.fleet.guard", str(until_s)),
                        *(sys.executable, "-P", "-m", "pipeline", "run", str(run)),
                    ],
                    cwd=self._file.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                    env={k: v for k, v in os.environ.items() if k not in _OF_THE_CLUSTER},
                )  # fmt: skip
        except OSError as error:
            raise ResourceError(f"a run can't be started: {error.strerror}") from error
        self._pid, self._told = -1, {}

    def extend(self, until_s: float) -> None:
        """Tell the guard."""
        self._tell(f"{until_s}\n")

    def change(self, cameras: Fences, tables: Mapping[str, Any]) -> bool:
        """By its control socket. What it refuses may still be right for one that is started anew."""
        if self._pid < 0:
            return False
        try:
            run = config.checked(dict(tables), self._file).write_run(self._machine, cameras)
            ask(self._pid, {"do": "apply", "file": str(run)}, patience_s=_CHANGE_S)
        except ManyeyesError:
            return False
        self._told = {}
        return True

    def stop(self) -> None:
        """Tell the guard."""
        self._tell("stop\n")

    def poll(self) -> int | None:
        """The guard ends after the run."""
        if self._guard is None:
            return 0
        code = self._guard.poll()
        if code is not None:
            for pipe in (self._guard.stdin, self._guard.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        return code

    def told(self) -> Mapping[str, Any]:
        """As it was told last, if it has no time to tell."""
        guard = self._guard
        if guard is None or guard.poll() is not None:
            return {"sentence": self._sentence()}
        if self._pid < 0 and guard.stdout is not None:
            self._pid = int(guard.stdout.readline() or -1)  # said at once
        with contextlib.suppress(ManyeyesError):
            self._told = ask(self._pid, {"do": "status"}, patience_s=_PATIENCE_S)
        return self._told

    def _tell(self, line: str) -> None:
        pipe = None if self._guard is None else self._guard.stdin
        if pipe is not None and not pipe.closed:
            with contextlib.suppress(BrokenPipeError):  # it has just ended; poll says so
                os.write(pipe.fileno(), line.encode())

    def _sentence(self) -> str:
        """The last line that it said."""
        try:
            said = self._log.read_bytes()[-_MAX_SAID_BYTES:].decode(errors="replace").strip()
        except OSError:
            return ""
        return said.rpartition("\n")[2].removeprefix("manyeyes: ")
