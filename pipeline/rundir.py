"""The directory of a run: its lock and its sockets, gone with the run whatever kills it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from pipeline import signals
from pipeline.errors import AlreadyRunning, ResourceError


class RunDirectory:
    """One run at a time, mode 0700."""

    def __init__(self, directory: Path | None) -> None:
        """directory: kept afterwards, empty of sockets; None: a temporary one.

        Raises AlreadyRunning if another run holds it, ResourceError if it can't be made.
        """
        self._lock = -1
        try:
            if directory is not None:
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._lock = os.open(
                    directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
                )
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            base = os.environ.get("XDG_RUNTIME_DIR")
            usable = base is not None and os.access(base, os.W_OK)
            # sockets have paths of at most 107 bytes, so they never live in the user's directory
            self.sockets = Path(tempfile.mkdtemp(prefix="manyeyes-", dir=base if usable else None))
        except BlockingIOError as error:
            os.close(self._lock)
            raise AlreadyRunning(
                f"run directory {directory}: another run holds it; stop that one or name another"
            ) from error
        except OSError as error:
            raise ResourceError(
                f"run directory {directory or tempfile.gettempdir()}: {error.strerror}; "
                "name one that can be written"
            ) from error
        # Outlives a supervisor that is killed: at the end of its standard input it cleans up.
        with signals.held_back():
            self._janitor = subprocess.Popen(
                ["/bin/sh", "-c", 'read -r _; rm -rf -- "$1"', "manyeyes-janitor", self.sockets],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def endpoint(self, name: str, incarnation: int) -> str:
        """Where a process binds its inbox."""
        return f"ipc://{self.sockets}/{name}.{incarnation}"

    def close(self) -> None:
        """Remove the sockets, let go of the lock."""
        shutil.rmtree(self.sockets, ignore_errors=True)
        if self._janitor.stdin is not None:
            self._janitor.stdin.close()
        self._janitor.wait()
        if self._lock >= 0:
            os.close(self._lock)
