"""The other end of a run's control socket: to ask, from any program of its user."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from pipeline.errors import ManyeyesError
from pipeline.supervision.ctl import NAME
from pipeline.supervision.rundir import socket_folders

PATIENCE_S = 10.0
_AGAIN_S = 0.02


def ask(
    pid: int | None, question: dict[str, Any], *, patience_s: float = PATIENCE_S
) -> dict[str, Any]:
    """What the run answers; pid: of its supervisor, None: there is one run only.

    Waits for `patience_s` at most, several times if it must. Raises ManyeyesError if there is no such run,
    if there are several, or with what the run says against it.
    """
    found = dict(_runs(pid, patience_s))
    try:
        if not found:
            which = "no run goes on" if pid is None else f"no run has the process id {pid}"
            raise ManyeyesError(f"ctl: {which} here, of this user; `manyeyes run` starts one")
        if len(found) > 1:
            pids = ", ".join(map(str, sorted(found)))
            raise ManyeyesError(f"ctl: several runs go on ({pids}); say which with --pid")
        told = _asked(next(iter(found.values())), question)
    finally:
        for sock in found.values():
            sock.close()
    if "error" in told:
        refusal = ManyeyesError(told["error"])
        refusal.exit_code = told["exit_code"]  # of this one error, as the run said
        raise refusal
    return told


def _runs(pid: int | None, patience_s: float) -> Iterator[tuple[int, socket.socket]]:
    """Each run of this user (pid: only that one) that takes questions: its process id and a connection."""
    for folder in socket_folders():
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(patience_s)
        try:
            _connect(sock, str(folder / NAME), patience_s)
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except OSError:  # left behind by a run that was killed, or just ending
            sock.close()
            continue
        run = int.from_bytes(credentials[:4], "little")
        if pid in (None, run):
            yield run, sock
        else:
            sock.close()


def _connect(sock: socket.socket, path: str, patience_s: float) -> None:
    """Raises OSError. One that is busy with others takes one more in a moment."""
    end = time.monotonic() + patience_s
    while True:
        try:
            return sock.connect(path)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
            time.sleep(_AGAIN_S)


def _asked(sock: socket.socket, question: dict[str, Any]) -> dict[str, Any]:
    try:
        sock.sendall(json.dumps(question).encode() + b"\n")
        data = b""
        while not data.endswith(b"\n"):
            if not (more := sock.recv(1 << 16)):
                raise ManyeyesError("ctl: the run ended before it answered")
            data += more
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else "it does not answer"
        raise ManyeyesError(f"ctl: the run can't be asked: {why}") from error
    told: dict[str, Any] = json.loads(data)
    return told
