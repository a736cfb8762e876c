"""The supervisor: owns all memory, starts every process, watches, restarts, counts, and ends the run.

It parses no frame and holds no socket of the data plane. It hears of a death by pidfd, of a hang by
the loop-turn times that every process writes into the ledger.
"""

from __future__ import annotations

import logging
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.accounts.books import Accounts
from pipeline.accounts.tally import Totals
from pipeline.errors import ConfigError, ManyeyesError
from pipeline.host.refusal import refused
from pipeline.host.signals import has_terminal, heard
from pipeline.plan.difference import Difference
from pipeline.plan.graph import Plan
from pipeline.plan.planner import Planner
from pipeline.supervision.apply import Changes
from pipeline.supervision.child import Child
from pipeline.supervision.crew import Crew
from pipeline.supervision.ctl import ControlSocket
from pipeline.supervision.draining import STOP_S, drain
from pipeline.supervision.introductions import Introductions
from pipeline.supervision.needs import Needs
from pipeline.supervision.orders import Orders
from pipeline.supervision.rundir import RunDirectory
from pipeline.supervision.settling import Settling
from pipeline.supervision.watch import Watch

log = logging.getLogger("manyeyes")

TICK_S = 0.05
_CALM_TICK_S = 0.15  # while all goes well: a death or a word of a child ends the wait by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run a plan."""

    directory: Path | None = None  # one run at a time holds it; None: a temporary one
    seconds: float | None = None  # from the moment that everything is ready; None: until it ends
    strict: bool = False  # a failure at the start or an open breaker ends the run
    to_bgr: str | None = "stages.imaging.pixels:to_bgr"
    stderr: int | None = None  # a descriptor, always read, for that of all processes; None: ours
    watch: bool = False  # apply the planner's file whenever it was edited


