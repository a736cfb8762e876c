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
from typing import Any, Literal, NamedTuple

from pipeline.accounts.ledger import Ledger, holder_code
from pipeline.errors import ManyeyesError, PeerGone
from pipeline.hop.control import Control
from pipeline.hop.pool import pool_bytes
from pipeline.host import memory, signals
from pipeline.host.machine import child_environment, core_wants
from pipeline.host.refusal import refused
from pipeline.plan.graph import ProcessSpec
from pipeline.supervision.restart import Restarts
from pipeline.supervision.silence import Silence, Start, Wants

log = logging.getLogger("manyeyes")

State = Literal["waiting", "starting", "ready", "ended"]
_START_S = 120.0  # without a word and without work, while it is not ready
_START_SHARE = 0.1  # of a core: who uses less does not work
_START_MOST_S = 3600.0  # in which every model is loaded: who takes longer runs in circles
_READ_S = 15.0  # a camera's open and read time out by themselves long before, or say more
_JOINS_AT = 10  # nice(2): a tenth of what the others get, where there is no core to spare
_ABORT_S = 0.2  # for faulthandler to print the stacks


class Pool(NamedTuple):
    """Memory that a process writes and others read."""

    epoch: int  # never used twice in a run
    fd: int
    slots: int
    slot_bytes: int

    @property
    def facts(self) -> tuple[int, int, int]:
        """What who maps it has to know, beside the descriptor."""
        return self.epoch, self.slots, self.slot_bytes


