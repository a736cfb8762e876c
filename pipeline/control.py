"""The control channel between the supervisor and one child: a socketpair, which dies with either.

It carries small JSON messages with file descriptors (memory). Its EOF is the news that the other side
is dead: no timer, no heartbeat.

    supervisor → child   start, pool, forget, accept, connect, gone, go, drain
    child → supervisor   ready, failed, quit
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Sequence
from typing import Any

from pipeline.errors import PeerGone

_MAX_BYTES = (
    160 * 1024
)  # below the kernel's default send buffer: a message goes whole or not at all
_MAX_FDS = 250  # the kernel's SCM_MAX_FD is 253

Command = tuple[dict[str, Any], list[int]]


class Control:
    """One end."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._socket.setblocking(False)

    @classmethod
    def pair(cls) -> tuple[Control, socket.socket]:
        """The supervisor's end, and the socket to hand to the child."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    def fileno(self) -> int:
        """To poll for commands and EOF."""
        return self._socket.fileno()

    def send(self, command: str, fds: Sequence[int] = (), **fields: Any) -> None:
        """Raises PeerGone if the other side is dead or does not read any more."""
        data = json.dumps({"command": command, **fields}).encode()
        try:
            socket.send_fds(self._socket, [data], list(fds))
        except OSError as error:
            raise PeerGone(f"control message {command!r} not sent: {error}") from error

    def receive(self) -> list[Command]:
        """All commands that are here now; never waits. Raises PeerGone at the end of the channel."""
        commands: list[Command] = []
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, _MAX_BYTES, _MAX_FDS)
            except BlockingIOError:
                return commands
            except OSError as error:
                raise PeerGone(f"control channel: {error}") from error
            if not data:
                if commands:
                    return commands  # the EOF is still there at the next call
                raise PeerGone("control channel closed by the other side")
            commands.append((json.loads(data), fds))

    def close(self) -> None:
        """Calling it again is fine."""
        with contextlib.suppress(OSError):
            self._socket.close()
