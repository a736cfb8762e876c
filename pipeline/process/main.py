"""The child: a process of a run, from the end of `start` to its exit code."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

from pipeline.errors import (
    ManyeyesError,
    PeerGone,
    ResourceError,
)
from pipeline.hop import transport
from pipeline.hop.control import Control
from pipeline.host import signals
from pipeline.host.refusal import sentence
from pipeline.plan.loading import search_current_folder
from pipeline.process.base import Process

log = logging.getLogger("manyeyes")


def main() -> int:
    """The child. Exit codes as in errors.py."""
    name, fd, parent = sys.argv[1:4]
    _die_with_parent(int(parent))
    faulthandler.enable()
    signals.ignore()
    logging.basicConfig(level=logging.INFO, format=f"%(levelname)s {name}: %(message)s")
    search_current_folder()
    control = Control(socket.socket(fileno=int(fd)))
    named: Callable[[str], str] = str
    process = None
    try:
        process = _process(control)
        named = process.named
        process.run()
    except PeerGone:
        return 1
    except ManyeyesError as error:
        with contextlib.suppress(PeerGone):
            control.send("failed", text=named(str(error)), exit_code=error.exit_code)
        return error.exit_code
    except (OSError, MemoryError, ImportError) as error:
        if process is not None and process.is_ready:
            raise
        why = str(error) if isinstance(error, ImportError) else sentence(error)
        text = f"stage {name!r} can't be set up: {why}"
        with contextlib.suppress(PeerGone):
            control.send("failed", text=text, exit_code=ResourceError.exit_code)
        return ResourceError.exit_code
    return 0


def _die_with_parent(parent: int) -> None:
    """SIGKILL when the supervisor dies, however it does; Linux prctl(2), PR_SET_PDEATHSIG."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)


def _be_patient() -> None:
    """SCHED_BATCH, sched(7), for all threads of this process that are still to come.

    A frame wakes a dozen threads before it waits for the model, and on a busy core each of them would
    interrupt the model's process, which has to fill its caches again. This way they wait together for the
    end of its time slice, some milliseconds; a core that is idle takes them at once.
    """
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _process(control: Control) -> Process:
    transport.poller([control.fileno()]).poll()
    (start, fds), *more = control.receive()
    os.environ.update(start["secrets"])
    if start["spec"]["works_ahead"]:
        _be_patient()
    process = _kind(start["spec"]["role"])(control, start, fds)
    process.obey_now(more)
    return process


def _kind(role: str) -> type[Process]:
    """Loaded alone: what one process does not need costs each of 200 cameras its start."""
    if role == "source":
        from pipeline.process.source import CameraProcess

        return CameraProcess
    if role == "batcher":
        from pipeline.process.batcher import BatcherProcess

        return BatcherProcess
    from pipeline.process.stage import StageProcess

    return StageProcess


def run() -> NoReturn:
    """All of it; ends the process."""
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # a camera's reader thread may hang in a driver; it must not keep the process
