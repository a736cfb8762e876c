"""The processes of a run, and the plan that they carry out: which there are, their memory, their starts."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

from pipeline.accounts.books import Accounts
from pipeline.accounts.layout import VIEW
from pipeline.errors import ResourceError
from pipeline.host.machine import cores
from pipeline.plan.difference import apart, with_settings
from pipeline.plan.graph import Plan, ProcessSpec, place_of_sink
from pipeline.supervision.child import Child, Pool
from pipeline.supervision.originals import Originals
from pipeline.supervision.rundir import RunDirectory

log = logging.getLogger("manyeyes")

_ORDER = {"batch": 0, "source": 2}  # by role: who is started first
_STARTS_A_CORE = 2
_START_S = 30.0  # one that loads for longer does not hold the others up


class Crew:
    """Of one run. `plan` and `children` are replaced, never changed: other threads read them."""

    def __init__(
        self, plan: Plan, accounts: Accounts, *, to_bgr: str | None, stderr: int | None
    ) -> None:
        """to_bgr, stderr: see supervisor.Options."""
        self.plan = plan  # what runs; a camera that leaves is in it until it is gone
        self.children = {s.name: Child(s, accounts.ledger, stderr) for s in plan.processes}
        self._accounts, self._to_bgr, self._stderr = accounts, to_bgr, stderr
        self._incarnations: dict[int, int] = {}  # row of a process that is gone: how many it had
        self._epochs = 0
        self._originals = Originals(())
        self._secrets: frozenset[str] = frozenset()  # of all plans so far, see `Plan.secrets`

    def begin(self, directory: RunDirectory) -> None:
        """Keep the files, make the memory; starts nobody. Raises ResourceError."""
        self._directory = directory
        self._originals.add(self.plan.files)
        for child in self.children.values():
            self._allocate(child)

    def close(self) -> None:
        """Let go of all memory. Nobody may live."""
        for child in self.children.values():
            child.release()
        self._originals.close()

    def endpoint(self, child: Child) -> str:
        """Where this incarnation of a process has its inbox."""
        return self._directory.endpoint(child.index, child.incarnation)

    # -- who there is ------------------------------------------------------------------------------

    def add(self, plan: Plan) -> None:
        """From now on `plan` runs, with more cameras and more processes, which `start_due` starts.

        Raises ResourceError, and then nothing has changed.
        """
        new = [spec for spec in plan.processes if spec.name not in self.children]
        self._originals.add(path for spec in new for path in spec.files)
        admitted: dict[str, Child | None] = {}
        try:
            for spec in new:
                self._accounts.admit(
                    spec.name, spec.counters, spec.histograms,
                    sink=place_of_sink(spec), remembers=spec.remembers,
                )  # fmt: skip
                admitted[spec.name] = None
                admitted[spec.name] = child = self._child(spec)
                self._allocate(child)
            for name in self.children:
                counters, histograms = plan.by_name[name].counters, plan.by_name[name].histograms
                if counters != self.plan.by_name[name].counters:
                    self._accounts.change(name, counters, histograms)
        except ResourceError:
            for name, child_or_none in admitted.items():
                if child_or_none is not None:
                    child_or_none.release()
                self._accounts.dismiss(name)
            raise
        for camera in plan.cameras:
            if camera not in self.plan.cameras:
                is_viewed = VIEW in plan.by_name[plan.sources[camera]].paths
                self._accounts.join(camera, is_viewed=is_viewed)
        born = {name: child for name, child in admitted.items() if child is not None}
        self.plan, self.children = plan, {**self.children, **born}

    def renew(self, name: str, plan: Plan) -> None:
        """From now on `plan` runs, with other settings for this process, which does not live now.

        Raises ResourceError, and then nothing has changed.
        """
        child, spec = self.children[name], plan.by_name[name]
        self._originals.add(spec.files)
        self._accounts.change(name, spec.counters, spec.histograms)
        child.spec, self.plan = with_settings(child.spec, spec), plan

    def drop(self, plan: Plan) -> None:
        """From now on `plan` runs; the processes that it has not have ended."""
        gone = [child for name, child in self.children.items() if name not in plan.by_name]
        kept = {name: child for name, child in self.children.items() if name in plan.by_name}
        for child in kept.values():
            child.spec = apart(child.spec, [other.spec for other in gone])
        self.plan, self.children = plan, kept
        for child in gone:
            self._incarnations[child.index] = child.incarnation + 1
            self._accounts.dismiss(child.name)

    def grow(self, child: Child) -> Pool | None:
        """More memory for a process, if it wants any. Raises ResourceError."""
        self._epochs += 1
        return child.grow(self._epochs)

    def _child(self, spec: ProcessSpec) -> Child:
        row = self._accounts.layout.processes[spec.name]
        first = self._incarnations.get(row, 0)
        return Child(spec, self._accounts.ledger, self._stderr, first_incarnation=first)

    def _allocate(self, child: Child) -> None:
        self._epochs += 1
        child.allocate(self._epochs)

    # -- starts ------------------------------------------------------------------------------------

    def start_due(self, now_s: float, may_start: Callable[[Child], bool]) -> None:
        """A few at a time: those that start together on busy cores are ready together, and late."""
        children = self.children.values()
        due = [c for c in children if c.state == "waiting" and now_s >= c.restart_at]
        if not due:
            return
        at_once = max(2, round(_STARTS_A_CORE * cores()))  # reads files: not in every turn
        busy = sum(c.state == "starting" and c.lived_s(now_s) < _START_S for c in children)
        # a model takes longest to load, and nobody waits for a camera before it is there
        due.sort(key=lambda child: _ORDER.get(child.spec.role, 1))
        for child in filter(may_start, due):
            if busy >= at_once:
                break
            busy += 1
            if child.is_new and not child.is_late:
                self._start(child)
            else:
                self._restart(child, now_s)

    def _start(self, child: Child) -> None:
        layout = self._accounts.layout.part(child.name, child.spec.cameras)
        first: dict[str, Any] = {
            "layout": dataclasses.asdict(layout),
            "policy": self.plan.policy,
            "endpoint": self._directory.endpoint(child.index, child.incarnation + 1),
            "to_bgr": self._to_bgr,
        }
        originals = self._originals.fds(child.spec.files)
        self._secrets |= self.plan.secrets  # a camera that has left is nobody's business, either
        # it is told the rest when it is ready, and reads
        child.start(first, self._accounts.fd, originals, without=self._secrets)

    def _restart(self, child: Child, now_s: float) -> None:
        try:
            self._originals.tell_changes(child.spec.files)
            self._allocate(child)
            self._start(child)
        except ResourceError as error:
            delay_s = child.restarts.delay_s(now_s, worked=False)
            child.restart_at = now_s + delay_s
            log.warning("no restart: %s; trying again in %.2f s", error, delay_s)
