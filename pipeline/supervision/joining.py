"""Processes get cameras, consumers and memory while a run goes on."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence, Set
from typing import Protocol

from pipeline.accounts.books import Accounts
from pipeline.plan.difference import joined
from pipeline.plan.graph import Plan
from pipeline.plan.offers import with_ways
from pipeline.supervision.child import Child
from pipeline.supervision.crew import Crew
from pipeline.supervision.introductions import Introductions

log = logging.getLogger("manyeyes")


class Run(Protocol):
    """Who there is at the moment; the supervisor."""

    accounts: Accounts
    crew: Crew
    introductions: Introductions


def join(run: Run, target: Plan, cameras: Set[str]) -> None:
    """These cameras of `target`, and all processes and edges of it that there are not.

    Raises ResourceError, and then nothing has changed.
    """
    plan = joined(run.crew.plan, target, cameras)
    if plan == run.crew.plan:
        return
    run.crew.add(plan)
    for name in reversed(plan.order()):
        added = [camera for camera in plan.by_name[name].cameras if camera in cameras]
        tell_joined(run, run.crew.children[name], added)
    for camera in sorted(cameras):
        log.info("camera %r joins", camera)


def tell_joined(
    run: Run, child: Child, cameras: Sequence[str], *, comes_over: bool = False
) -> None:
    """A process gets these cameras, and the edges that it has in the plan by now.

    comes_over: others have had the cameras until now.
    """
    spec = run.crew.plan.by_name[child.name].of({*child.spec.cameras, *cameras})
    spec = with_ways(spec, child.spec)
    known = {edge.consumer for edge in child.spec.outputs}
    is_new = bool(cameras) or not known.issuperset(edge.consumer for edge in spec.outputs)
    child.spec = spec
    if child.alive and is_new:
        rows = {camera: run.accounts.layout.cameras[camera] for camera in cameras}
        told = dataclasses.asdict(spec)
        layout = run.accounts.layout
        child.send(
            "join", cameras=rows, spec=told, comes_over=comes_over, sinks=layout.sinks,
            counters=layout.counters.get(child.name, {}),
        )  # fmt: skip
        consumers = (edge.consumer for edge in spec.outputs if edge.consumer not in known)
        run.introductions.acquaint(child, consumers)


def grow(run: Run) -> None:
    """Who writes more than before gets more memory. Raises ResourceError."""
    for child in run.crew.children.values():
        pool = run.crew.grow(child) if child.state == "ready" else None
        if pool is not None:
            run.introductions.grown(child, pool)
