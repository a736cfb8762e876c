"""The control channel between the supervisor and one child: a socketpair, which dies with either.

It carries JSON messages with file descriptors (memory). Its EOF is the news that the other side is
dead: no timer, no heartbeat. Messages arrive whole and in order: one that finds no room in the socket,
since the other side is busy, waits here for `flush`; one that is long travels as sealed memory.

    supervisor → child   start, grow, pools, forget, accept, connect, gone, settle, settled, go, drain,
                         join, leave, pause, resume, abandon
    child → supervisor   ready, grown, settled, forgot, left, failed, quit
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

from pipeline.errors import ChannelError, Closed, Full, PeerGone
from pipeline.host import memory

MAX_FDS = 250  # of a message; the kernel's SCM_MAX_FD is 253
_PACKET_BYTES = 16 * 1024  # far below the kernel's send buffer
_IN_MEMORY = b"@"  # in place of the text, which the last descriptor holds; no JSON begins so
_MAX_WAITING = 10_000  # messages; far more than a run of any size has to say at once
_NOT_NOW = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)

Command = tuple[dict[str, Any], list[int]]


class Control:
    """One end."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._socket.setblocking(False)
        self._waiting: deque[tuple[bytes, list[int]]] = deque()  # with descriptors of our own

    @classmethod
    def pair(cls) -> tuple[Control, socket.socket]:
        """The supervisor's end, and the socket to hand to the child."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    def fileno(self) -> int:
        """To poll for commands and EOF."""
        return self._socket.fileno()

    @property
    def behind(self) -> bool:
        """Something was sent that the other side can't read yet."""
        return bool(self._waiting)

    def send(self, command: str, fds: Sequence[int] = (), **fields: Any) -> None:
        """Never waits; `fds`, MAX_FDS of them at most, may be closed afterwards.

        Raises PeerGone if the other side is dead, Closed, Full if far too much waits for it already,
        ResourceError or OSError if a long message finds no memory, a waiting one no descriptor.
        """
        if len(self._waiting) >= _MAX_WAITING:
            raise Full(f"{len(self._waiting)} messages wait that it does not read")
        packet, fds = json.dumps({"command": command, **fields}).encode(), list(fds)
        text = -1
        try:
            if len(packet) > _PACKET_BYTES:
                text = memory.sealed(f"control-{command}", packet)
                packet, fds = _IN_MEMORY, [*fds, text]
            if self._waiting or not self._sent(packet, fds):
                self._waiting.append((packet, [os.dup(fd) for fd in fds]))
        finally:
            if text >= 0:
                os.close(text)

    def flush(self) -> None:
        """Send what waits, as far as there is room. Never waits. Raises PeerGone, Closed."""
        while self._waiting and self._sent(*self._waiting[0]):
            for fd in self._waiting.popleft()[1]:
                os.close(fd)

    def _sent(self, packet: bytes, fds: list[int]) -> bool:
        try:
            socket.send_fds(self._socket, [packet], fds)
        except OSError as error:
            if error.errno in _NOT_NOW:
                return False
            raise self._error("message not sent", error) from error
        return True

    def receive(self) -> list[Command]:
        """All commands that are here now; never waits. Raises PeerGone at the end, Closed."""
        commands: list[Command] = []
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, _PACKET_BYTES, MAX_FDS + 1)
            except BlockingIOError:
                return commands
            except OSError as error:
                raise self._error("channel", error) from error
            if not data:
                if commands:
                    return commands  # the EOF is still there at the next call
                raise PeerGone("control channel closed by the other side")
            if data == _IN_MEMORY:
                text = fds.pop()
                data = os.pread(text, os.fstat(text).st_size, 0)
                os.close(text)
            commands.append((json.loads(data), fds))

    def _error(self, what: str, error: OSError) -> ChannelError:
        if self._socket.fileno() < 0:
            return Closed(f"control {what}: this side closed it")
        return PeerGone(f"control {what}: {error}")

    def close(self) -> None:
        """What waits is let go. Calling it again is fine."""
        while self._waiting:
            for fd in self._waiting.popleft()[1]:
                os.close(fd)
        with contextlib.suppress(OSError):
            self._socket.close()
