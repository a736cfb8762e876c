"""From a configuration to a plan: the standard graph, the stages of others in it, and its sizes.

Sources, stages and sinks are known here by name only; their classes tell how large their results are,
what they count, and what is wrong with their configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.config import CameraConfig, Config, SinkConfig, StageConfig
from pipeline.delivery import Overflow
from pipeline.errors import ConfigError
from pipeline.fields import check_fields
from pipeline.host import CHILD_ENVIRONMENT
from pipeline.ledger import DETECT, VIEW
from pipeline.messages import Frame, Result
from pipeline.runner import build
from pipeline.sizing import largest_batch, workers_for
from pipeline.speed import recall
from pipeline.wiring import EdgeSpec, Plan, ProcessSpec, load, signature

SOURCE_FOR = "stages.capture.choose:source_for"
READ_FACTS = "stages.detector.bundle:read_facts"
PREPROCESS = "stages.preprocess:Preprocess"
INFERENCE = "stages.inference:Inference"
POSTPROCESS = "stages.postprocess:Postprocess"
RENDER = "stages.render:Render"
SINKS = {
    "events": "stages.sinks.events:Events",
    "video": "stages.sinks.video:Video",
    "snapshot": "stages.sinks.snapshot:Snapshot",
    "window": "stages.sinks.window:Window",
    "null": "stages.sinks.null:Null",
}


@dataclass(frozen=True, kw_only=True)
class _Depths:
    """How many messages of a camera an edge keeps, by policy."""

    frames: tuple[int, int] = (1, 1)  # credits, waiting
    view: tuple[int, int] = (3, 1)  # a frame waits in render for its result: two periods or more
    tensors: tuple[int, int] = (3, 1)  # in service, in the mailbox, and the one that replaces it
    outputs: tuple[int, int] = (2, 2)
    results: tuple[int, int] = (8, 32)
    pictures: tuple[int, int] = (1, 2)  # drawn ones, to the sinks
    overflow: Overflow = "drop"


def _depths(policy: str, max_batch: int) -> _Depths:
    if policy == "newest":
        return _Depths()
    # many credits: messages that travel together share their wake-ups
    frames, tensors, outputs = (6, 6), (2 + max_batch, 4), (2, max_batch)
    in_flight = sum(frames + tensors + outputs) + 2
    return _Depths(
        frames=frames,
        view=(in_flight, 1),  # the join waits for results, so it must hold what the model holds
        tensors=tensors,
        outputs=outputs,
        results=(in_flight, 8),
        pictures=(2, 2),
        overflow="wait",
    )


@dataclass(kw_only=True)
class _Draft:
    """The processes as they are added, from the sources on."""

    config: Config
    depths: _Depths
    specs: dict[str, ProcessSpec] = field(default_factory=dict)

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(camera.name for camera in self.config.camera)

    def add(self, name: str, run: str, config: dict[str, Any], **fields: Any) -> None:
        """A process without outputs yet. Raises ConfigError for what its class refuses."""
        if name in self.specs:
            raise ConfigError(f"wiring: two processes have the name {name!r}; rename one")
        fields.setdefault("cameras", self.cameras)
        if run:
            cls = load(run)
            part = build(run, config)
            cls.check(part.config)
            fields["slot_bytes"] = cls.slot_bytes(part.config, self._frame_bytes())
            fields["counters"] = tuple(cls.counters(part.config))
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
    ) -> None:
        """From a process to another, for the cameras of both."""
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
        counters = spec.counters if paths else (*spec.counters, f"undelivered:{consumer}")
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


def make(config: Config) -> Plan:
    """The plan of a run. Starts nothing, loads no model. Raises ConfigError."""
    facts = load(READ_FACTS)(config.model.path)
    speed = None if config.model.engine == "stub" else recall(str(config.model.path))
    measured = speed.of(str(config.model.path), config.model.precision) if speed else ()
    workers, threads, note = workers_for(config, measured)
    max_batch = config.model.max_batch or largest_batch(config, facts)
    draft = _Draft(config=config, depths=_depths(config.run.policy, max_batch))
    sinks = [_sink(sink, tuple(facts.classes)) for sink in config.sink]
    view_hz = _view_hz(sinks)

    for camera in config.camera:
        with _at(f"camera {camera.name!r}"):
            _add_camera(draft, camera, viewed=view_hz is not None)
    sources = tuple(draft.specs)
    detect, view = sources, sources
    for stage in (stage for stage in config.stage if stage.after == "capture"):
        detect, view = _insert_frames(draft, stage, detect, view, viewed=view_hz is not None)
    _add_detector(draft, detect, facts, max_batch, workers, threads)
    last = "postprocess"
    for stage in (stage for stage in config.stage if stage.after == "postprocess"):
        last = _insert_results(draft, stage, last)
    if view_hz is not None:
        _add_render(draft, view, last, tuple(facts.classes), view_hz or None)
    for name, run, fields in sinks:
        _add_sink(draft, name, run, fields, last)
    if not sinks:  # the results still have to end somewhere
        _add_sink(draft, "sink.null", SINKS["null"], {}, last)
    return Plan(
        cameras=draft.cameras,
        policy=config.run.policy,
        processes=draft.sized(),
        notes=(note, f"batches of up to {max_batch}, whatever waits, without a timer"),
    )


@contextmanager
def _at(where: str) -> Iterator[None]:
    """What goes wrong inside is said with its place in the configuration."""
    try:
        yield
    except ConfigError as error:
        raise type(error)(f"{where}: {error}") from error


# -- the graph -------------------------------------------------------------------------------------


def _add_camera(draft: _Draft, camera: CameraConfig, *, viewed: bool) -> None:
    run, _ = load(SOURCE_FOR)(camera.source, reader=camera.reader)
    realtime = camera.realtime
    if realtime is None and "realtime" in load(run).Config.__dataclass_fields__:
        realtime = draft.config.run.policy == "newest"
    options = {
        "max_size": camera.max_size,
        "loop": camera.loop or None,
        "realtime": realtime,
        "credentials": camera.credentials,
        "transport": camera.transport,
        "decode": camera.decode,
    }
    run, config = load(SOURCE_FOR)(camera.source, reader=camera.reader, **options)
    draft.add(
        f"capture.{camera.name}",
        run,
        config,
        role="source",
        cameras=(camera.name,),
        paths=(DETECT, VIEW) if viewed else (DETECT,),
        works_ahead=True,
        options={"max_fps": camera.max_fps, "strict": draft.config.run.strict},
    )


def _insert_frames(
    draft: _Draft,
    stage: StageConfig,
    detect: tuple[str, ...],
    view: tuple[str, ...],
    *,
    viewed: bool,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A stage of somebody else on frames; returns who feeds the two paths now."""
    paths = tuple(
        path
        for path, name in ((DETECT, "detect"), (VIEW, "view"))
        if stage.path in (name, "both") and (path == DETECT or viewed)
    )
    _check_taken(stage, Frame)
    draft.add(
        stage.name, stage.run, dict(stage.config), role="stage", paths=paths, works_ahead=True
    )
    for producer in detect if DETECT in paths else view:
        draft.edge(producer, stage.name, draft.depths.frames, paths)
        draft.reads(stage.name, producer)
    here = (stage.name,)
    return (here if DETECT in paths else detect), (here if VIEW in paths else view)


