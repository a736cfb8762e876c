"""Processes get cameras, consumers and memory while a run goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from pipeline.accounts.books import Accounts
from pipeline.supervision.child import Child
from pipeline.supervision.crew import Crew
from pipeline.supervision.introductions import Introductions


class Run(Protocol):
    """Who there is at the moment; the supervisor."""

    accounts: Accounts
    crew: Crew
    introductions: Introductions


def tell_joined(
    run: Run, child: Child, cameras: Sequence[str], *, comes_over: bool = False
) -> None:
    """A process gets these cameras, and the edges that it has in the plan by now.

    comes_over: others have had the cameras until now.
    """
    spec = run.crew.plan.by_name[child.name].of({*child.spec.cameras, *cameras})
    known = {edge.consumer for edge in child.spec.outputs}
    is_new = bool(cameras) or not known.issuperset(edge.consumer for edge in spec.outputs)
    child.spec = spec
    if child.alive and is_new:
        rows = {camera: run.accounts.layout.cameras[camera] for camera in cameras}
        told = dataclasses.asdict(spec)
        child.send("join", cameras=rows, spec=told, comes_over=comes_over)
        consumers = (edge.consumer for edge in spec.outputs if edge.consumer not in known)
        run.introductions.acquaint(child, consumers)


def grow(run: Run) -> None:
    """Who writes more than before gets more memory. Raises ResourceError."""
    for child in run.crew.children.values():
        pool = run.crew.grow(child) if child.state == "ready" else None
        if pool is not None:
            run.introductions.grown(child, pool)
