"""Runs whose model misses nothing."""

from __future__ import annotations

from dataclasses import replace


def all_seeing(plan):
    """The plan with a postprocess that finds exactly what is there, whatever the model says.

    Its processes need parts.py: PYTHONPATH must be `patterns.PATH`.
    """
    known = {"run": "parts:KnownBoxes", "config": {}, "counters": ()}
    processes = [replace(p, **known) if p.name == "postprocess" else p for p in plan.processes]
    return replace(plan, processes=tuple(processes))
