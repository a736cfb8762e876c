"""Gives processes other settings while a run goes on: one ends well, and starts anew with them.

Its producers send it nothing more, and keep what they have for it as they do while it is dead. When all
that they had sent is DONE it has nothing left, and ends. So nothing is lost, as long as they can keep it.

Whoever dies meanwhile is started as it is wanted by then, and a producer that comes back is asked again.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Set
from typing import Protocol

from pipeline.plan.difference import is_set, renewed
from pipeline.plan.graph import Plan
from pipeline.supervision.child import Child
from pipeline.supervision.crew import Crew

log = logging.getLogger("manyeyes")


class Run(Protocol):
    """Who there is at the moment; the supervisor."""

    crew: Crew


class Renewals:
    """Of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._asked: defaultdict[str, dict[str, int]] = defaultdict(dict)  # who was, by consumer
        self._held: defaultdict[str, dict[str, int]] = defaultdict(dict)  # and has said so
        self._young: set[str] = set()  # have their settings, and were not ready with them yet

    def step(self, target: Plan, going: Set[str]) -> None:
        """What can be done now. going: names whose processes end, to come as others.

        Raises ResourceError; what could not be done is tried again with the next call.
        """
        crew = self._run.crew
        young = self._young & crew.children.keys()
        self._young = {name for name in young if crew.children[name].state != "ready"}
        for name in self._asked.keys() - crew.children.keys():
            self._forget(name)
        for name in self.pending(target) - going:
            child, running = crew.children[name], crew.plan.by_name[name]
            wanted = target.by_name.get(name, running)
            if child.state == "waiting" and (name in self._asked or not is_set(running, wanted)):
                crew.renew(name, renewed(crew.plan, wanted))
                self._forget(name)
                self._young.add(name)
                log.info("stage %r starts anew, with other settings", name)
            elif child.state == "ready" and not child.drained:
                self._ask(child)

    def pending(self, target: Plan) -> set[str]:
        """Those that have not yet the settings that `target` has for them, or are not ready with them."""
        running, wanted = self._run.crew.plan.by_name, target.by_name
        others = {
            name
            for name, spec in running.items()
            if spec.role != "source" and name in wanted and not is_set(spec, wanted[name])
        }
        return others | (self._asked.keys() | self._young) & running.keys()

    def held(self, producer: Child, consumer: str) -> None:
        """A producer says that all is DONE that this consumer has got of it."""
        if self.is_renewed(consumer):
            self._held[consumer][producer.name] = producer.incarnation

    def is_renewed(self, name: str) -> bool:
        """Whether this process ends only to come back."""
        return name in self._asked

    def is_young(self, name: str) -> bool:
        """Whether it has other settings now, and was not ready with them yet."""
        return name in self._young

    def _forget(self, name: str) -> None:
        self._asked.pop(name, None)
        self._held.pop(name, None)

    def _ask(self, child: Child) -> None:
        """Its producers to send it nothing, and then itself to end."""
        crew, asked = self._run.crew, self._asked[child.name]
        child.is_closing = True
        producers = [
            p for n in self._feeders(child.name) if (p := crew.children[n]).state == "ready"
        ]
        for producer in producers:
            if asked.get(producer.name) != producer.incarnation:
                asked[producer.name] = producer.incarnation
                producer.send("hold", consumer=child.name)
        held = self._held[child.name]
        if all(held.get(producer.name) == producer.incarnation for producer in producers):
            child.drained = True
            child.send("drain", lets_go=False)  # its consumers may be replaced, too

    def _feeders(self, name: str) -> list[str]:
        """Who gives it what it has to account for. What only helps it, as results help render, still
        comes: it may wait for that. One that has no account gets nothing at all."""
        by_name = self._run.crew.plan.by_name
        producers = self._run.crew.plan.producers(name)
        accounted = [
            producer
            for producer in producers
            if any(edge.consumer == name and edge.paths for edge in by_name[producer].outputs)
        ]
        return accounted or [*producers]
