"""The orderly end of a run: from the sources on, each process ends when it has nothing left."""

from __future__ import annotations

import logging
import signal

from pipeline.supervision.child import Child
from pipeline.supervision.crew import Crew

log = logging.getLogger("manyeyes")

STOP_S = 4.5  # from a signal to the last SIGKILL; below the 5 s that we promise
_STAGES_STOP_S = 3.0  # then everything before the sinks is killed, so that files can be closed


def drain(crew: Crew, now_s: float, stop_at_s: float | None) -> None:
    """What can be done now; to be called in every turn. stop_at_s: when all has to be over, if ever."""
    for name in crew.plan.order():
        child = crew.children[name]
        if child.restarts.breaker_open and child.state == "waiting":
            log.warning(
                "stage %r keeps dying: the run ends without it, and what waits is lost", child.name
            )
            abandon(crew, child)
        over = all(crew.children[p].state == "ended" for p in crew.plan.producers(name))
        if over and child.state == "ready" and not child.drained:
            child.drained = True
            child.send("drain")
    if stop_at_s is None:
        return
    for child in crew.children.values():
        if child.state == "waiting":
            child.state = "ended"
        early = child.spec.role not in ("sink", "join")
        limit_s = stop_at_s - (STOP_S - _STAGES_STOP_S if early else 0)
        if child.alive and (now_s >= limit_s or child.state == "starting"):
            child.signal(signal.SIGKILL)


def abandon(crew: Crew, child: Child) -> None:
    """It keeps dying, and will not come back: what waits for it is lost, and so is what is to come."""
    child.state = "ended"
    for name in crew.plan.producers(child.name):
        crew.children[name].send("abandon", consumer=child.name)
