"""The control socket of a run: one question and one answer, a line of JSON each, for programs of its user.

It lies beside the sockets of the processes, in a folder of mode 0700, and is itself of mode 0600. Clients
are answered between two turns of the supervisor's loop; none can hold it up: nothing here waits, a client
that says too much or nothing for a while is let go, and one more than there is room for ends the oldest.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import traceback
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import Any

from pipeline.errors import ManyeyesError, ResourceError
from pipeline.host.refusal import refused, sentence

NAME = "ctl"
_MAX_CLIENTS = 16
_MAX_BYTES = 64 << 10  # of a question
_PATIENCE_S = 5.0

log = logging.getLogger("manyeyes")

Answer = Callable[[dict[str, Any]], dict[str, Any]]


class _Client:
    def __init__(self, sock: socket.socket, now_s: float) -> None:
        self.socket, self.came_s = sock, now_s
        self.question, self.answer = b"", b""


class ControlSocket:
    """The supervisor's end."""

    def __init__(self, folder: Path, answer: Answer) -> None:
        """answer: called with each question, from `turn`; what it raises of ours is the answer, too.

        Raises ResourceError if the socket can't be made.
        """
        self._answer = answer
        self._clients: dict[int, _Client] = {}
        with refused("the control socket of the run"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            self._socket.bind(str(folder / NAME))
            os.chmod(folder / NAME, 0o600)
            self._socket.listen(_MAX_CLIENTS)

    def fds(self) -> list[int]:
        """What to poll."""
        return [self._socket.fileno(), *self._clients]

    def turn(self, readable: Set[int], now_s: float) -> None:
        """Take in what is there and answer what is whole; never waits."""
        if self._socket.fileno() in readable:
            with contextlib.suppress(OSError):
                for _ in range(_MAX_CLIENTS):  # all that wait, so that none is turned away
                    sock, _ = self._socket.accept()
                    sock.setblocking(False)
                    if len(self._clients) >= _MAX_CLIENTS:
                        self._drop(next(iter(self._clients)))
                    self._clients[sock.fileno()] = _Client(sock, now_s)
                    readable = {*readable, sock.fileno()}
        for fd, client in list(self._clients.items()):
            if now_s - client.came_s > _PATIENCE_S or not self._serve(client, fd in readable):
                self._drop(fd)

    def close(self) -> None:
        """Nobody is answered any more."""
        for fd in list(self._clients):
            self._drop(fd)
        self._socket.close()

    def _serve(self, client: _Client, is_readable: bool) -> bool:
        """False: it is through, or gone."""
        try:
            if is_readable and not client.answer:
                data = client.socket.recv(_MAX_BYTES)
                client.question += data
                if not data or len(client.question) > _MAX_BYTES:
                    return False
                if client.question.endswith(b"\n"):
                    client.answer = self._answered(client.question)
            if client.answer:
                client.answer = client.answer[client.socket.send(client.answer) :]
                return bool(client.answer)
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def _answered(self, question: bytes) -> bytes:
        try:
            asked = _read(question)
            with outlived(f"ctl: {asked.get('do')!r}"):
                return json.dumps(self._answer(asked)).encode() + b"\n"
        except ManyeyesError as error:
            told = {"error": str(error), "exit_code": error.exit_code}
        return json.dumps(told).encode() + b"\n"

    def _drop(self, fd: int) -> None:
        self._clients.pop(fd).socket.close()


@contextlib.contextmanager
def outlived(order: str) -> Iterator[None]:
    """What ends no run, and is a ManyeyesError: what the host refuses, and a bug, which is logged."""
    try:
        yield
    except ManyeyesError:
        raise
    except (OSError, MemoryError) as error:
        raise ResourceError(f"{order}: {sentence(error)}") from error
    except Exception as error:
        kind = type(error).__name__  # what else it says may be out of a URL
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error("%s failed by %s:\n%s", order, kind, where)
        raise ManyeyesError(
            f"{order} failed by an error of the program, see its log: {kind}"
        ) from error


def _read(question: bytes) -> dict[str, Any]:
    """Raises ManyeyesError."""
    try:
        asked = json.loads(question)
    except (ValueError, RecursionError) as error:
        raise ManyeyesError(f"ctl: this is no JSON: {error}") from error
    if not isinstance(asked, dict):
        raise ManyeyesError("ctl: wanted a JSON object")
    return asked
