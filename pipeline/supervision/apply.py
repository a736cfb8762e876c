"""Makes what runs into the plan that is wanted, while it runs.

A plan is wanted whole, or refused whole. What it takes is looked at anew in every turn, so that it does
not matter who dies in between: a camera that runs and is not wanted (so) leaves, one that is wanted and
does not run joins.

    join    rows in the ledger and a process of its own; readers hear of it before any writer can
    leave   its process ends; then, from the writers on, each process says when it has nothing of it left
    renew   a stage with other settings ends when it has nothing left, and starts anew with them
    swap    the processes of the other model start without a camera; when all are ready, cameras go over
            between two frames. If one of them dies before, the plan that ran is wanted again
    stages  and sinks that come or go are swapped in the same way; see offers.py for who gets which frames

A process that dies meanwhile is started as it has to be by then: one that had not yet said that it has
nothing left of a camera comes back with it, and is asked again.
"""

from __future__ import annotations

import logging
import signal
import time
from typing import Protocol

from pipeline.accounts.books import Accounts
from pipeline.errors import ManyeyesError, ResourceError
from pipeline.plan.difference import (
    Difference,
    beside,
    between,
    differs,
    is_same,
    is_set,
    may_move,
    moved,
    moving,
    rearranged,
    turns,
    wired,
    without,
)
from pipeline.plan.graph import Plan
from pipeline.plan.offers import with_ways
from pipeline.plan.planner import Planner
from pipeline.supervision.child import Child
from pipeline.supervision.crew import Crew
from pipeline.supervision.ctl import outlived
from pipeline.supervision.introductions import Introductions
from pipeline.supervision.joining import grow, join, tell_joined
from pipeline.supervision.leaving import Leaving
from pipeline.supervision.needs import Needs
from pipeline.supervision.offers import Offers
from pipeline.supervision.renewals import Renewals

log = logging.getLogger("manyeyes")

_AGAIN_S = 1.0  # after what the host refused
KEEP_S = 60.0  # that the processes of the model before wait for a way back


class Run(Protocol):
    """What is changed; the supervisor."""

    accounts: Accounts
    crew: Crew
    introductions: Introductions
    planner: Planner | None
    paused: set[str]
    stopping: bool