class Child:
    """One row of the plan: its process, its memory, its history."""

    def __init__(
        self,
        spec: ProcessSpec,
        ledger: Ledger,
        stderr: int | None = None,
        *,
        first_incarnation: int | None = None,
    ) -> None:
        """first_incarnation: of a process that comes later, behind those that had its row of the ledger
        before; None: it is of the start."""
        self.spec = spec
        self.state: State = "waiting"
        self.restarts = Restarts()
        self.restart_at = 0.0
        self.is_late = first_incarnation is not None
        self._first_incarnation = first_incarnation or 0
        self.incarnation = self._first_incarnation - 1
        self.identity = ""  # to its consumers; of this incarnation
        self.pools: list[Pool] = []
        self.drained = False
        self.is_closing = False  # another one comes in its place, and gets what is sent from now on
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
        self._is_cut_off = False  # it could not be told something
        self._silences = Silence(), Silence()  # of its main loop, of the reader of a camera
        self._start = Start()
        self._processed_before = 0

    @property
    def name(self) -> str:
        """Of the process."""
        return self.spec.name

    @property
    def is_new(self) -> bool:
        """It was never started."""
        return self.incarnation < self._first_incarnation

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
        """Memory for the next incarnation, as much as it needs now. Raises ResourceError."""
        self.release()
        self.grow(pool_epoch)

    @property
    def wants_memory(self) -> bool:
        """It has got cameras since it was started, and not yet the slots for them."""
        return self._slots_wanted() > 0

    def grow(self, pool_epoch: int) -> Pool | None:
        """One pool more, with what is missing; None: nothing is. Raises ResourceError."""
        if (slots := self._slots_wanted()) <= 0:
            return None
        size = pool_bytes(slots, self.spec.slot_bytes)
        fd = memory.create(self.name, size)
        self.pools.append(Pool(pool_epoch, fd, slots, self.spec.slot_bytes))
        return self.pools[-1]

    def _slots_wanted(self) -> int:
        # a slot that is too small for the frames of one camera is of no use for any
        usable = (pool.slots for pool in self.pools if pool.slot_bytes >= self.spec.slot_bytes)
        return self.spec.slots - sum(usable)

    def grown(self, pool_epoch: int) -> None:
        """It has mapped this pool, and nobody else is to map it for writing."""
        for pool in self.pools:
            if pool.epoch == pool_epoch:
                memory.seal(pool.fd)

    def release(self) -> None:
        """Let go of its memory; that lives on while a reader maps it."""
        while self.pools:
            os.close(self.pools.pop().fd)

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
        self.is_closing = False
        self._silences, self._start, self._is_cut_off = (Silence(), Silence()), Start(), False
        self._started_at = time.monotonic()
        self._processed_before = self._processed()
        # not by way of its environment, which every process of the same user can read
        known = {name: os.environ[name] for name in self.spec.secrets if name in os.environ}
        self.send(
            "start", [ledger_fd, *originals], spec=dataclasses.asdict(self.spec), secrets=known,
            incarnation=self.incarnation, identity=self.identity, **first,
        )  # fmt: skip
        for pool in self.pools:
            self.send("grow", [pool.fd], pool=pool.facts)

    def _born(self, without: Set[str]) -> tuple[Control, subprocess.Popen[bytes], int]:
        control, theirs = Control.pair()
        try:
            arguments = [self.name, str(theirs.fileno()), str(os.getpid()), *self._haste()]
            with signals.held_back():
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "pipeline.process.start", *arguments],
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

    def _haste(self) -> tuple[str, ...]:
        """One that joins is loaded behind those that are at work; one that died is missed."""
        if not self.is_late or self.incarnation > self._first_incarnation:
            return ("0",)
        module, _, _ = self.spec.run.partition(":")  # the batcher has none
        return (str(_JOINS_AT), module) if module else (str(_JOINS_AT),)

    def send(self, command: str, fds: Sequence[int] = (), **fields: Any) -> None:
        """Tell the process, in order, at once or as soon as it reads (`flush`).

        One that is dead by now is told nothing. One that lives and can't be told is killed with a word
        to the log: nobody can say what it would do without.
        """
        if self._control is None or self._is_cut_off:
            return
        try:
            self._control.send(command, fds, **fields)
        except PeerGone:
            pass  # its pidfd tells the same
        except (ManyeyesError, OSError) as error:
            nbytes = len(json.dumps(fields))
            text = f"process {self.name!r} can't be told {command!r} ({nbytes} bytes): {error}"
            log.error("%s; killed", text)
            self._is_cut_off = True
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

    def died_of(self, status: int) -> str:
        """How it ended, for a person; status: as `reap` gave it."""
        how = f"signal {-status}" if status < 0 else f"exit code {status}"
        return f"{how} ({self.failure[1]})" if self.failure else how

    def overdue(self, now: float, lateness_s: float) -> str | None:
        """Why it counts as hung, or None. lateness_s: how late the supervisor itself is."""
        if not self.alive or self._kill_at is not None:
            return None
        turning, reading = self._silences
        if self.state == "starting":
            return self._start_overdue(now, _START_S + lateness_s)
        silent_s = now - self._ledger["beat_ns"].item(self.index, 0) / 1e9
        if turning.is_hang(silent_s, self._turn_s + lateness_s, self._look):
            return f"no turn for {silent_s:.1f} s, wanted one each {self._turn_s:.1f} s"
        if self.spec.role == "source":
            read_s = max(_READ_S, self.spec.options.get("turn_s", 0.0))
            silent_s = now - self._ledger["beat_ns"].item(self.index, 1) / 1e9
            if reading.is_hang(silent_s, read_s + lateness_s, self._look):
                return f"its reading thread hangs for {silent_s:.1f} s"
        return None

    def _start_overdue(self, now: float, limit_s: float) -> str | None:
        lived_s = self.lived_s(now)
        if lived_s < limit_s / 2:
            return None
        every = self._look()[1:]  # all of its threads
        cpu_s = every[0][1] if every else 0.0
        if lived_s > _START_MOST_S:
            return f"not ready after {lived_s:.0f} s of work"
        said_s = now - self._ledger["beat_ns"].item(self.index, 0) / 1e9
        silent_s = min(said_s, self._start.silent_s(lived_s, cpu_s, limit_s * _START_SHARE))
        if self._silences[0].is_hang(silent_s, limit_s, self._look):
            return f"not ready after {lived_s:.0f} s, and idle for {silent_s:.0f} s of them"
        return None

    def _look(self) -> Wants:
        return core_wants(self._process.pid) if self._process else ()

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