class Supervisor:
    """One run. `run` from the main thread only: the children die with the thread that starts them."""

    def __init__(
        self,
        plan: Plan,
        options: Options,
        on_tick: Callable[[Supervisor], None] | None = None,
        planner: Planner | None = None,
    ):
        """on_tick: called 6 to 20 times a second in between; must return within milliseconds.
        planner: made `plan`, and makes those that follow; None: it stays what it is."""
        plan.check()
        self.options, self._on_tick = options, on_tick
        self.accounts = Accounts(plan.layout)
        self.ledger = self.accounts.ledger
        self.crew = Crew(plan, self.accounts, to_bgr=options.to_bgr, stderr=options.stderr)
        self.live = False  # everything was ready once, the sources read
        self.stopping = False
        self._stop_at: float | None = None  # a deadline for all: a person is waiting
        self._quit = False
        self._live_at = 0.0
        self._settling: Settling[tuple[str, int]] = Settling()  # name and code of the dead
        self.introductions = Introductions(self.crew, self.crew.endpoint)
        self._last_tick = time.monotonic()
        self.paused: set[str] = set()  # cameras that nobody reads until they are resumed
        self.changes, self.planner = Changes(self), planner
        self._hung_up, self._had_terminal = False, has_terminal()
        self._watch = None
        if options.watch and planner is not None and planner.file is not None:
            self._watch = Watch(planner.file)
        self._orders = Orders(self)

    # -- the run -----------------------------------------------------------------------------------

    def run(self, before_start: Callable[[], object] = lambda: None) -> None:
        """Until the sources end, `seconds` are over, or SIGINT or SIGTERM. Returns when all is gone.

        SIGHUP reads the configuration again, if it is in a file and the terminal is not gone.

        before_start: called once, when the run directory is ours and no process started yet.
        Raises ConfigError if a process refuses to start, with its sentence; AlreadyRunning.
        """
        with (
            heard(self.stop, self._hang_up) as wakeup,
            closing(RunDirectory(self.options.directory)) as directory,
        ):
            self._directory = directory
            self._ctl = ControlSocket(directory.sockets, self._orders.answer)
            try:
                with refused("memory of the run"):
                    Needs.of(self.plan).check()
                self.crew.begin(directory)
                before_start()
                while not self._finished():
                    self._tick(self._wait(wakeup))
            finally:
                self._ctl.close()
                self._end()

    @property
    def plan(self) -> Plan:
        """What runs; a camera that leaves is in it until it is gone."""
        return self.crew.plan

    @property
    def children(self) -> Mapping[str, Child]:
        """Its processes by name."""
        return self.crew.children

    def stop(self) -> None:
        """Ask for an orderly end; from a signal handler, another thread, or a tick."""
        self._quit = True

    def _hang_up(self) -> None:
        is_gone = self._had_terminal and not has_terminal()
        if self.planner is None or self.planner.file is None or is_gone:
            self.stop()
        else:
            self._hung_up = True

    def pause(self, camera: str, *, paused: bool) -> None:
        """Let a camera be read no more (its source is closed), or again; also after a restart."""
        (self.paused.add if paused else self.paused.discard)(camera)
        # one that is about to join is told when it is ready
        name = self.plan.sources.get(camera)
        if name is not None and self.children[name].state == "ready":
            self.children[name].send("pause" if paused else "resume")

    def source_of(self, camera: str) -> Child:
        """The process that reads a camera."""
        return self.crew.children[self.plan.sources[camera]]

    def apply(self, plan: Plan) -> Difference:
        """Make this what runs, by and by; what is not in the difference does not notice.

        From the main thread, in a tick. Raises ConfigError or ResourceError for a plan that can't be, and
        then nothing has changed; ManyeyesError if the run is stopping.
        """
        return self.changes.apply(plan)

    @property
    def stuck_s(self) -> float:
        """Seconds since the main loop last turned; it turns 6 times a second or more."""
        return time.monotonic() - self._last_tick

    def stage_states(self) -> Iterator[tuple[str, bool, int, bool]]:
        """(name, up, restarts, breaker open) of every process; for the exporter."""
        for child in self.crew.children.values():
            up = child.state == "ready" or (child.state == "ended" and not child.failure)
            yield child.name, up, child.restarts.count, child.restarts.breaker_open

    @property
    def totals(self) -> dict[tuple[str, str], Totals]:
        """Where the frames of each camera and path are, as of the last count."""
        return self.accounts.totals

    @property
    def sink_totals(self) -> dict[tuple[str, str], Totals]:
        """What became of each camera's frames at each sink (its process)."""
        return self.accounts.sink_totals

    def cameras_missed(self) -> set[str]:
        """Those whose results do not arrive, though their source has not ended; for the exporter."""
        missed = self.accounts.missed(time.monotonic()) - self.paused - self.changes.leaving
        missed &= {*self.plan.cameras}
        for child in self.crew.children.values():
            if child.spec.role == "source" and child.state == "ended" and not child.failure:
                missed.difference_update(child.spec.cameras)
        return missed

    def engines(self) -> Iterator[tuple[str, str]]:
        """(name, what does its work) of every process that has told; for the exporter."""
        yield from ((c.name, c.about) for c in self.crew.children.values() if c.about)

    def _tick(self, readable: Set[int]) -> None:
        now = time.monotonic()
        lateness_s = max(0.0, now - self._last_tick - 4 * TICK_S)
        self._last_tick = now
        over = self.live and self.options.seconds and now - self._live_at >= self.options.seconds
        if (self._quit or over) and self._stop_at is None:
            self.stopping, self._stop_at = True, now + STOP_S
        for child in self.crew.children.values():
            if not readable.isdisjoint(child.fds()):  # asking costs two system calls a child
                for command in child.receive():
                    self._heard(child, command)
                if (status := child.reap()) is not None:
                    self._died(child, status, now)
            child.flush()
            if (why := child.overdue(now, lateness_s)) is not None:
                log.warning("stage %r hangs (%s): killed", child.name, why)
                child.abort(now)
            child.kill_if_due(now)
            if child.restarts.breaker_open and child.state == "ready" and child.worked:
                child.restarts.worked()
        self.changes.step(now)
        self._go_when_ready(now)
        if self._stop_at is None:
            self.crew.start_due(now, self.changes.may_start)
        self.introductions.connect()
        self._ctl.turn(readable, now)
        if self._hung_up or (self._watch is not None and self._watch.edited(now)):
            self._hung_up = False
            self._orders.reload()
        living = {child.code: child.index for child in self.crew.children.values() if child.alive}
        self.accounts.count_if_due(now, living)
        sources = (c for c in self.crew.children.values() if c.spec.role == "source")
        if self.changes.settled and all(c.state == "ended" for c in sources):
            self.stopping = True
        if self.stopping:
            drain(self.crew, now, self._stop_at)
        if self._on_tick is not None:
            self._on_tick(self)

    def _finished(self) -> bool:
        return self.stopping and not any(
            child.alive or child.state == "waiting" for child in self.crew.children.values()
        )

    def _wait(self, wakeup: socket.socket) -> set[int]:
        """Until something can be read, or the next tick is due; returns the file descriptors."""
        fds = [wakeup.fileno(), *self._ctl.fds()]
        fds += [fd for child in self.crew.children.values() for fd in child.fds()]
        calm = not self.introductions.pending and all(
            child.state == "ready" and not child.dying and not child.behind
            for child in self.crew.children.values()
        )
        readable = _readable(fds, _CALM_TICK_S if calm else TICK_S)
        if wakeup.fileno() in readable:
            wakeup.recv(64)
        return readable

    # -- children ----------------------------------------------------------------------------------

    def _heard(self, child: Child, command: dict[str, Any]) -> None:
        if command["command"] == "quit":
            self.stop()
        elif command["command"] == "failed":
            child.failure = command["exit_code"], command["text"]
        elif command["command"] == "grown":
            child.grown(command["pool_epoch"])
        elif command["command"] == "left":
            self.changes.left(child, command["camera"])
        elif command["command"] == "turned":
            self.changes.turned(child, command["camera"])
        elif command["command"] == "offers":
            self.changes.offers.said(child)
        elif command["command"] == "held":
            self.changes.renewals.held(child, command["consumer"])
        elif command["command"] == "settled":
            name, code = command["dead"]
            self._tell_settled(self._settling.said(child.name, (name, code)))
        elif command["command"] == "forgot":
            name, epoch = command["pool"]
            self.introductions.passes_on_nothing(child.name, (name, epoch))
        elif command["command"] == "ready":
            child.about = command["about"]
            self._ready(child, command["turn_s"])

    def _ready(self, child: Child, turn_s: float) -> None:
        child.ready(turn_s)
        self.introductions.introduce(child)
        if child.spec.role == "source" and not self.paused.isdisjoint(child.spec.cameras):
            child.send("pause")
        if self.live:
            child.send("go")

    def _go_when_ready(self, now: float) -> None:
        """The sources read from now on, if everything is there; the last that was not may have left."""
        if not self.live and all(c.state == "ready" for c in self.crew.children.values()):
            self.live, self._live_at = True, now
            for child in self.crew.children.values():
                child.send("go")

    def _died(self, child: Child, status: int, now: float) -> None:
        was = child.state
        self._tell_settled(self._settling.died(child.name))
        self.introductions.passes_on_nothing(child.name)
        self._tell_gone(child)
        child.state = "ended"
        well = status == 0 and (child.drained or child.spec.role == "source")
        how = child.died_of(status)
        comes_back = self.changes.comes_back(child, how, well=well)
        over = self.changes.is_ending(child.name) or (well and not comes_back)
        if over:
            self.introductions.ended(child)
        else:
            self.introductions.died(child)
        child.release()
        if well:
            self.accounts.audit.ended(child.code)
        else:
            self.accounts.audit.died(child.code, now)
        if over:
            return
        if comes_back:
            child.state, child.restart_at = "waiting", now
            return
        if child.spec.role == "source":
            self.accounts.went_with_its_process(*child.spec.cameras)
        refused = child.failure is not None and child.failure[0] == ConfigError.exit_code
        ends_run = not self.live or (refused and self.options.strict)
        if child.failure is not None and ends_run and not child.is_late:
            raise _failure(*child.failure)
        if self._stop_at is not None:
            if was == "ready":
                log.warning("stage %r died: %s; the run ends without what it held", child.name, how)
            return
        delay_s = child.restarts.delay_s(
            now, worked=was == "ready" and child.worked, lived_s=child.lived_s(now)
        )
        needed = not self.live or self.options.strict or self.plan.policy == "every"
        if child.restarts.breaker_open and needed and not child.is_late:
            raise ManyeyesError(
                f"stage {child.name!r} died five times within a minute before its first frame"
                f"{': ' + child.failure[1] if child.failure else ''}; see its messages above"
            )
        log.warning("stage %r died: %s; restart in %.2f s", child.name, how, delay_s)
        child.state, child.restart_at = "waiting", now + delay_s

    def _tell_gone(self, child: Child) -> None:
        # one that is not ready was never fed by it
        readers = self.introductions.ready_ones(self.plan.readers_behind(child.name))
        for producer in self.introductions.ready_ones(self.plan.producers(child.name)):
            producer.send("gone", consumer=child.name, outlived=bool(readers))
        if readers:
            self._settling.begin((child.name, child.code), [reader.name for reader in readers])
        for reader in readers:
            reader.send("settle", dead=[child.name, child.code], sender=child.identity)

    def _tell_settled(self, dead: list[tuple[str, int]]) -> None:
        for name, code in dead:
            for producer in self.introductions.ready_ones(self.plan.producers(name)):
                producer.send("settled", code=code)

    # -- the end -----------------------------------------------------------------------------------

    def _end(self) -> None:
        for child in self.crew.children.values():
            child.signal(signal.SIGKILL)
        for child in self.crew.children.values():
            while child.alive and child.reap() is None:
                _readable([child.pidfd], 1.0)
        self.crew.close()
        self.accounts.close()


def _readable(fds: Iterable[int], timeout_s: float) -> set[int]:
    poller = select.poll()  # select() refuses descriptors from 1,024 on
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return {fd for fd, _ in poller.poll(1000 * timeout_s)}


def _failure(code: int, text: str) -> ManyeyesError:
    error = ConfigError(text) if code == ConfigError.exit_code else ManyeyesError(text)
    error.exit_code = code  # of this one error, as the child said
    return error
