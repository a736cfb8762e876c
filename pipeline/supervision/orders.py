"""What may be asked of a run while it runs, and what it answers.

An order is refused whole, with one sentence, before anything has changed, or it is done.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any, Protocol

from pipeline.accounts.books import Accounts
from pipeline.errors import ConfigError, ManyeyesError
from pipeline.plan import model_path
from pipeline.plan.detecting import COMPARE
from pipeline.plan.graph import Plan
from pipeline.plan.planner import Planner, Proposal
from pipeline.supervision.apply import Changes
from pipeline.supervision.child import Child
from pipeline.supervision.ctl import outlived

log = logging.getLogger("manyeyes")

Told = dict[str, Any]


class Run(Protocol):
    """What orders are about; the supervisor."""

    accounts: Accounts
    changes: Changes
    planner: Planner | None
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
            "plan": lambda asked: self._change(self._file(asked), is_asked_only=True),
            "apply": lambda asked: self._change(self._file(asked)),
            "add": lambda asked: self._change(self._added(asked)),
            "remove": lambda asked: self._change(self._removed(asked)),
            "swap": self._swap,
            "rollback": lambda _: self._change(self._planner.rollback(), keep=True),
        }

    def answer(self, asked: Told) -> Told:
        """Do what is asked. Raises ManyeyesError with what is wrong with it."""
        order = self._known.get(str(asked.get("do")))
        if order is None:
            raise ManyeyesError(
                f"ctl: this run knows {', '.join(self._known)}, not {asked.get('do')!r}"
            )
        return order(asked)

    def reload(self) -> None:
        """Apply the file of the run as it is now. If it can't be, say why, and go on as before."""
        planner = self._run.planner
        if planner is None or planner.file is None:
            return
        try:
            with outlived(planner.file.name):
                lines = self._change(planner.from_file(_regular(planner.file)))["lines"]
        except ManyeyesError as error:
            log.error("%s; the run goes on as it was", error)
            return
        log.info("%s: %s", planner.file.name, "; ".join(lines) or "nothing changes")

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
            "settled": run.changes.settled, "withdrawn": run.changes.withdrawn,
            "compared": self._compared(),
        }  # fmt: skip

    def _compared(self) -> dict[str, dict[str, dict[str, int]]]:
        """Of each camera that another model looks at, too: `frames`, and by kind and class what differs."""
        ledger, compared = self._run.accounts.ledger, {}
        for spec in self._run.plan.processes:
            if spec.run != COMPARE:
                continue
            for camera in spec.cameras:
                told: dict[str, dict[str, int]] = {}
                for name in ledger.layout.counters[spec.name]:
                    kind, _, label = name.partition(":")
                    if n := ledger.counted(spec.name, name, camera):
                        told.setdefault(kind, {})[label] = n
                compared[camera] = told
        return compared

    def _state(self, camera: str) -> str:
        if camera in self._run.changes.leaving:
            return "leaving"
        if camera not in self._run.plan.cameras:
            return "left"
        source = self._run.source_of(camera)
        if source.state == "ended":
            return "ended"
        if camera in self._run.paused:
            return "paused"
        ledger = self._run.accounts.ledger
        up = ledger["camera_up"][ledger.camera_index[camera]]
        return "up" if up and source.state == "ready" else "down"

    def _pause(self, asked: Told, *, paused: bool) -> Told:
        camera = self._camera(asked)
        if self._run.stopping:
            raise ManyeyesError("ctl: the run is stopping; there is nothing to change any more")
        self._run.pause(camera, paused=paused)
        return {"camera": camera, "state": self._state(camera)}

    # -- changes -----------------------------------------------------------------------------------

    def _change(
        self, proposal: Proposal, *, is_asked_only: bool = False, keep: bool = False
    ) -> Told:
        changes = self._run.changes
        difference = changes.check(proposal.plan)
        if difference and not is_asked_only:
            is_whole = changes.target is changes.good
            difference = changes.apply(proposal.plan, keep=keep)
            self._planner.accept(proposal, is_whole=is_whole)
        return {"lines": difference.lines()}

    def _file(self, asked: Told) -> Proposal:
        return self._planner.from_file(_regular(Path(str(asked.get("file")))))

    def _added(self, asked: Told) -> Proposal:
        if "file" in asked:
            return self._planner.with_file(_regular(Path(str(asked["file"]))))
        tables, folder = asked.get("cameras"), Path(str(asked.get("folder")))
        if not isinstance(tables, list):
            raise ManyeyesError("ctl: add wants a file, or a list of cameras and a folder")
        return self._planner.with_cameras(tables, folder)

    def _removed(self, asked: Told) -> Proposal:
        return self._planner.without(self._camera(asked))

    def _swap(self, asked: Told) -> Told:
        path = model_path.there(Path(str(asked.get("model"))), "ctl swap: model", Path("/"))
        names = asked.get("cameras", [])
        if not isinstance(names, list):
            raise ManyeyesError("ctl: swap wants a model, and a list of cameras")
        cameras = [self._camera({"camera": name}) for name in names]
        known = bool(asked.get("known_classes"))
        is_asked_only = bool(asked.get("is_asked_only"))
        if asked.get("is_shadow"):
            proposal = self._planner.with_shadow(path, cameras)
            told = self._change(proposal, is_asked_only=is_asked_only, keep=True)
            told["lines"].insert(0, f"{path.name} looks on, and `ctl status` says where it differs")
            return told
        proposal = self._planner.with_model(path, cameras, known=known)
        told = self._change(proposal, is_asked_only=is_asked_only, keep=True)
        if told["lines"]:
            told["lines"].insert(
                0, f"{path.name} is started and tested, then cameras go over to it"
            )
        return told

    def _camera(self, asked: Told) -> str:
        camera, known = str(asked.get("camera")), self._run.changes.target.cameras
        if camera not in known:
            near = difflib.get_close_matches(camera, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"ctl: there is no camera {camera!r}; {hint}")
        return camera

    @property
    def _planner(self) -> Planner:
        if self._run.planner is None:
            raise ManyeyesError("ctl: this run was made of no configuration; it can't be changed")
        return self._run.planner


def _regular(path: Path) -> Path:
    """This file. Raises ConfigError for a pipe, which the run would wait for."""
    if os.path.exists(path) and not os.path.isfile(path):  # these raise nothing
        raise ConfigError(f"{path}: is no file that the run can read; write it into one")
    return path
