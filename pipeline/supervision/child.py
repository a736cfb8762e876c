"""What the supervisor knows of one process, over all its incarnations."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, Literal

from pipeline.accounts.ledger import Ledger, holder_code
from pipeline.errors import ManyeyesError, PeerGone
from pipeline.hop.control import Control
from pipeline.hop.pool import pool_bytes
from pipeline.host import memory, signals
from pipeline.host.machine import child_environment, main_thread
from pipeline.host.refusal import refused
from pipeline.plan.graph import ProcessSpec
from pipeline.supervision.restart import Restarts
from pipeline.supervision.silence import Silence

log = logging.getLogger("manyeyes")

State = Literal["waiting", "starting", "ready", "ended"]
_START_S = 120.0  # torch, a large model and its warm-up on a busy machine
_READ_S = 15.0  # a camera's open and read time out by themselves long before, or say more
_ABORT_S = 0.2  # for faulthandler to print the stacks


class Child:
    """One row of the plan: its process, its pool, its history."""

    def __init__(self, spec: ProcessSpec, ledger: Ledger, stderr: int | None = None) -> None:
        self.spec = spec
        self.state: State = "waiting"
        self.restarts = Restarts()
        self.restart_at = 0.0
        self.incarnation = -1
        self.identity = ""  # to its consumers; of this incarnation
        self.pool_epoch = 0
        self.pool_fd: int | None = None
        self.drained = False
        self.failure: tuple[int, str] | None = None
        self.about = ""  # what does its work, as this or the last incarnation told
        self.pidfd = -1
        self._ledger, self._stderr = ledger, stderr
        self.index = ledger.process_index[spec.name]
        self._control: Control | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._turn_s = 1.0
        self._kill_at: float | None = None
        self._silences = Silence(), Silence()  # of its main loop, of the reader of a camera
        self._processed_before = 0

    @property
    def name(self) -> str:
        """Of the process."""
        return self.spec.name

    @property
    def code(self) -> int:
        """What this incarnation writes into the ledger's `holder`."""
        return holder_code(self.index, self.incarnation)

    @property
    def alive(self) -> bool:
        """It has a process that was not seen dead."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Of the process that lives now."""
        return self._process.pid if self._process else None

    @property
    def broken(self) -> str:
        """Why a recording ended that could not be read to its end; or nothing."""
        is_over = self.spec.role == "source" and self.state == "ended"
        return self.failure[1] if is_over and self.failure is not None else ""

    @property
    def dying(self) -> bool:
        """It was told to print its stacks and will be killed (`kill_if_due`)."""
        return self._kill_at is not None

    @property
    def worked(self) -> bool:
        """It has processed a frame since it was started."""
        return self._processed() > self._processed_before

    def lived_s(self, now: float) -> float:
        """Time since this incarnation was started."""
        return now - self._started_at

    def _processed(self) -> int:
        return int(self._ledger["processed"][self.index].sum())

    def allocate(self, pool_epoch: int) -> None:
        """A new pool for the next incarnation. Raises ResourceError."""
        self.release()
        self.pool_epoch = pool_epoch
        if self.spec.slots:
            size = pool_bytes(self.spec.slots, self.spec.slot_bytes)
            self.pool_fd = memory.create(self.name, size)

    def release(self) -> None:
        """Let go of the pool; it lives on while a reader maps it."""
        if self.pool_fd is not None:
            os.close(self.pool_fd)
            self.pool_fd = None

    def start(
        self, first: dict[str, Any], ledger_fd: int, originals: Sequence[int], *, without: Set[str]
    ) -> None:
        """A fresh interpreter; its first command is `first` and what it is, with the memory it needs.

        originals: descriptors of the copies of `spec.files`.
        without: names of variables that its environment must not have.
        Raises ResourceError, and nothing is left of it, if the host refuses one more.
        """
        self.incarnation += 1
        self.identity = secrets.token_hex(16)
        with refused(f"stage {self.name!r}: one more process"):
            self._control, self._process, self.pidfd = self._born(without)
        self.state, self.failure, self.drained, self._kill_at = "starting", None, False, None
        self._silences = Silence(), Silence()
        self._started_at = time.monotonic()
        self._processed_before = self._processed()
        pool = [] if self.pool_fd is None else [self.pool_fd]
        # not by way of its environment, which every process of the same user can read
        known = {name: os.environ[name] for name in self.spec.secrets if name in os.environ}
        self.send(
            "start", [ledger_fd, *pool, *originals], spec=dataclasses.asdict(self.spec),
            secrets=known, incarnation=self.incarnation, identity=self.identity,
            pool_epoch=self.pool_epoch, **first,
        )  # fmt: skip

    def _born(self, without: Set[str]) -> tuple[Control, subprocess.Popen[bytes], int]:
        control, theirs = Control.pair()
        try:
            arguments = [self.name, str(theirs.fileno()), str(os.getpid())]
            with signals.held_back():
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "pipeline.process.main", *arguments],
                    pass_fds=[theirs.fileno()],
                    env=child_environment(self.spec.environment, without=without),
                    stdin=None if self.spec.options.get("stdin") else subprocess.DEVNULL,
                    stderr=self._stderr,
                )
            try:
                return control, process, os.pidfd_open(process.pid)
            except OSError:
                process.kill()
                process.wait()
                raise
        except OSError:
            control.close()
            raise
        finally:
            theirs.close()

    def send(self, command: str, fds: Sequence[int] = (), **fields: Any) -> None:
        """Tell the process, in order, at once or as soon as it reads (`flush`).

        One that is dead by now is told nothing. One that lives and can't be told is killed with a word
        to the log: nobody can say what it would do without.
        """
        if self._control is None:
            return
        try:
            self._control.send(command, fds, **fields)
        except PeerGone:
            pass  # its pidfd tells the same
        except (ManyeyesError, OSError) as error:
            nbytes = len(json.dumps(fields))
            text = f"process {self.name!r} can't be told {command!r} ({nbytes} bytes): {error}"
            log.error("%s; killed", text)
            self.failure = ManyeyesError.exit_code, text
            self.signal(signal.SIGKILL)

    def flush(self) -> None:
        """Send what it had no room for until now."""
        if self.behind and self._control is not None:
            with contextlib.suppress(PeerGone):
                self._control.flush()

    @property
    def behind(self) -> bool:
        """It was told something that it can't read yet."""
        return self._control is not None and self._control.behind

    def fds(self) -> list[int]:
        """What to poll: the control channel, and the process itself."""
        return [self._control.fileno(), self.pidfd] if self._control and self.alive else []

    def receive(self) -> list[dict[str, Any]]:
        """What it says."""
        try:
            return [command for command, _ in self._control.receive()] if self._control else []
        except PeerGone:
            return []  # its pidfd tells the same

    def ready(self, turn_s: float) -> None:
        """It has said so."""
        self.state, self._turn_s = "ready", turn_s
        if self.pool_fd is not None:
            memory.seal(self.pool_fd)

    def reap(self) -> int | None:
        """The exit status if it died (negative: the signal), and forget the process; else None."""
        status = self._process.poll() if self._process else None
        if status is None:
            return None
        for command in self.receive():  # its last words
            if command["command"] == "failed":
                self.failure = command["exit_code"], command["text"]
        os.close(self.pidfd)
        if self._control is not None:
            self._control.close()
        self._control = self._process = None
        self.pidfd = -1
        return status

    def overdue(self, now: float, lateness_s: float) -> str | None:
        """Why it counts as hung, or None. lateness_s: how late the supervisor itself is."""
        if not self.alive or self._kill_at is not None:
            return None
        turning, reading = self._silences
        if self.state == "starting":
            late = turning.is_hang(self.lived_s(now), _START_S + lateness_s, self._look)
            return f"not ready after {self.lived_s(now):.0f} s" if late else None
        silent_s = now - self._ledger["beat_ns"].item(self.index, 0) / 1e9
        if turning.is_hang(silent_s, self._turn_s + lateness_s, self._look):
            return f"no turn for {silent_s:.1f} s, wanted one each {self._turn_s:.1f} s"
        if self.spec.role == "source":
            read_s = max(_READ_S, self.spec.options.get("turn_s", 0.0))
            silent_s = now - self._ledger["beat_ns"].item(self.index, 1) / 1e9
            if reading.is_hang(silent_s, read_s + lateness_s, self._look):
                return f"its reading thread hangs for {silent_s:.1f} s"
        return None

    def _look(self) -> tuple[bool, float]:
        return main_thread(self._process.pid) if self._process else (False, 0.0)

    def abort(self, now: float) -> None:
        """Let it print its stacks, then kill it (`kill_if_due`); one that is stopped prints nothing."""
        self.signal(signal.SIGABRT)
        self._kill_at = now + (0 if self._is_stopped() else _ABORT_S)

    def _is_stopped(self) -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        return False

    def kill_if_due(self, now: float) -> None:
        """The second step of `abort`."""
        if self._kill_at is not None and now >= self._kill_at:
            self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """To the process, if it lives."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
