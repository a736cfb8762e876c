"""Channels over ZeroMQ: every process has one Inbox; a writer has one Outbox for each consumer.

A channel lives as long as both of its processes: a restarted process binds a new endpoint and connects
new sockets, told by the supervisor, so that nothing of an earlier life can arrive. Credits (edge.py)
keep the number of messages under way far below the high-water marks: ZeroMQ never drops.

`IMMEDIATE` stays off: an Outbox is only made for an inbox that is bound, and what a dying peer swallows
is remembered by the edge, so a message sent during the connect is never lost silently.
"""

from __future__ import annotations

import select
from collections.abc import Iterable
from typing import TypeAlias

import zmq

from pipeline.errors import Closed, Full
from pipeline.messages import MAX_MESSAGE_BYTES

Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"

_HIGH_WATER = 4096  # messages; a safety net above all credits, never reached
# plain numbers: arithmetic with pyzmq's enums costs as much as the calls themselves
_NOBLOCK, _SNDMORE = int(zmq.NOBLOCK), int(zmq.SNDMORE)
_EVENTS, _RCVMORE, _POLLIN = int(zmq.EVENTS), int(zmq.RCVMORE), int(zmq.POLLIN)


def context() -> Context:
    """The ZeroMQ context of this process; one I/O thread is plenty for descriptors."""
    return zmq.Context(io_threads=1)


def poller(descriptors: Iterable[int]) -> select.poll:
    """Its `poll(timeout_ms)` returns when one of these file descriptors is readable.

    Those of channels are announced at the edge: whoever waits must have seen that nothing is `readable`
    after the last use of the channel. In return, another thread may use it meanwhile.
    """
    made = select.poll()
    for descriptor in descriptors:
        made.register(descriptor, select.POLLIN)
    return made


class _Channel:
    def __init__(self, context: Context, kind: int) -> None:
        self.socket = context.socket(kind)
        # without the layer of zmq.Socket, which knows routing ids and groups
        self._zmq_send = super(zmq.Socket, self.socket).send
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self.socket.setsockopt(zmq.SNDHWM, _HIGH_WATER)
        self.socket.setsockopt(zmq.RCVHWM, _HIGH_WATER)
        self._has_message = False  # as was seen, and nothing was received or sent since

    @property
    def descriptor(self) -> int:
        """Readable when something new happened to the channel; see `poller`."""
        return int(self.socket.getsockopt(zmq.FD))

    def close(self) -> None:
        """Forget what was not sent. Calling it again is fine."""
        self._has_message = False
        self.socket.close(linger=0)

    @property
    def readable(self) -> bool:
        """Whether `receive` would find something. Raises Closed."""
        try:
            # asking is ten times cheaper than the exception of a receive that finds nothing
            events = self.socket.getsockopt(_EVENTS)
        except zmq.ZMQError as error:
            raise self._error("receive", error) from error
        self._has_message = bool(events & _POLLIN)  # type: ignore[operator]  # an int
        return self._has_message

    def send(self, data: bytes, flags: int = 0) -> None:
        """Never waits. Raises Full if ZeroMQ takes nothing now, Closed."""
        self._has_message = False  # who sent it may be known to be gone by then
        try:
            self._zmq_send(data, _NOBLOCK | flags)
        except zmq.Again as error:
            raise Full("send: the channel takes no message now; try again after a DONE") from error
        except zmq.ZMQError as error:
            raise self._error("send", error) from error

    def _error(self, what: str, error: zmq.ZMQError) -> Exception:
        # asked afterwards: `closed` is a call into ZeroMQ, too
        return Closed(f"{what} on a channel that this side closed") if self.socket.closed else error


class Inbox(_Channel):
    """Where all producers of this process send to. Answers (DONE) go back by the sender's name."""

    def __init__(self, context: Context, endpoint: str) -> None:
        """endpoint: `ipc://…` in a directory of mode 0700. Bound when this returns."""
        super().__init__(context, zmq.ROUTER)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.bind(endpoint)

    def receive(self) -> list[tuple[bytes, bytes]]:
        """All (sender, message) pairs that are here now; never waits. Raises Closed.

        Odd multiparts come as b"".
        """
        messages: list[tuple[bytes, bytes]] = []
        receive = self.socket.recv
        while self._has_message or self.readable:
            self._has_message = False
            sender = receive(_NOBLOCK)
            data = receive(_NOBLOCK)  # there is one: ZeroMQ put the name in front of it
            while self.socket.getsockopt(_RCVMORE):
                receive(_NOBLOCK)
                data = b""
            messages.append((sender, data))
        return messages

    def answer(self, sender: bytes, data: bytes) -> bool:
        """Send back to a producer; never waits. Raises Closed.

        False: it was not sent. The producer is gone, and the answer means nothing to anybody, or it
        has not read thousands of answers, which is more than there are credits.
        """
        try:
            self.send(sender, _SNDMORE)
            self.send(data)
        except (zmq.ZMQError, Full):
            return False
        return True


class Outbox(_Channel):
    """To one consumer."""

    def __init__(self, context: Context, endpoint: str, identity: bytes) -> None:
        """identity: nobody else's, and not to be guessed; see Reader.accept. Returns before it is
        connected."""
        super().__init__(context, zmq.DEALER)
        self.socket.setsockopt(zmq.ROUTING_ID, identity)
        self.socket.connect(endpoint)

    def receive(self) -> list[bytes]:
        """All answers that are here now; never waits. Raises Closed."""
        messages = []
        while self.readable:
            messages.append(self.socket.recv(_NOBLOCK))
        return messages
