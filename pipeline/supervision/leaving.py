"""A camera on its way out of the run, or of the processes that looked at it before others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.plan.graph import Plan
from pipeline.supervision.child import Child


@dataclass
class Leaving:
    """Of one camera. From the writers on, each process is asked to say when it has nothing of it left.

    Out of the run its source ends first. Where it goes over to others (`to`), its senders are told to send
    its frames there from now on, and say when all that they had sent before is DONE.
    """

    camera: str
    waiting: set[str]  # processes that have something of it, or may get it; and senders
    source: str = ""  # the process that has to end; "": it goes on
    senders: frozenset[str] = frozenset()
    waits: frozenset[str] = (
        frozenset()
    )  # senders whose next frames wait until earlier ones have arrived
    sinks: dict[str, tuple[int, int]] = field(
        default_factory=dict
    )  # that there are; as in the layout
    to: Plan | None = None
    told: dict[str, int] = field(default_factory=dict)  # process: incarnation that was asked

    def go_on(self, plan: Plan, children: Mapping[str, Child]) -> bool:
        """Ask who can be asked by now; plan: what runs. True: nobody has anything of it any more."""
        if self.source and children[self.source].state != "ended":
            return False
        for name in [*self.waiting]:
            child = children[name]
            if child.state == "ended":
                self.waiting.discard(name)
            elif child.state == "ready" and not self._is_fed(name, plan):
                self._ask(child)
        return not self.waiting

    def _ask(self, child: Child) -> None:
        """Once in its life."""
        if self.told.get(child.name) == child.incarnation:
            return
        self.told[child.name] = child.incarnation
        if child.name in self.senders:
            child.send(
                "turn", camera=self.camera, spec=dataclasses.asdict(child.spec), sinks=self.sinks,
                waits=child.name in self.waits,
            )  # fmt: skip
        else:
            child.send("leave", camera=self.camera)

    def _is_fed(self, name: str, plan: Plan) -> bool:
        """Whether one of its producers may still send something of this camera."""
        if name in self.senders:
            return False
        return any(
            before in self.senders
            or any(
                e.consumer == name and self.camera in e.cameras
                for e in plan.by_name[before].outputs
            )
            for before in plan.producers(name)
            if before in self.waiting
        )
