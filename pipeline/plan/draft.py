"""A plan as it grows: processes and edges, added from the sources on, and how much each edge keeps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.accounts.states import FORGOTTEN
from pipeline.errors import ConfigError
from pipeline.host.machine import CHILD_ENVIRONMENT
from pipeline.plan.config import Config
from pipeline.plan.graph import UNDELIVERED, EdgeSpec, Overflow, ProcessSpec
from pipeline.plan.loading import build, stage_class
from pipeline.stage import Stage


@dataclass(frozen=True, kw_only=True)
class Depths:
    """How many messages of a camera an edge keeps, by policy."""

    frames: tuple[int, int] = (1, 1)  # credits, waiting
    view: tuple[int, int] = (3, 1)  # a frame waits in render for its result: two periods or more
    tensors: tuple[int, int] = (3, 1)  # in service, in the mailbox, and the one that replaces it
    outputs: tuple[int, int] = (2, 2)
    results: tuple[int, int] = (8, 32)
    pictures: tuple[int, int] = (1, 3)  # as many wait as render draws at once when a result comes
    overflow: Overflow = "drop"


def depths_of(policy: str, max_batch: int) -> Depths:
    """For a model that takes up to max_batch pictures at once."""
    if policy == "newest":
        return Depths()
    # many credits: messages that travel together share their wake-ups
    frames, tensors, outputs = (6, 6), (2 + max_batch, 4), (2, max_batch)
    in_flight = sum(frames + tensors + outputs) + 2
    return Depths(
        frames=frames,
        view=(in_flight, 1),  # the join waits for results, so it must hold what the model holds
        tensors=tensors,
        outputs=outputs,
        results=(in_flight, 8),
        pictures=(2, 2),
        overflow="wait",
    )


@dataclass(frozen=True, kw_only=True)
class PlannedSink:
    """A sink of the configuration."""

    name: str  # of its process
    run: str
    fields: dict[str, Any]
    way: int  # of its account in the ledger
    takes_frames: bool
    max_hz: float | None


@dataclass(kw_only=True)
class Draft:
    """The processes as they are added, from the sources on."""

    config: Config
    depths: Depths
    sinks: tuple[PlannedSink, ...]
    specs: dict[str, ProcessSpec] = field(default_factory=dict)

    @property
    def cameras(self) -> tuple[str, ...]:
        """All of the configuration, in its order."""
        return tuple(camera.name for camera in self.config.camera)

    @property
    def result_sinks(self) -> tuple[int, ...]:
        """What is behind the last stage on results, as ways of the ledger."""
        return tuple(sorted(sink.way for sink in self.sinks if not sink.takes_frames))

    def add(self, name: str, run: str, config: dict[str, Any], **fields: Any) -> None:
        """A process without outputs yet. Raises ConfigError for what its class refuses."""
        if name in self.specs:
            raise ConfigError(f"wiring: two processes have the name {name!r}; rename one")
        fields.setdefault("cameras", self.cameras)
        if run:
            cls = stage_class(run)
            part = build(run, config)
            cls.check(part.config)
            fields["slot_bytes"] = cls.slot_bytes(part.config, self._frame_bytes())
            remembers = getattr(cls, "save", Stage.save) is not Stage.save
            forgotten = (FORGOTTEN,) if remembers else ()
            fields["counters"] = (*cls.counters(part.config), *forgotten)
            fields["histograms"] = cls.histograms(part.config)
            fields["remembers"] = remembers
            fields["memory_bytes"] = cls.memory_bytes(part.config)
            fields["files"] = tuple(cls.files(part.config))
            fields["secrets"] = tuple(cls.secrets(part.config))
        environment = {**CHILD_ENVIRONMENT, **fields.pop("environment", {})}
        self.specs[name] = ProcessSpec(
            name=name, run=run, config=config, environment=environment, **fields
        )

    def edge(
        self,
        producer: str,
        consumer: str,
        depth: tuple[int, int],
        paths: tuple[int, ...],
        *,
        overflow: Overflow | None = None,
        max_hz: float | None = None,
        counted: bool = True,
    ) -> None:
        """From a process to another, for the cameras of both.

        counted: what is not delivered on an edge beside all paths is counted by its producer.
        """
        spec, reader = self.specs[producer], self.specs[consumer]
        edge = EdgeSpec(
            consumer=consumer,
            cameras=tuple(c for c in spec.cameras if c in reader.cameras),
            paths=paths,
            credits=depth[0],
            depth=depth[1],
            overflow=overflow or self.depths.overflow,
            max_hz=max_hz,
        )
        more = () if paths or not counted else (f"{UNDELIVERED}{consumer}",)
        counters = (*spec.counters, *more)
        self.specs[producer] = replace(spec, outputs=(*spec.outputs, edge), counters=counters)

    def reads(self, reader: str, *writers: str) -> None:
        """The reader maps the pools of these writers."""
        spec = self.specs[reader]
        self.specs[reader] = replace(spec, reads=tuple(dict.fromkeys((*spec.reads, *writers))))

    def sized(self) -> tuple[ProcessSpec, ...]:
        """All processes, with as many slots as their edges can keep and their calls can fill."""
        sized = []
        for spec in self.specs.values():
            slots = 0
            if spec.slot_bytes and spec.outputs:
                extra = max(3, 2 * int(spec.options.get("max_batch", 1)))
                slots = extra + sum(edge.slots for edge in spec.outputs)
            sized.append(replace(spec, slots=slots))
        return tuple(sized)

    def _frame_bytes(self) -> int:
        sources = [spec.slot_bytes for spec in self.specs.values() if spec.role == "source"]
        return max(sources, default=0)
