"""Lets frames be for other sinks than before, when all is ready for that, while a run goes on.

What `plan/offers` says a process has to know it is told here, and says that it knows it. Only then the ones
that end a path offer frames on the ways of sinks that came, and on those of sinks that go no more. A sink
that goes is fed until all that was offered to it has its fate.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Protocol

from pipeline.accounts.books import Accounts
from pipeline.plan.graph import Plan, ProcessSpec
from pipeline.plan.offers import is_offered, lingering, offering, with_sinks, with_ways
from pipeline.supervision.child import Child
from pipeline.supervision.crew import Crew
from pipeline.supervision.draining import abandon

log = logging.getLogger("manyeyes")


class Run(Protocol):
    """Who there is at the moment; the supervisor."""

    accounts: Accounts
    crew: Crew


class Offers:
    """Of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        # process: the incarnation that was told, and how often it has not said so yet
        self._asked: dict[str, tuple[int, int]] = {}

    def aim(self, target: Plan) -> Plan:
        """Where cameras are to go now: to `target`, and to sinks that still have to get something."""
        running, accounts = self._run.crew.plan, self._run.accounts
        staying = {
            name
            for name, way in lingering(running, target).items()
            if self._asked or is_offered(running, way) or accounts.waits_for(name)
        }
        return with_sinks(target, running, staying)

    def step(self, target: Plan, *, all_are_there: bool) -> None:
        """Tell who has to know more; all_are_there: every camera goes to all the sinks of `target`."""
        crew = self._run.crew
        self._give_up(target)
        self._asked = {n: asked for n, asked in self._asked.items() if self._is(n, asked[0])}
        is_ahead = not all_are_there or bool(self._asked)
        if (plan := offering(crew.plan, target, is_ahead=is_ahead)) != crew.plan:
            crew.plan = plan
        for name, child in crew.children.items():
            spec = with_ways(child.spec, crew.plan.by_name[name])
            if spec != child.spec:
                self._tell(child, spec)

    def said(self, child: Child) -> None:
        """A process says that it knows what it was told; it may have been told something else since."""
        incarnation, n = self._asked.pop(child.name, (child.incarnation, 0))
        if n > 1:
            self._asked[child.name] = incarnation, n - 1

    def pending(self, target: Plan) -> bool:
        """Whether frames are not yet offered as `target` has it."""
        plan = self._run.crew.plan
        return bool(self._asked) or offering(plan, target) != plan

    def _give_up(self, target: Plan) -> None:
        """On sinks that are to go, and keep dying: what they were promised is lost."""
        crew = self._run.crew
        for name in crew.plan.by_name.keys() - target.by_name.keys():
            child = crew.children[name]
            is_hopeless = child.restarts.breaker_open and child.state == "waiting"
            if is_hopeless and child.spec.role == "sink":
                log.warning("sink %r keeps dying, and goes: what waits for it is lost", name)
                abandon(crew, child)

    def _is(self, name: str, incarnation: int) -> bool:
        child = self._run.crew.children.get(name)
        return child is not None and child.alive and child.incarnation == incarnation

    def _tell(self, child: Child, spec: ProcessSpec) -> None:
        child.spec = spec
        if child.alive:
            incarnation, n = self._asked.get(child.name, (child.incarnation, 0))
            n = n if incarnation == child.incarnation else 0
            self._asked[child.name] = child.incarnation, n + 1
            sinks = self._run.accounts.layout.sinks
            child.send("offer", spec=dataclasses.asdict(spec), sinks=sinks)
