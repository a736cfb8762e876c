"""The signals that ask for an end, and that none of them is lost.

A handler that raises is lost where a callback swallows what it raises, so none of a run raises: it ends
the process while there is nothing to close, and later only says what the main loop looks at. The children
of a run never see these signals: the supervisor alone decides.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import socket

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, an orderly stop, and a terminal that is gone."""


def end_at_once() -> None:
    """From now on they end the process on the spot, with 128 + their number as its exit code.

    Also where nobody has asked for them before: the first process of a container ignores what it has no
    handler for, and a shell lets what it starts with `&` ignore SIGINT. `nohup` keeps its meaning.
    """
    for number in _wanted():
        signal.signal(number, lambda n, _: os._exit(128 + n))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def raise_exceptions() -> None:
    """From now on they raise KeyboardInterrupt or SystemExit: for commands that have files to remove."""
    for number in _wanted():
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else _exit)


def _exit(number: int, _: Any) -> NoReturn:
    raise SystemExit(128 + number)


def _wanted() -> list[signal.Signals]:
    has_nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in ENDING if number != signal.SIGHUP or not has_nohup]


def has_terminal() -> bool:
    """Whether this process belongs to a terminal that is there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


@contextmanager
def heard(act: Callable[[], object], hang_up: Callable[[], object]) -> Iterator[socket.socket]:
    """Within, each of them calls `act`, SIGHUP `hang_up`, which must not raise, and makes the yielded
    socket readable."""
    import socket  # late: end_at_once comes before all that takes time

    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    acts = {number: hang_up if number == signal.SIGHUP else act for number in _wanted()}
    handlers = {
        number: signal.signal(number, lambda *_, do=do: do()) for number, do in acts.items()
    }
    previous = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield ours
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        ours.close()
        theirs.close()


@contextmanager
def held_back() -> Iterator[None]:
    """Within, they wait, and a process that is started is born with them waiting, see `ignore`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore() -> None:
    """In a process that was started within `held_back`: they mean nothing to it, nor did they before."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
