"""The graph of a run as one table: which process runs what, and who feeds whom.

    capture.<camera> ─► preprocess.<i> ─► batcher ─► inference.<j> ─► postprocess ─► render, sinks

A Plan is plain data, checked before any process starts; nothing runs that is not in it.
`standard.py` makes one from a configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

from pipeline.accounts.layout import DETECT, VIEW, Layout
from pipeline.errors import ConfigError
from pipeline.messages import Frame, Result, Tensor
from pipeline.plan.loading import signature

Role = Literal["source", "stage", "join", "batcher", "batch", "sink"]
Policy = Literal["newest", "every"]
UNDELIVERED = "undelivered:"  # counters of who feeds a consumer beside all paths
Overflow = Literal[
    "drop", "wait"
]  # of what waits for a consumer: the oldest goes, or its writer waits


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSpec:
    """From the process that lists it to `consumer`."""

    consumer: str
    cameras: tuple[str, ...]
    paths: tuple[int, ...]  # whose frames these are in the ledger; (): nobody's, they only help
    credits: int  # messages of a camera that may be under way
    depth: int  # messages of a camera that may wait for a credit
    overflow: Overflow
    max_hz: float | None = None  # frames a second and camera that the consumer wants at most

    @property
    def slots(self) -> int:
        """Slots that this edge can keep leased."""
        return len(self.cameras) * (self.credits + self.depth)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """One process: one stage over some cameras."""

    name: str
    role: Role
    run: str  # "package.module:Class"; the batcher has none
    config: dict[str, Any]
    cameras: tuple[str, ...]
    paths: tuple[int, ...]  # of what it takes in (a source: of what it gives)
    delivers: bool = False  # the paths end well with what this process returns
    in_order: bool = False  # several producers may give a camera's frames out of order
    works_ahead: bool = False  # before the batcher: while the model is at work, nobody waits for it
    outputs: tuple[EdgeSpec, ...] = ()
    reads: tuple[str, ...] = ()  # the writers whose pools it maps
    slots: int = 0  # of its own pool
    slot_bytes: int = 0
    memory_bytes: int = 24 << 20  # that it takes beside its pool and those it maps, about
    counters: tuple[str, ...] = ()
    histograms: tuple[str, ...] = ()  # names of durations that it measures
    remembers: bool = False  # its stage has a state, which outlives it
    options: dict[str, Any] = field(default_factory=dict)  # for the runner: max_fps, max_batch, …
    environment: dict[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()  # paths; a run keeps them as they were at its start
    secrets: tuple[str, ...] = ()  # names of environment variables that it alone may know

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> ProcessSpec:
        """Back from `dataclasses.asdict` and JSON, which knows no tuples."""
        edges = tuple(EdgeSpec(**_tuples(edge)) for edge in fields["outputs"])
        return cls(**{**_tuples(fields), "outputs": edges, "config": fields["config"]})

    def of(self, cameras: Set[str]) -> ProcessSpec:
        """The same for these cameras alone; its edges stay, and so does what it reads."""
        outputs = tuple(
            replace(edge, cameras=tuple(c for c in edge.cameras if c in cameras))
            for edge in self.outputs
        )
        beside_edges = self.slots - sum(edge.slots for edge in self.outputs)
        slots = beside_edges + sum(edge.slots for edge in outputs) if self.slots else 0
        mine = tuple(c for c in self.cameras if c in cameras)
        return replace(self, cameras=mine, outputs=outputs, slots=slots)


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}


def _by_second(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for first, second in pairs:
        found.setdefault(second, []).append(first)
    return {second: tuple(firsts) for second, firsts in found.items()}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole run. `check()` it before use."""

    cameras: tuple[str, ...]
    policy: Policy
    processes: tuple[ProcessSpec, ...]
    notes: tuple[str, ...] = ()  # what was chosen by itself, for the user to read
    spare: int = 0  # cameras that may join later

    @cached_property
    def by_name(self) -> dict[str, ProcessSpec]:
        """The processes by name."""
        return {process.name: process for process in self.processes}

    @cached_property
    def layout(self) -> Layout:
        """The ledger that this run needs."""
        return Layout.of(
            self.cameras,
            tuple(process.name for process in self.processes),
            {process.name: process.counters for process in self.processes if process.counters},
            has_view=any(VIEW in process.paths for process in self.processes),
            sinks={
                process.name: place
                for process in self.processes
                if (place := place_of_sink(process)) is not None
            },
            states=tuple(process.name for process in self.processes if process.remembers),
            histograms={
                process.name: process.histograms for process in self.processes if process.histograms
            },
            spare=self.spare,
        )

    @property
    def secrets(self) -> frozenset[str]:
        """Names of environment variables that no process starts with."""
        return frozenset(name for process in self.processes for name in process.secrets)

    @cached_property
    def sources(self) -> dict[str, str]:
        """Camera → the process that reads it."""
        return {
            camera: process.name
            for process in self.processes
            if process.role == "source"
            for camera in process.cameras
        }

    @cached_property
    def detectors(self) -> dict[str, str]:
        """Camera → the process with which its detect path ends."""
        return {
            camera: process.name
            for process in self.processes
            if process.delivers and DETECT in process.paths
            for camera in process.cameras
        }

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of files that are kept as they are at the start, each once."""
        return tuple(dict.fromkeys(path for process in self.processes for path in process.files))

    @property
    def pool_bytes(self) -> int:
        """Shared memory of all pools."""
        return sum(process.slots * process.slot_bytes for process in self.processes)

    def producers(self, name: str) -> tuple[str, ...]:
        """Who feeds a process."""
        return self._producers.get(name, ())

    def readers(self, name: str) -> tuple[str, ...]:
        """Who maps the pool of a process."""
        return self._readers.get(name, ())

    @cached_property
    def _producers(self) -> dict[str, tuple[str, ...]]:
        return _by_second((p.name, edge.consumer) for p in self.processes for edge in p.outputs)

    @cached_property
    def _readers(self) -> dict[str, tuple[str, ...]]:
        return _by_second((p.name, writer) for p in self.processes for writer in p.reads)

    def readers_behind(self, name: str) -> tuple[str, ...]:
        """Who reads slots that a process passed on without a pool of its own, as the batcher does."""
        producers = self.producers(name)
        return tuple(
            edge.consumer
            for edge in self.by_name[name].outputs
            if not set(self.by_name[edge.consumer].reads).isdisjoint(producers)
        )

    def order(self) -> list[str]:
        """All process names, every producer before its consumers."""
        return list(TopologicalSorter({n: self.producers(n) for n in self.by_name}).static_order())

    def check(self) -> None:
        """Raises ConfigError for a graph that can't run; never warns."""
        names = [process.name for process in self.processes]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigError(
                f"wiring: two processes have the name {sorted(twice)[0]!r}; rename one"
            )
        for process in self.processes:
            for edge in process.outputs:
                if edge.consumer not in self.by_name:
                    raise ConfigError(
                        f"wiring: {process.name!r} feeds {edge.consumer!r}, which does not exist"
                    )
            if process.role != "sink" and process.paths and not process.outputs:
                raise ConfigError(
                    f"wiring: nothing takes what {process.name!r} gives; "
                    "add a [[sink]], or make process() return None"
                )
        try:
            self.order()
        except CycleError as error:
            raise ConfigError(f"wiring: a circle: {' → '.join(error.args[1])}") from error
        self._check_types()
        self._check_memory()

    def check_room(self, layout: Layout) -> None:
        """Raises ConfigError if the ledger of a run has no room for this plan."""
        counters = sum(len(spec.counters) for spec in self.processes)
        histograms = sum(len(spec.histograms) for spec in self.processes)
        sinks = sum(place_of_sink(spec) is not None for spec in self.processes)
        states = sum(spec.remembers for spec in self.processes)
        wanted = len(self.cameras), len(self.processes), counters, histograms, sinks, states
        kinds = "cameras", "processes", "counters", "histograms", "sinks", "stages that remember"
        for what, n, room in zip(kinds, wanted, layout.room, strict=True):
            if n > room:
                raise ConfigError(
                    f"{n} {what}, and this run has room for {room} from its start; "
                    "stop it and start it again"
                )

    def _check_types(self) -> None:
        for process in self.processes:
            for edge in process.outputs:
                given, taken = gives(process), takes(self.by_name[edge.consumer])
                if given not in taken:
                    raise ConfigError(
                        f"wiring: {process.name!r} gives {given.__name__}, but {edge.consumer!r} takes "
                        f"{' and '.join(kind.__name__ for kind in taken)}; put a stage between them"
                    )

    def _check_memory(self) -> None:
        for process in self.processes:
            if process.slot_bytes or not process.outputs or process.role == "batcher":
                continue
            if (given := gives(process)) is not Result:
                raise ConfigError(
                    f"wiring: {process.name!r} gives {given.__name__}, whose pixels travel in shared "
                    "memory, but its slot_bytes() is 0; return the bytes of its largest result, such "
                    "as frame_bytes"
                )

    def text(self) -> str:
        """The table as text: one line an edge."""
        lines = [f"policy {self.policy}, cameras: {', '.join(self.cameras)}", ""]
        width = max(len(name) for name in self.by_name)
        for name in self.order():
            process = self.by_name[name]
            what = process.run or "newest frame of every camera, the longest waiting first"
            memory = process.slots * process.slot_bytes / 2**20
            pool = f"  [{process.slots} slots, {memory:.1f} MiB]" if process.slots else ""
            lines.append(f"{name:{width}}  {what}{pool}")
            for edge in process.outputs:
                limit = f", ≤ {edge.max_hz:g}/s" if edge.max_hz else ""
                full = "oldest goes" if edge.overflow == "drop" else "writer waits"
                lines.append(
                    f"{'':{width}}    ─► {edge.consumer}  "
                    f"(credits {edge.credits}, waiting {edge.depth}, full: {full}{limit})"
                )
        return "\n".join([*lines, *(("", *self.notes) if self.notes else ())])


def place_of_sink(process: ProcessSpec) -> tuple[int, int] | None:
    """Of a sink with an account: its way in the ledger, and the path behind whose end that is."""
    if process.role != "sink" or process.paths <= (VIEW,):
        return None
    return process.paths[-1], VIEW if Frame in takes(process) else DETECT


def takes(process: ProcessSpec) -> tuple[type, ...]:
    """The kinds of message that a process accepts."""
    if process.role == "source":
        return ()
    if process.role == "batcher":
        return (Tensor,)
    if process.role == "join":
        return (Frame, Result)
    return signature(process.run)[0]


def gives(process: ProcessSpec) -> type:
    """The kind of message that a process sends on."""
    if process.role == "source":
        return Frame
    if process.role == "batcher":
        return Tensor
    given = signature(process.run)[1]
    if given is None:
        raise ConfigError(
            f"wiring: {process.name!r} gives nothing, yet something is wired behind it"
        )
    return given
