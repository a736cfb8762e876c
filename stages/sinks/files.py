"""Where sinks write: folders that are checked before anything starts, names made of cameras."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pipeline.errors import ResourceError

DISK_TURN_S = 30.0
"""`turn_s` of a sink that writes files: a disk that wakes up, or a network file system, may stall for so
long. Meanwhile what comes is counted as lost, before the sink, and nothing grows."""


def check_folder(sink: str, folder: Path) -> None:
    """Raises ResourceError, in one sentence, if files can't be made in `folder`. Leaves nothing."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ResourceError(
            f"sink {sink}: wanted a folder at {existing}, got a file; choose another"
        )
    try:
        # A file without a name: os.access knows neither root nor read-only and full file systems.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ResourceError(
            f"sink {sink}: the folder {existing} is not writable ({error.strerror}); "
            "change its mode or choose another"
        ) from error


def make_folder(sink: str, folder: Path) -> None:
    """`check_folder`, then make it and its parents."""
    check_folder(sink, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"sink {sink}: the folder {folder} can't be made ({error.strerror}); choose another"
        ) from error


def is_at(fd: int, path: str | Path) -> bool:
    """Whether an open file is still what its path names: nobody has renamed, replaced or deleted it."""
    return is_same(os.fstat(fd), path)


def is_same(state: os.stat_result, path: str | Path) -> bool:
    """The same of the facts of a file that is open."""
    try:
        return os.path.samestat(state, os.stat(path))
    except FileNotFoundError:
        return False
    except OSError:  # nobody can tell now
        return True


def stem_of(camera: str) -> str:
    """The name of a camera as a file name that stays in its folder."""
    return camera.replace(os.sep, "_").lstrip(".") or "_"
