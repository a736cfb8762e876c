"""Between an agent and its run: it ends the run when the lease is over, whatever the agent does.

    python -P -m pipeline.fleet.guard UNTIL_S COMMAND …      started by an agent alone

An agent may hang, or be stopped, while its cameras go to another machine; so it is this process, which does
nothing else, that holds the deadline. Standard input brings later ones, a line each, or `stop`; its end,
which is that of the agent, is `stop`, too. Seconds are those of CLOCK_BOOTTIME, which also counts while the
machine sleeps. The run dies with this process, and its exit code is this one's, 128 + N for signal N.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time

STOP_S = 10.0  # a run ends in order within five
_PDEATHSIG = 1  # prctl(2)


def now_s() -> float:
    """The clock of leases."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def main() -> int:
    """Until the run has ended."""
    until_s, command = float(sys.argv[1]), sys.argv[2:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the agent decides
    libc = ctypes.CDLL(None)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,  # ours is for the agent alone
        preexec_fn=lambda: libc.prctl(_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509  there is one thread
    )  # fmt: skip
    print(process.pid, flush=True)
    ended = os.pidfd_open(process.pid)
    text, stopping = b"", False
    while True:
        left_s = until_s - now_s()
        if left_s <= 0:
            process.kill()
            return _code(process.wait())
        wanted = [ended] if stopping else [ended, 0]
        readable, _, _ = select.select(wanted, [], [], left_s)
        if ended in readable:
            return _code(process.wait())
        if 0 not in readable:
            continue
        data = os.read(0, 4096)
        *lines, text = (text + data).split(b"\n")
        if not data or b"stop" in lines:
            stopping, until_s = True, min(until_s, now_s() + STOP_S)
            process.terminate()
        elif lines:
            until_s = float(lines[-1])


def _code(code: int) -> int:
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
