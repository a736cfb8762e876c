"""What may be asked of a run while it runs, and what it answers: status, pause, resume.

An order is refused whole, with one sentence, before anything has changed, or it is done.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Set
from typing import Any, Protocol

from pipeline.accounts.books import Accounts
from pipeline.errors import ConfigError, ManyeyesError
from pipeline.plan.graph import Plan
from pipeline.supervision.child import Child

Told = dict[str, Any]


class Run(Protocol):
    """What orders are about; the supervisor."""

    accounts: Accounts
    live: bool
    stopping: bool

    @property
    def plan(self) -> Plan:
        """What runs."""

    @property
    def children(self) -> Mapping[str, Child]:
        """Its processes by name."""

    @property
    def paused(self) -> Set[str]:
        """Cameras that nobody reads."""

    def pause(self, camera: str, *, paused: bool) -> None:
        """Pause a camera, or resume it."""

    def source_of(self, camera: str) -> Child:
        """The process that reads a camera."""


class Orders:
    """Of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._known: dict[str, Callable[[Told], Told]] = {
            "status": lambda _: self.status(),
            "pause": lambda asked: self._pause(asked, paused=True),
            "resume": lambda asked: self._pause(asked, paused=False),
        }

    def answer(self, asked: Told) -> Told:
        """Do what is asked. Raises ManyeyesError with what is wrong with it."""
        order = self._known.get(str(asked.get("do")))
        if order is None:
            raise ManyeyesError(
                f"ctl: this run knows {', '.join(self._known)}, not {asked.get('do')!r}"
            )
        return order(asked)

    def status(self) -> Told:
        """Cameras, stages and sinks, as of the last quarter of a second."""
        run = self._run
        cameras = {
            camera: {
                "state": self._state(camera),
                "captured": totals.captured,
                "delivered": totals.delivered,
                "in_flight": totals.in_flight,
                "dropped": {why: n for why, n in totals.dropped.items() if n},
            }
            for (camera, path), totals in run.accounts.totals.items()
            if path == "detect"
        }
        sinks = {
            name: {
                "offered": sum(one.captured for one in accounts),
                "taken": sum(one.delivered for one in accounts),
                "lost": sum(one.lost for one in accounts),
            }
            for name, accounts in run.accounts.of_sinks().items()
        }
        stages = {
            child.name: {"state": child.state, "pid": child.pid, "restarts": child.restarts.count}
            for child in run.children.values()
        }
        state = "stopping" if run.stopping else "running" if run.live else "starting"
        return {
            "state": state, "pid": os.getpid(), "cameras": cameras, "sinks": sinks, "stages": stages,
        }  # fmt: skip

    def _state(self, camera: str) -> str:
        source = self._run.source_of(camera)
        if source.state == "ended":
            return "ended"
        if camera in self._run.paused:
            return "paused"
        ledger = self._run.accounts.ledger
        up = ledger["camera_up"][ledger.camera_index[camera]]
        return "up" if up and source.state == "ready" else "down"

    def _pause(self, asked: Told, *, paused: bool) -> Told:
        camera, known = asked.get("camera"), self._run.plan.cameras
        if camera not in known:
            near = difflib.get_close_matches(str(camera), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"ctl: there is no camera {camera!r}; {hint}")
        if self._run.stopping:
            raise ManyeyesError("ctl: the run is stopping; there is nothing to change any more")
        self._run.pause(camera, paused=paused)
        return {"camera": camera, "state": self._state(camera)}
