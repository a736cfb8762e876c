"""Checkpoints: one dictionary of tensors and plain values per file, written whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import subprocess
import warnings
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import ModelError, ResourceError

FORMAT = 1


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` so that a kill, a power cut or a full disk leaves the old file or the new one.

    state: tensors, numbers, strings, None, and lists, tuples and dicts of them: whatever
        `torch.load(weights_only=True)` opens. "format" is added.
    Raises ResourceError when the file cannot be written; what was at `path` before is still there.
    """
    new = path.with_name(path.name + ".new")  # same folder: os.replace stays atomic
    try:
        with new.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns ENOSPC into RuntimeError
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        kept = "the last good one is kept" if path.exists() else "there is none yet"
        raise ResourceError(
            f"{path}: the checkpoint could not be written ({_reason(error)}), {kept}; "
            "make room and go on with --resume"
        ) from error


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running any code in it; tensors land on the CPU.

    Raises ModelError that names the file when there is none, it is torn, or it is something else.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # refused anyway
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file; wanted a checkpoint of manyeyes train") from error
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise ModelError(
            f"{path}: wanted a checkpoint of tensors and plain values, got a file that does not open "
            f"as one ({type(error).__name__}); pass last.pt or best.pt of a run folder"
        ) from error
    if not isinstance(state, dict) or "model" not in state or "format" not in state:
        raise ModelError(
            f"{path}: wanted a checkpoint of manyeyes train, got another kind of file; "
            "pass last.pt or best.pt of a run folder"
        )
    if state["format"] != FORMAT:
        raise ModelError(
            f"{path}: this build reads checkpoints of format {FORMAT}, got format {state['format']}"
        )
    return state


@functools.cache
def commit() -> str:
    """The git commit of this code, with "+" behind it when files were changed; "" outside git."""
    folder = Path(__file__).parent

    def git(*command: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *command], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        sha = git("rev-parse", "HEAD")
        return sha + ("+" if sha and git("status", "--porcelain", "-uno") else "")
    except OSError:  # no git here
        return ""


def _reason(error: Exception) -> str:
    cause = error if isinstance(error, OSError) else error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__