def _insert_results(draft: _Draft, stage: StageConfig, last: str) -> str:
    _check_taken(stage, Result)
    draft.add(stage.name, stage.run, dict(stage.config), role="stage", paths=())
    draft.edge(last, stage.name, draft.depths.results, ())
    return stage.name


def _check_taken(stage: StageConfig, kind: type) -> None:
    where = f"stage {stage.name!r}"
    with _at(where):
        known = load(stage.run).Config
        taken, given = signature(stage.run)
    check_fields(where, stage.config, known)
    if taken != (kind,) or given is not kind:
        raise ConfigError(
            f"{where}: after = {stage.after!r} wants process({kind.__name__}) -> "
            f"{kind.__name__}, got {' and '.join(t.__name__ for t in taken)} -> "
            f"{given.__name__ if given else 'None'}; correct its annotations or move it"
        )


def _add_detector(
    draft: _Draft, detect: tuple[str, ...], facts: Any, max_batch: int, workers: int, threads: int
) -> None:
    config, depths, text = draft.config, draft.depths, facts.to_json()
    count = min(config.preprocess.workers, len(config.camera))
    names = [f"preprocess.{i}" if count > 1 else "preprocess" for i in range(count)]
    for i, name in enumerate(names):
        cameras = draft.cameras[i::count]
        draft.add(
            name, PREPROCESS, {"facts": text}, role="stage", cameras=cameras, paths=(DETECT,),
            works_ahead=True,
        )  # fmt: skip
        for producer in detect:
            if set(draft.specs[producer].cameras) & set(cameras):
                draft.edge(producer, name, depths.frames, (DETECT,))
                draft.reads(name, producer)
    options = {"max_batch": max_batch, "policy": config.run.policy, "depth": sum(depths.tensors)}
    draft.add("batcher", "", {}, role="batcher", paths=(DETECT,), options=options)
    for name in names:
        draft.edge(name, "batcher", depths.tensors, (DETECT,))
    inference = _inference(config, text, max_batch, threads)
    engines = [f"inference.{j}" if workers > 1 else "inference" for j in range(workers)]
    postprocess = {
        "facts": text,
        "score_threshold": config.model.score_threshold,
        "per_class": dict(config.model.per_class),
        "classes": None if config.model.classes is None else list(config.model.classes),
        "iou_threshold": config.model.iou_threshold,
        "max_detections": config.model.max_detections,
    }
    draft.add(
        "postprocess",
        POSTPROCESS,
        postprocess,
        role="stage",
        paths=(DETECT,),
        delivers=True,
        in_order=config.run.policy == "every",
    )
    environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    for name in engines:
        draft.add(
            name,
            INFERENCE,
            inference,
            role="batch",
            paths=(DETECT,),
            options={"max_batch": max_batch},
            environment=environment,
        )
        draft.edge("batcher", name, (1, 1), (DETECT,))
        draft.reads(name, *names)
        draft.edge(name, "postprocess", depths.outputs, (DETECT,), overflow="wait")
        draft.reads("postprocess", name)


