"""From a configuration to a plan: the standard graph, the stages of others in it, and its sizes.

Sources, stages and sinks are known here by name only; their classes tell how large their results are,
what they count, and what is wrong with their configuration.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from pipeline.accounts.layout import DETECT, VIEW
from pipeline.errors import ConfigError
from pipeline.happenings import HEALTH
from pipeline.messages import Frame, Result
from pipeline.plan.alarms import ALARMS_SINK, alarms_sink
from pipeline.plan.chains import Chain, chains_of, classes_of
from pipeline.plan.config import CameraConfig, Config, SinkConfig, StageConfig
from pipeline.plan.detecting import add_chain, add_shadow
from pipeline.plan.draft import Draft, PlannedSink, depths_of
from pipeline.plan.fields import check_fields, check_keys
from pipeline.plan.graph import Plan
from pipeline.plan.loading import build, load, signature, stage_class
from pipeline.plan.scenery import TrackConfig
from pipeline.plan.sizing import spare_cameras
from pipeline.plan.sources import STDIN
from pipeline.plan.watching import add_health, add_pictures, views_of
from pipeline.plan.ways import ways_of
from pipeline.stage import Source

SOURCE_FOR = "stages.capture.choose:source_for"
TRACK = "stages.track.stage:Track"
SCENE = "stages.scene.stage:Scene"
RENDER = "stages.render:Render"
SINKS = {
    "events": "stages.sinks.events:Events",
    "happenings": "stages.sinks.happenings:Happenings",
    "store": "stages.sinks.store.stage:Store",
    "video": "stages.sinks.video:Video",
    "snapshot": "stages.sinks.snapshot:Snapshot",
    "window": "stages.sinks.window:Window",
    "null": "stages.sinks.null:Null",
}

_GONE_S = 2.0  # after its tracker has given it up, an object is gone


def make(
    config: Config,
    run_id: str | None = None,
    chains: tuple[Chain, ...] = (),
    classes: tuple[str, ...] = (),
    shadow: Chain | None = None,
    ways: Mapping[str, int] = MappingProxyType({}),
) -> Plan:
    """The plan of a run. Starts nothing, loads no model. Raises ConfigError.

    run_id: goes with ids of objects to the outside; None: a new one. chains, classes: if they are known.
    shadow: a model that looks, too, and is only compared with those that deliver. ways: of sinks in the
    ledger, if they have one already, as `ways_of`.
    """
    chains = chains or chains_of(config)
    classes = classes or classes_of(chains)
    ways = ways_of(sinks_of(config), ways)
    planned = tuple(_sink(sink, config, classes, ways) for sink in _sinks(config))
    if config.alert:
        planned += (alarms_sink(config, classes, planned, ways[ALARMS_SINK]),)
    draft = Draft(
        config=config,
        depths=depths_of(config.run.policy, max(chain.max_batch for chain in chains)),
        sinks=planned,
    )
    view_hz = _view_hz(draft.sinks)

    for camera in config.camera:
        _add_camera(draft, camera, viewed=view_hz is not None)
    sources, run_id = tuple(draft.specs), run_id or secrets.token_hex(4)
    detect, view = sources, sources
    for stage in (stage for stage in config.stage if stage.after == "capture"):
        detect, view = _insert_frames(draft, stage, detect, view, viewed=view_hz is not None)
    last = tuple(add_chain(draft, detect, chain, classes) for chain in chains)
    if shadow is not None:
        add_shadow(draft, detect, shadow, classes, last)
    happens = (
        config.zone
        or config.line
        or any(kind not in HEALTH for alert in config.alert for kind in alert.kinds)
        or any(s.type in ("happenings", "store") for s in config.sink)
    )
    if config.track is not None or happens:
        last = _add_track(draft, config.track or TrackConfig(), chains, last)
    if happens:
        last = _add_scene(draft, classes, last, run_id)
    for stage in (stage for stage in config.stage if stage.after == "postprocess"):
        last = _insert_results(draft, stage, last)
    if view_hz is not None:
        _add_render(draft, view, last, classes, view_hz or None)
    for sink in draft.sinks:
        _add_sink(draft, sink, last)
    add_health(draft, sources, run_id)
    add_pictures(draft, view, last, run_id)
    return Plan(
        cameras=draft.cameras,
        policy=config.run.policy,
        processes=draft.sized(),
        notes=tuple(note for chain in chains for note in chain.notes),
        spare=spare_cameras(config),
    )


@contextmanager
def _at(where: str) -> Iterator[None]:
    """What goes wrong inside is said with its place in the configuration."""
    try:
        yield
    except ConfigError as error:
        raise type(error)(f"{where}: {error}") from error


# -- the graph -------------------------------------------------------------------------------------


def source_of(camera: CameraConfig, policy: str) -> tuple[str, dict[str, Any]]:
    """The class that reads a camera, and its configuration. Raises ConfigError, which names the camera."""
    where, options = f"camera {camera.name!r}", dict(camera.options)
    if camera.credentials is not None:
        options["credentials"] = camera.credentials
    with _at(where):
        run, source = _own_source(camera) if camera.run else _source_for(camera)
        known = load(run).Config
    fields = known.__dataclass_fields__.keys()
    own = CameraConfig.model_fields.keys() - {"options"}
    check_keys(where, options, (fields - source.keys()) | own)
    if "realtime" in fields:
        options.setdefault("realtime", policy == "newest")
    config = source | options
    check_fields(where, config, known)
    return run, config


def _source_for(camera: CameraConfig) -> tuple[str, dict[str, Any]]:
    run, source = load(SOURCE_FOR)(camera.source, reader=camera.reader)
    return str(run), dict(source)


def _own_source(camera: CameraConfig) -> tuple[str, dict[str, Any]]:
    run = str(camera.run)
    if camera.reader is not None:
        raise ConfigError(f"a source of your own, {run!r}, has no other reader; remove reader")
    if not issubclass(stage_class(run), Source):
        raise ConfigError(
            f"{run!r} is no source; wanted a class that inherits from Source of pipeline.stage"
        )
    return run, {}


def _add_camera(draft: Draft, camera: CameraConfig, *, viewed: bool) -> None:
    run, config = source_of(camera, draft.config.run.policy)
    with _at(f"camera {camera.name!r}"):
        draft.add(
            f"capture.{camera.name}",
            run,
            config,
            role="source",
            cameras=(camera.name,),
            paths=(DETECT, VIEW) if viewed else (DETECT,),
            works_ahead=True,
            options={
                "max_fps": camera.max_fps,
                "strict": draft.config.run.strict,
                "turn_s": build(run, config).turn_s,
                "stdin": camera.source == STDIN,
            },
        )


def _insert_frames(
    draft: Draft,
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


def _insert_results(draft: Draft, stage: StageConfig, last: tuple[str, ...]) -> tuple[str, ...]:
    _check_taken(stage, Result)
    ways = draft.result_sinks
    draft.add(stage.name, stage.run, dict(stage.config), role="stage", paths=ways)
    for producer in last:
        draft.edge(producer, stage.name, draft.depths.results, ways)
    return (stage.name,)


def _check_taken(stage: StageConfig, kind: type) -> None:
    where = f"stage {stage.name!r}"
    with _at(where):
        known = stage_class(stage.run).Config
        taken, given = signature(stage.run)
    check_fields(where, stage.config, known)
    if taken != (kind,) or given is not kind:
        raise ConfigError(
            f"{where}: after = {stage.after!r} wants process({kind.__name__}) -> "
            f"{kind.__name__}, got {' and '.join(t.__name__ for t in taken)} -> "
            f"{given.__name__ if given else 'None'}; correct its annotations or move it"
        )


def _add_track(
    draft: Draft, track: TrackConfig, chains: tuple[Chain, ...], last: tuple[str, ...]
) -> tuple[str, ...]:
    fields = track.model_dump()
    if track.new_score is None:  # each box that postprocess lets through may begin an object
        fields["new_score"] = min(
            score
            for chain in chains
            for score in (
                chain.facts.defaults.score_threshold
                if chain.model.score_threshold is None
                else chain.model.score_threshold,
                *chain.model.per_class.values(),
            )
        )
    fields["live"] = draft.config.run.policy == "newest"
    draft.add("track", TRACK, fields, role="stage", paths=draft.result_sinks)
    for producer in last:
        draft.edge(producer, "track", draft.depths.results, draft.result_sinks)
    return ("track",)


def _add_scene(
    draft: Draft, classes: tuple[str, ...], last: tuple[str, ...], run_id: str
) -> tuple[str, ...]:
    config = draft.config
    fields = {
        "classes": list(classes),
        "zones": [zone.model_dump(mode="json") for zone in config.zone],
        "lines": [line.model_dump(mode="json") for line in config.line],
        "run": run_id,
        "gone_s": (config.track or TrackConfig()).lost_s + _GONE_S,
        "live": config.run.policy == "newest",
    }
    draft.add("scene", SCENE, fields, role="stage", paths=draft.result_sinks)
    for producer in last:
        draft.edge(producer, "scene", draft.depths.results, draft.result_sinks)
    return ("scene",)


def _add_render(
    draft: Draft,
    view: tuple[str, ...],
    last: tuple[str, ...],
    classes: tuple[str, ...],
    max_hz: float | None,
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
    for producer in last:
        draft.edge(producer, "render", draft.depths.results, ())


def sinks_of(config: Config) -> list[str]:
    """The names of the processes of all sinks."""
    named = [_process_of(sink) for sink in _sinks(config)]
    return [*named, ALARMS_SINK] if config.alert else named


def _sinks(config: Config) -> tuple[SinkConfig, ...]:
    """Without any the results still have to end somewhere."""
    return config.sink or (() if config.alert else (SinkConfig(type="null"),))


def _process_of(sink: SinkConfig) -> str:
    return f"sink.{sink.name or sink.type}"


def _sink(
    sink: SinkConfig, config: Config, classes: tuple[str, ...], ways: Mapping[str, int]
) -> PlannedSink:
    run = SINKS[sink.type] if sink.type in SINKS else str(sink.run)
    fields = dict(sink.options)
    name = sink.name or sink.type
    with _at(f"sink {name!r}"):
        known = stage_class(run).Config
    check_fields(f"sink {name!r}", fields, known)
    ours = {"classes": list(classes), "overlaps": views_of(config)}
    fields = {k: v for k, v in ours.items() if k in known.__dataclass_fields__} | fields
    return PlannedSink(
        name=_process_of(sink),
        run=run,
        fields=fields,
        way=ways[_process_of(sink)],
        takes_frames=Frame in signature(run)[0],
        max_hz=getattr(build(run, fields), "max_hz", None),
    )


def _view_hz(sinks: tuple[PlannedSink, ...]) -> float | None:
    """Frames a second that the fastest viewer wants (0: all of them); None: nobody looks."""
    rates = [sink.max_hz for sink in sinks if sink.takes_frames]
    if not rates:
        return None
    return 0.0 if None in rates else max(rate for rate in rates if rate is not None)


def _add_sink(draft: Draft, sink: PlannedSink, last: tuple[str, ...]) -> None:
    ways = (sink.way,)
    draft.add(sink.name, sink.run, sink.fields, role="sink", paths=ways, delivers=True)
    if sink.takes_frames:
        draft.edge("render", sink.name, draft.depths.pictures, ways, max_hz=sink.max_hz)
        draft.reads(sink.name, "render")
    else:
        for producer in last:
            draft.edge(producer, sink.name, draft.depths.results, ways)
