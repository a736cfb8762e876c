"""A fleet in fast time: the real controller and agents, with runs, a network and clocks that are none.

For tests of what machines, networks and controllers do at bad moments, and for `benchmarks/fleet.py`: an
hour of a hundred machines takes seconds. Everything follows from a seed.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.fleet.agent import Agent
from pipeline.fleet.controller import Controller, Superseded
from pipeline.fleet.leases import Fences, Orders, Report, Tenant
from pipeline.fleet.placement import Placed

REPORT_S, PATIENCE_S = 1.0, 1.0
_MAX_TURN_S = 1.5  # of an agent on a busy host; it reports between two turns, too
_MAX_KILL_S = 0.2  # from the end of a lease to the end of the last process


@dataclass
class SimulatedRun:
    """See `agent.Run`: takes a while to stop, and is killed when its lease is over."""

    machine: SimulatedMachine
    cameras: dict[str, int] = field(default_factory=dict)
    kill_at_s: float = 0.0
    stopped_at_s: float = float("inf")
    exit_code: int | None = None
    starts: int = 0
    leaving: dict[str, float] = field(default_factory=dict)  # camera → when it has left

    def start(self, cameras: Fences, tables: Mapping[str, Any], until_s: float) -> None:
        """At once."""
        self.cameras, self.exit_code, self.stopped_at_s = dict(cameras), None, float("inf")
        self.leaving = {}
        self.starts += 1
        self.extend(until_s)
        self.machine.world.check(self.machine.name, self.cameras)

    def extend(self, until_s: float) -> None:
        """By the clock of its machine."""
        self.kill_at_s = self.machine.true_s(until_s) + self.machine.world.random.uniform(
            0, _MAX_KILL_S
        )

    def change(self, cameras: Fences, tables: Mapping[str, Any]) -> bool:
        """Every second one can; who leaves takes a while."""
        if self.machine.world.random.random() < 0.5:
            return False
        leaving = {c: fence for c, fence in self.cameras.items() if c not in cameras}
        self.cameras = {**leaving, **cameras}
        self.leaving = dict.fromkeys(leaving, self.machine.world.now_s + 1.0)
        self.machine.world.check(self.machine.name, cameras)
        return True

    def stop(self) -> None:
        """Takes up to three seconds."""
        world = self.machine.world
        self.stopped_at_s = world.now_s + world.random.uniform(0.05, 3.0)

    def poll(self) -> int | None:
        """Ended in order, or killed."""
        if self.exit_code is None and not self.is_running:
            self.exit_code, self.cameras = 0 if self.stopped_at_s <= self.kill_at_s else -9, {}
        return self.exit_code

    @property
    def is_running(self) -> bool:
        """Whatever the agent knows of it."""
        end_s = min(self.kill_at_s, self.stopped_at_s)
        return bool(self.cameras) and self.machine.world.now_s < end_s

    def told(self) -> Mapping[str, Any]:
        """Half of the frames is lost on a machine that is too slow."""
        for camera, at_s in list(self.leaving.items()):
            if at_s <= self.machine.world.now_s:
                del self.leaving[camera], self.cameras[camera]
        rate = 100 if self.machine.serves else 50
        n = int(self.machine.world.now_s * rate)
        frames = {"state": "up", "captured": int(self.machine.world.now_s * 100), "delivered": n}
        return {"cameras": dict.fromkeys(self.cameras, frames)}


class SimulatedMachine:
    """A machine with its agent, a clock of its own, and a cable that can be pulled."""

    def __init__(self, name: str, world: World) -> None:
        self.name, self.world = name, world
        self.is_cut, self.is_up, self.serves = False, False, True
        self._offset_s = world.random.uniform(-1000, 1000)
        self._speed = 1 + world.random.uniform(-0.002, 0.002)
        self._sessions = 0
        self.run = SimulatedRun(self)
        self.agent = Agent(Tenant(name, ""), self.run, "simulated")

    def clock_s(self) -> float:
        """What its clock says now."""
        return self._offset_s + self.world.now_s * self._speed

    def true_s(self, clock_s: float) -> float:
        """When its clock says so."""
        return (clock_s - self._offset_s) / self._speed

    def begin(self) -> None:
        """The agent starts, for the first time or after it or its machine was killed."""
        self._sessions += 1
        self.is_up = True
        self.run = SimulatedRun(self)
        self.agent = Agent(
            Tenant(self.name, f"{self.name}.{self._sessions}"), self.run, "simulated"
        )
        self._turn(self._sessions)
        self._ask(self._sessions)

    def kill(self) -> None:
        """The machine is gone, and all that ran on it."""
        self.is_up = False
        self.run.kill_at_s = self.world.now_s

    def _turn(self, session: int) -> None:
        if self.is_up and session == self._sessions:
            self.agent.turn(self.clock_s())
            self.world.after(
                self.world.random.uniform(0.05, _MAX_TURN_S), lambda: self._turn(session)
            )

    def _ask(self, session: int) -> None:
        """One question at a time; an answer that takes too long is not heard."""
        if not self.is_up or session != self._sessions:
            return
        asked_s, late_s = self.clock_s(), self.world.now_s + PATIENCE_S

        def heard(orders: Orders) -> None:
            if self.is_up and session == self._sessions and self.world.now_s < late_s:
                self.agent.take(orders, asked_s)

        self.world.send(self, self.agent.report(asked_s), heard)
        self.world.after(REPORT_S, lambda: self._ask(session))


class World:
    """The machines of a fleet, its controller, and what lies between."""

    def __init__(self, fleet: Any, seed: int = 0, *, delay_s: float = 0.3) -> None:
        """delay_s: of a message at most, each way."""
        self.random = random.Random(seed)
        self.now_s = 0.0
        self.fleet, self._delay_s = fleet, delay_s
        self.controller: Controller | None = None
        self._kept = Placed()  # on the controller's disk
        self._term = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self.machines = {name: SimulatedMachine(name, self) for name in fleet.names}
        self.double: list[str] = []  # what must never be: two that run one camera
        self.sent: Counter[str] = Counter()

    def begin(self) -> None:
        """Everything starts."""
        self.begin_controller()
        for machine in self.machines.values():
            self.after(self.random.uniform(0, 1), machine.begin)

    def begin_controller(self) -> None:
        """A new one, that knows what lies on the disk."""
        self._term += 1
        self.controller = Controller(self.fleet, self._kept, term=self._term, now_s=self.now_s)
        self._tick(self.controller)

    def kill_controller(self) -> None:
        """It answers no more."""
        self.controller = None

    def _tick(self, controller: Controller) -> None:
        if controller is self.controller:
            controller.turn(self.now_s)
            self._kept = controller.placed
            self.after(1.0, lambda: self._tick(controller))

    def send(
        self, machine: SimulatedMachine, report: Report, heard: Callable[[Orders], None]
    ) -> None:
        """To whoever is the controller when it arrives; lost, if the cable is pulled then or now."""
        if machine.is_cut:
            return
        self.sent["reports"] += 1

        def arrived() -> None:
            if self.controller is None or machine.is_cut:
                return
            try:
                orders = self.controller.report(report, self.now_s)
            except Superseded:
                self.controller = None
                return
            self._kept = self.controller.placed
            self.after(self._lag_s(), lambda: None if machine.is_cut else heard(orders))

        self.after(self._lag_s(), arrived)

    def _lag_s(self) -> float:
        return self.random.uniform(0.001, self._delay_s)

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Let something happen."""
        self._sequence += 1
        heapq.heappush(self._events, (self.now_s + seconds, self._sequence, act))

    def go(self, seconds: float) -> None:
        """Let time pass."""
        end_s = self.now_s + seconds
        while self._events and self._events[0][0] <= end_s:
            self.now_s, _, act = heapq.heappop(self._events)
            act()
        self.now_s = end_s

    def check(self, machine: str, cameras: Mapping[str, int]) -> None:
        """A run begins: does another machine still run one of its cameras?"""
        for other in self.machines.values():
            if other.name != machine and other.run.is_running:
                self.double += [
                    f"{self.now_s:.2f} s: {camera}: {other.name} and {machine}"
                    for camera in other.run.cameras.keys() & cameras.keys()
                ]

    def served(self) -> dict[str, str]:
        """Camera → the machine that runs it at this moment."""
        return {
            camera: machine.name
            for machine in self.machines.values()
            if machine.run.is_running
            for camera in machine.run.cameras
        }