def _inference(config: Config, facts: str, max_batch: int, threads: int) -> dict[str, Any]:
    model = config.model
    return {
        "model": str(model.path),
        "facts": facts,
        "engine": model.engine,
        "device": model.device,
        "precision": model.precision,
        "threads": threads,
        "max_batch": max_batch,
        "cuda_graphs": model.cuda_graphs,
        "sha256": model.sha256,
    }


def _add_render(
    draft: _Draft, view: tuple[str, ...], last: str, classes: tuple[str, ...], max_hz: float | None
) -> None:
    render = draft.config.render
    config = {"classes": list(classes), "show_clock": render.clock, "show_fps": render.fps}
    draft.add(
        "render",
        RENDER,
        config,
        role="join",
        paths=(VIEW,),
        delivers=True,
        options={"max_age_ms": render.max_age_ms, "max_waiting": draft.depths.view[0]},
    )
    for producer in view:
        draft.edge(producer, "render", draft.depths.view, (VIEW,), max_hz=max_hz)
        draft.reads("render", producer)
    draft.edge(last, "render", draft.depths.results, ())


def _sink(sink: SinkConfig, classes: tuple[str, ...]) -> tuple[str, str, dict[str, Any]]:
    """Name, class and configuration of a sink."""
    run = SINKS[sink.type] if sink.type in SINKS else str(sink.run)
    fields = dict(sink.options)
    name = sink.name or sink.type
    with _at(f"sink {name!r}"):
        known = load(run).Config
    check_fields(f"sink {name!r}", fields, known)
    if "classes" in known.__dataclass_fields__:
        fields.setdefault("classes", list(classes))
    return f"sink.{name}", run, fields


def _view_hz(sinks: list[tuple[str, str, dict[str, Any]]]) -> float | None:
    """Frames a second that the fastest viewer wants (0: all of them); None: nobody looks."""
    rates = [
        getattr(build(run, fields), "max_hz", None)
        for _, run, fields in sinks
        if Frame in signature(run)[0]
    ]
    if not rates:
        return None
    return 0.0 if None in rates else max(rate for rate in rates if rate is not None)


def _add_sink(draft: _Draft, name: str, run: str, fields: dict[str, Any], last: str) -> None:
    draft.add(name, run, fields, role="sink", paths=())
    if Frame in signature(run)[0]:
        max_hz = getattr(build(run, fields), "max_hz", None)
        draft.edge("render", name, draft.depths.pictures, (), max_hz=max_hz)
        draft.reads(name, "render")
    else:
        draft.edge(last, name, draft.depths.results, ())
