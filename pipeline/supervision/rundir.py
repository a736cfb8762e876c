"""The directory of a run: its lock and its sockets, gone with the run whatever kills it.

The sockets lie in a folder of mode 0700 that the supervisor keeps locked (flock) as long as it lives; that
also tells systemd-tmpfiles to leave it alone. What removes it after a supervisor that was killed is a
janitor, and after a janitor that was killed, too, the next run. (Abstract sockets would leave nothing
behind, but they have no mode: every user of the host may connect to them.)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import AlreadyRunning, ManyeyesError, ResourceError
from pipeline.host import signals
from pipeline.host.refusal import refused

_PREFIX = "manyeyes-run-"
_MAX_PATH_BYTES = 107  # of a socket; unix(7)
_LONGEST = f"/{_PREFIX}12345678/65535.4294967295"  # below the base
_MAX_BASE_BYTES = _MAX_PATH_BYTES - len(_LONGEST)


class RunDirectory:
    """One run at a time, mode 0700."""

    def __init__(self, directory: Path | None) -> None:
        """directory: kept afterwards, empty of sockets; None: a temporary one.

        Raises AlreadyRunning if another run holds it, ResourceError if it can't be made.
        """
        self._locks: list[int] = []
        try:
            if directory is not None:
                with refused(f"run directory {str(directory)!r}"):
                    self._locks.append(_claimed(directory))
            self.sockets, lock = _socket_folder()
            self._locks.append(lock)
        except ManyeyesError:
            self._unlock()
            raise
        self._janitor = _janitor_of(self.sockets)

    def endpoint(self, process: int, incarnation: int) -> str:
        """Where a process binds its inbox; numbers, so that it is short whatever the process is called."""
        return f"ipc://{self.sockets}/{process}.{incarnation}"

    def close(self) -> None:
        """Remove the sockets, let go of the locks."""
        shutil.rmtree(self.sockets, ignore_errors=True)
        if self._janitor is not None and self._janitor.stdin is not None:
            self._janitor.stdin.close()
            self._janitor.wait()
        self._unlock()

    def _unlock(self) -> None:
        while self._locks:
            os.close(self._locks.pop())


def socket_folders() -> Iterator[Path]:
    """The folders of all runs of this user that can be found, also of those that are gone."""
    for base in _bases():
        paths: list[Path] = []
        with contextlib.suppress(OSError):
            paths = sorted(Path(base).glob(f"{_PREFIX}*"))
        for path in paths:
            is_ours = False
            with contextlib.suppress(OSError):  # a run that ends meanwhile hides no other
                is_ours = path.is_dir() and path.stat().st_uid == os.getuid()
            if is_ours:
                yield path


def _claimed(directory: Path) -> int:
    """The lock of a directory that the user named. Raises AlreadyRunning, OSError."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise AlreadyRunning(
            f"run directory {directory}: another run holds it; stop that one or name another"
        ) from error
    except OSError:
        os.close(lock)
        raise
    return lock


def _socket_folder() -> tuple[Path, int]:
    """A new folder and its lock, in the first place that takes sockets. Raises ResourceError."""
    refusals = []
    for base in _bases():
        try:
            _sweep(base)
            return _locked_folder(base)
        except OSError as error:
            refusals.append(f"{base}: {error.strerror}")
    raise ResourceError(
        f"a folder for the sockets of the run: none of these can be written ({'; '.join(refusals)}); "
        f"set TMPDIR to one that can, with a path of at most {_MAX_BASE_BYTES} bytes"
    )


def _bases() -> Iterator[str]:
    """Where there may be room for sockets, the user's own choice first."""
    chosen = (os.environ.get(name, "") for name in ("XDG_RUNTIME_DIR", "TMPDIR"))
    for base in dict.fromkeys((*chosen, "/tmp", "/var/tmp", "/dev/shm", "/run")):
        short = len(os.fsencode(base)) <= _MAX_BASE_BYTES
        if os.path.isabs(base) and short and base.isprintable():  # ZeroMQ wants UTF-8
            yield base


def _locked_folder(base: str) -> tuple[Path, int]:
    """Raises OSError if the folder, its lock or a socket in it can't be made."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        lock = -1
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket(socket.AF_UNIX) as probe:  # some file systems know no sockets
                probe.bind(str(path / "probe"))
            (path / "probe").unlink()
            return path, lock
        except OSError as error:
            if lock >= 0:
                os.close(lock)
            shutil.rmtree(path, ignore_errors=True)
            # another run swept it before it was locked
            if not isinstance(error, BlockingIOError | FileNotFoundError):
                raise


def _sweep(base: str) -> None:
    """Remove what runs have left of which every process was killed at once. Raises OSError for `base`."""
    for name in os.listdir(base):
        if not name.startswith(_PREFIX):
            continue
        path = os.path.join(base, name)
        with contextlib.suppress(OSError):  # it is another user's, or no folder, or its run lives
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_uid == os.geteuid():
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(fd)


def _janitor_of(folder: Path) -> subprocess.Popen[bytes] | None:
    """Outlives a supervisor that is killed: at the end of its standard input it removes the folder.

    None where the host has no shell, or no room for one more process; then the next run does it.
    """
    with contextlib.suppress(OSError), signals.held_back():
        return subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; rm -rf -- "$1"', "manyeyes-janitor", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.defpath},  # it has no use for what the cameras' passwords are in
            start_new_session=True,
        )
    return None
