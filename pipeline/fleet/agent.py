"""What stands for a machine: it has the run of the cameras that it may run, and of no others. Pure.

It looks at its run and starts, stops and starts it again; what a run is, it is told. Exit code 70 is a run
that is to be started again, 78 one that is not before it gets other cameras.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from pipeline.errors import ConfigError
from pipeline.fleet.leases import Fences, Orders, Report, Tenant

_FIRST_RETRY_S, _MAX_RETRY_S = 1.0, 30.0
_WORKED_S = 60.0  # a run that went on for so long had not failed
_JUDGED_S = 30.0  # so long a run is looked at before it counts as overloaded
_SERVED = 0.9  # of the frames; less is too little


class Run(Protocol):
    """`manyeyes run` with some cameras, at most one at a time. Nothing here waits."""

    def start(self, cameras: Fences, tables: Mapping[str, Any], until_s: float) -> None:
        """Begin; it is killed at `until_s`, whatever becomes of the agent. Raises ConfigError."""

    def extend(self, until_s: float) -> None:
        """Let it live longer."""

    def change(self, cameras: Fences, tables: Mapping[str, Any]) -> bool:
        """Let it go on with these, and the others not notice; False: it must be started anew for that."""

    def stop(self) -> None:
        """Ask it to end in order."""

    def poll(self) -> int | None:
        """Its exit code; None: something of it still runs."""

    def told(self) -> Mapping[str, Any]:
        """How it does, as `manyeyes ctl status` has it; and `sentence`, what it said at last."""


class Agent:
    """Of one machine."""

    def __init__(self, tenant: Tenant, run: Run, version: str) -> None:
        self.tenant = tenant
        self._run, self._version = run, version
        self._running: Fences | None = None
        self._leaving: Fences = {}  # of a run that goes on without them, but has not let go of them yet
        self._stopping = False
        self._began_s = self._retry_s = float("-inf")
        self._delay_s = _FIRST_RETRY_S
        self._over: Fences | None = (
            None  # it has ended with these, and is not started again with them
        )
        self._failure = self._refused = ""
        self._tables: Mapping[str, Any] = {}
        self._revision = self._running_revision = ""
        self._load = _Load()
        self.capacity: float | None = None  # as it was measured
        self.trouble = ""  # that the agent has beside its run

    def report(self, now_s: float) -> Report:
        """To be sent to the controller about once a second."""
        told: Mapping[str, Any] = {}
        if self._running is not None:
            told = self._run.told()
            self._let_go(told)
            if told.get("cameras"):  # it runs again
                self._failure = ""
            if not self._stopping:
                self._load.saw(told, now_s)
        return Report(
            machine=self.tenant.machine, session=self.tenant.session, version=self._version,
            term=self.tenant.term, number=self.tenant.number, held=dict(self.tenant.held),
            revision=self._revision, overloaded=self._load.is_over, capacity=self.capacity,
            told={**told, "failure": self._refused or self._failure or self.trouble},
        )  # fmt: skip

    def take(self, orders: Orders, asked_s: float) -> None:
        """The answer to a report that was made at `asked_s`; one that came too late must not get here."""
        self._refused = orders.refused
        if not self.tenant.take(orders, asked_s):
            return
        if orders.tables is not None:
            self._tables, self._revision = orders.tables, orders.revision

    def turn(self, now_s: float) -> None:
        """Let what runs be what may run; to be called several times a second."""
        due = self.tenant.due(now_s)
        if self._running is not None:
            if (code := self._run.poll()) is not None:
                self._ended(code, now_s)
            elif not self._stopping:
                self._look_after(due)
        if self._running is None and due and due != self._over and now_s >= self._retry_s:
            self._start(due, now_s)

    @property
    def tables(self) -> Mapping[str, Any]:
        """Of the fleet, as it knows them; empty before its first orders."""
        return self._tables

    def leave(self) -> None:
        """Stop for good; `turn` until `is_idle`."""
        self.tenant.until_s = float("-inf")

    @property
    def is_idle(self) -> bool:
        """Nothing runs."""
        return self._running is None

    def _look_after(self, due: Fences) -> None:
        """A run that goes on: as it is, with other cameras, or not for long."""
        if due:
            self._run.extend(self.tenant.until_s)
        if due == self._running and self._running_revision == self._revision:
            return
        ran = self._running or {}
        joined = {camera: fence for camera, fence in due.items() if ran.get(camera) != fence}
        if due and not self._leaving:
            self.tenant.begins(joined)
            if self._run.change(due, self._tables):
                self._leaving = {c: fence for c, fence in ran.items() if c not in due}
                self._running, self._running_revision = dict(due), self._revision
                self._load = _Load()
                return
            self.tenant.has_stopped(joined)
            self.tenant.begins({c: fence for c, fence in ran.items() if c in joined})
        self._stopping = True
        self._run.stop()

    def _let_go(self, told: Mapping[str, Any]) -> None:
        """Of cameras that the run, by its own words, does not read any more."""
        if not self._leaving or "cameras" not in told:
            return
        states = {camera: row["state"] for camera, row in told["cameras"].items()}
        gone = {c: fence for c, fence in self._leaving.items() if states.get(c, "left") == "left"}
        self.tenant.has_stopped(gone)
        self._leaving = {c: fence for c, fence in self._leaving.items() if c not in gone}

    def _start(self, due: Fences, now_s: float) -> None:
        self._load, self._stopping, self._over = _Load(), False, None
        self._began_s, self._running_revision = now_s, self._revision
        self.tenant.begins(due)
        try:
            self._run.start(due, self._tables, self.tenant.until_s)
            self._running = dict(due)
        except ConfigError as error:
            self.tenant.has_stopped(due)
            self._over, self._failure = dict(due), str(error)

    def _ended(self, code: int, now_s: float) -> None:
        ran, self._running = self._running or {}, None
        self.tenant.has_stopped({**self._leaving, **ran})
        self._leaving = {}
        if self._stopping:
            return
        sentence = self._run.told().get("sentence", "")
        self._failure = f"its run ended with {code}{': ' if sentence else ''}{sentence}"
        if code in (
            0,
            ConfigError.exit_code,
        ):  # its files are through; or it can't be better next time
            self._over = ran
            return
        if now_s - self._began_s >= _WORKED_S:
            self._delay_s = _FIRST_RETRY_S
        self._retry_s = now_s + self._delay_s
        self._delay_s = min(_MAX_RETRY_S, 2 * self._delay_s)


class _Load:
    """Whether a run serves what its cameras give."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()  # time, captured, delivered

    def saw(self, told: Mapping[str, Any], now_s: float) -> None:
        cameras = told.get("cameras", {}).values()
        captured = sum(row["captured"] for row in cameras)
        self._seen.append((now_s, captured, sum(row["delivered"] for row in cameras)))
        while len(self._seen) > 2 and now_s - self._seen[1][0] >= _JUDGED_S:
            self._seen.popleft()

    @property
    def is_over(self) -> bool:
        """For half a minute at least, too few of the frames were served."""
        if not self._seen or self._seen[-1][0] - self._seen[0][0] < _JUDGED_S:
            return False
        (_, c0, d0), (_, c1, d1) = self._seen[0], self._seen[-1]
        return c0 > 0 and c1 > c0 and (d1 - d0) < _SERVED * (c1 - c0)