class Changes:
    """Of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.target = run.crew.plan
        self._leaving: dict[str, Leaving] = {}
        self._ending: set[str] = set()  # processes that are to end, and not to come back
        self._settled = True  # what runs is what is wanted
        self._again_at = self._wrong_until = 0.0
        self.withdrawn: str | None = None  # why the last change was
        self.good = self.target  # what ran last whole: before the changes that are under way
        self._kept: frozenset[str] = frozenset()  # ready, and without a camera
        self._kept_until = 0.0
        self.renewals = Renewals(run)
        self.offers = Offers(run)
        self._aim = self.target  # the same, and sinks that still have to get something
        self._stale: set[str] = set()  # have to go first: others of their names are wanted

    @property
    def leaving(self) -> frozenset[str]:
        """Cameras that are on their way out of the run."""
        return frozenset(camera for camera, one in self._leaving.items() if one.to is None)

    @property
    def settled(self) -> bool:
        """What runs is what is wanted."""
        return self._settled

    def check(self, target: Plan) -> Difference:
        """What `apply` would do. Raises ConfigError or ResourceError if it would refuse."""
        target.check()
        difference = between(self.target, target)
        target.check_room(self._run.accounts.layout)
        if difference:
            running = self._run.crew.plan
            # what is new starts beside all that runs
            everything = beside(running, target)
            for most in (target, everything):
                Needs.between(running, most).check()
        return difference

    def apply(self, target: Plan, *, keep: bool = False) -> Difference:
        """Want this plan from now on; returns at once. Raises as `check`, and then nothing has changed.

        keep: processes that it has not are kept for `KEEP_S`, so that the way back is short.
        """
        if self._run.stopping:
            raise ManyeyesError("ctl: the run is stopping; there is nothing to change any more")
        difference = self.check(target)
        before = self.target, self._kept, self._stale
        roles = {name: spec.role for name, spec in self.target.by_name.items()}
        stops = (name for name in difference.stops if roles[name] not in ("source", "sink"))
        self.target, self._stale = target, self._stale | self._stale_for(target)
        self._kept = frozenset(stops) if keep else frozenset()
        try:
            self._aim = self.offers.aim(target)
            self._join()
        except Exception:
            self.target, self._kept, self._stale = before
            raise
        self._settled, self.withdrawn = False, None
        self.step(time.monotonic())  # a camera may go back at once to what is warm
        return difference

    def comes_back(self, child: Child, how: str, *, well: bool) -> bool:
        """One has ended; whether that was to be, or of settings that it gets no more: it is started at
        once, as it is wanted by then."""
        if self.is_ending(child.name):
            return False
        return self.renewals.is_renewed(child.name) if well else self.withdraw(child, how)

    def withdraw(self, child: Child, how: str) -> bool:
        """One has died: if it was not ready yet to take over from others, or with other settings, all
        goes on as before."""
        running, name = self._run.crew.plan.by_name, child.name
        is_next = (
            name in self.target.by_name
            and name not in self.good.by_name
            and child.spec.role != "source"
            and not running[name].cameras
        )
        if self._settled or not (is_next or self._is_refused(child)):
            return False
        self.withdrawn = f"withdrawn, and all goes on as before: stage {name!r} died: {how}"
        log.error("the change is %s", self.withdrawn)
        if is_next:
            self._ending.add(name)
        self._stale |= self._stale_for(self.good)
        self.target, self._kept = self.good, frozenset()
        if self._run.planner is not None:
            self._run.planner.withdraw()
        return True

    def _is_refused(self, child: Child) -> bool:
        """Whether it has settings that it has not come to run with, and had others with which it did."""
        before = self.good.by_name.get(child.name)
        return (
            self.renewals.is_young(child.name)
            and before is not None
            and not is_set(child.spec, before)
        )

    def _stale_for(self, target: Plan) -> set[str]:
        """What still runs and was not wanted until now, and can't be what `target` wants of that name."""
        running = self._run.crew.plan.by_name
        back = (running.keys() & target.by_name.keys()) - self.target.by_name.keys()
        names = {name for name in back if running[name].role != "source"}
        stale: set[str] = set()
        for chain in wired(self._run.crew.plan, names):
            other = {name for name in chain if not is_same(running[name], target.by_name[name])}
            if other or chain & self._ending:
                # one alone would not find those it was wired to; who has cameras goes on with them
                stale |= other | {name for name in chain if not running[name].cameras}
        return stale

    def step(self, now_s: float) -> None:
        """What can be done now; to be called in every turn of the supervisor. Raises nothing."""
        if now_s < self._wrong_until:
            return
        try:
            with outlived("the change"):
                self._step(now_s)
        except ManyeyesError as error:
            log.error("%s; trying again", error)
            self._wrong_until = now_s + _AGAIN_S

    def _step(self, now_s: float) -> None:
        if self._settled and self._kept and now_s >= self._kept_until:
            self._kept, self._settled = frozenset(), False
        run = self._run
        if self._settled or run.stopping:
            return
        self._aim = self.offers.aim(self.target)
        self.offers.step(self.target, all_are_there=self._all_are_there())
        self._begin_to_leave()
        self._begin_to_move()
        for camera, leaving in list(self._leaving.items()):
            if leaving.go_on(run.crew.plan, run.crew.children):
                self._gone(camera, leaving)
        self._end_unused()
        if now_s >= self._again_at:
            try:
                self.renewals.step(self.target, self._going())
                self._join()
                grow(run)
            except ResourceError as error:
                log.warning("%s; trying again", error)
                self._again_at = now_s + _AGAIN_S
        self._settled, self._kept_until = self._is_settled(), now_s + KEEP_S
        if self._settled:
            self.good = self.target

    def left(self, child: Child, camera: str) -> None:
        """A process says that it has nothing of a camera any more."""
        if camera in self._leaving:
            self._leaving[camera].waiting.discard(child.name)
            child.spec = child.spec.of({*child.spec.cameras} - {camera})

    def turned(self, child: Child, camera: str) -> None:
        """A process says that all it had sent of a camera to who had it before is DONE."""
        if camera in self._leaving:
            self._leaving[camera].waiting.discard(child.name)

    def is_ending(self, name: str) -> bool:
        """Whether this process is not to come back."""
        return name in self._ending

    def may_start(self, child: Child) -> bool:
        """Whether a camera may be read: every process was told of it, as far as it can be told now."""
        if child.spec.role != "source" or self._settled:
            return True
        return not any(other.behind for other in self._run.crew.children.values())

    # -- leaving -----------------------------------------------------------------------------------

    def _begin_to_leave(self) -> None:
        run = self._run
        for camera in run.crew.plan.cameras:
            if camera in self._leaving or not self._is_to_leave(camera):
                continue
            name = run.crew.plan.sources[camera]
            others = {
                s.name for s in run.crew.plan.processes if camera in s.cameras and s.name != name
            }
            self._leaving[camera] = Leaving(camera, others, source=name)
            if camera not in self.target.cameras:
                run.paused.discard(camera)
            self._end(run.crew.children[name])

    def _is_to_leave(self, camera: str) -> bool:
        """It is not wanted, or has to be read in another way, and all that it needs then is ready."""
        running, target = self._run.crew.plan, self._aim
        if camera not in target.cameras:
            return True
        if any(camera in running.by_name[name].cameras for name in self._going()):
            return True
        is_other = differs(running, target, camera) and not may_move(running, target, camera)
        return is_other and self._is_awaited(camera)

    def _is_awaited(self, camera: str) -> bool:
        """All that it needs in the plan that is wanted is ready, and as it is wanted: a sink has to know
        the classes of a model before the first result of it."""
        processes = self.target.processes
        needed = [s.name for s in processes if camera in s.cameras and s.role != "source"]
        ready = self._run.introductions.ready_ones(needed)
        unfit = self._going() | self.renewals.pending(self.target)
        return len(ready) == len(needed) and unfit.isdisjoint(needed)

    def _begin_to_move(self) -> None:
        """Cameras go over to processes that are ready; who sends their frames hears of it last."""
        run, target = self._run, self._aim
        for camera in target.cameras:
            running = run.crew.plan
            if camera not in running.cameras or camera in self._leaving:
                continue
            if not differs(running, target, camera) or not self._is_awaited(camera):
                continue
            at = {s.name for s in running.processes if camera in s.cameras}
            to = {s.name for s in target.processes if camera in s.cameras}
            senders = turns(running, target, camera)
            run.crew.add(moving(running, target, camera))
            for name in reversed(run.crew.plan.order()):
                if name in to - at:
                    tell_joined(run, run.crew.children[name], [camera], comes_over=True)
            for name in senders:
                child = run.crew.children[name]
                spec = run.crew.plan.by_name[name].of({*child.spec.cameras})
                child.spec = with_ways(spec, child.spec)
            self._leaving[camera] = Leaving(
                camera,
                (at - to) | senders,
                senders=senders,
                waits=rearranged(running, target, camera),
                sinks=run.accounts.layout.sinks,
                to=target,
            )

    def _all_are_there(self) -> bool:
        """Every camera that is here goes to all that it is to go to."""
        running = self._run.crew.plan
        here = (camera for camera in self._aim.cameras if camera in running.cameras)
        return not self._leaving and not any(differs(running, self._aim, c) for c in here)

    def _gone(self, camera: str, leaving: Leaving) -> None:
        del self._leaving[camera]
        if leaving.to is not None:
            self._run.crew.drop(moved(self._run.crew.plan, leaving.to, camera))
            return
        self._ending.discard(leaving.source)
        self._run.crew.drop(without(self._run.crew.plan, camera, [leaving.source]))
        self._run.accounts.leave(camera)
        log.info("camera %r has left", camera)

    def _end_unused(self) -> None:
        """Processes that nobody wants any more, once their cameras have left; the writers first."""
        run = self._run
        unused = {
            name
            for name, spec in run.crew.plan.by_name.items()
            if spec.role != "source" and not self._is_to_stay(name)
        }
        for names in wired(run.crew.plan, unused):  # one chain does not wait for another
            if any(run.crew.plan.by_name[name].cameras for name in names):
                continue
            for name in names - self._ending:
                before = names & {*run.crew.plan.producers(name)}  # others have nothing for it
                if all(run.crew.children[p].state == "ended" for p in before):
                    self._end(run.crew.children[name])
            if all(run.crew.children[name].state == "ended" for name in names):
                self._ending -= names
                self._stale -= names
                run.crew.drop(without(run.crew.plan, processes=names))

    def _going(self) -> set[str]:
        """Processes on their way out, and others of their names are wanted."""
        names = (self._ending | self._stale) & self.target.by_name.keys()
        return {name for name in names if self.target.by_name[name].role != "source"}

    def _is_to_stay(self, name: str) -> bool:
        if name in self._ending or name in self._stale:
            return False  # one of the same name may come after it
        return name in self._aim.by_name or name in self._kept

    def _end(self, child: Child) -> None:
        self._ending.add(child.name)
        if child.state == "waiting":
            child.state = "ended"
            self._run.introductions.ended(child)
            child.release()
        elif child.state == "starting":
            child.signal(signal.SIGKILL)
        elif child.state == "ready" and not child.drained:
            child.drained = True
            child.send("drain", lets_go=False)  # its consumers may be replaced, too

    # -- joining -----------------------------------------------------------------------------------

    def _join(self) -> None:
        """Those whose place is free. Raises ResourceError, and then nothing has changed."""
        run = self._run
        cameras = {
            camera
            for camera in self.target.cameras
            if camera not in run.crew.plan.cameras and not run.accounts.has_account(camera)
        }
        if len(cameras) > run.accounts.rows_left or self._going():
            return
        if self._aim is not self.target:  # frames are offered to a sink that knows no new camera
            cameras = set()
        join(run, self.target, cameras)

    def _is_settled(self) -> bool:
        run = self._run
        return (
            not self._leaving
            and self._aim is self.target
            and not self.offers.pending(self.target)
            and not self._going()
            and {*run.crew.plan.cameras} == {*self.target.cameras}
            and run.crew.plan.by_name.keys() - self._kept == self.target.by_name.keys()
            and not self.renewals.pending(self.target)
            and not any(differs(run.crew.plan, self.target, c) for c in self.target.cameras)
            and not any(
                c.wants_memory and c.state in ("starting", "ready")
                for c in run.crew.children.values()
            )
            and all(c.state != "waiting" or not c.is_new for c in run.crew.children.values())
        )
