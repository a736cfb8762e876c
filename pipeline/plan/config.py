"""TOML → a validated, frozen configuration; every mistake is one sentence that names file, place and key.

The description of a field says what it must be: it is the error, and the JSON schema's comment.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, Literal, Unpack

from pydantic import ValidationError

from pipeline import redaction
from pipeline.errors import ConfigError
from pipeline.plan import model_path
from pipeline.plan.alerting import (
    AlertConfig,
    OutboxConfig,
    TargetConfig,
    check_alerts,
    with_limits,
)
from pipeline.plan.fields import check_texts, no_json, too_deep
from pipeline.plan.mistakes import SHARE, sentence
from pipeline.plan.overrides import Overrides, overridden
from pipeline.plan.scenery import (
    HealthConfig,
    LineConfig,
    OverlapConfig,
    TrackConfig,
    ZoneConfig,
    check_overlaps,
    check_places,
)
from pipeline.plan.section import (
    BOOL,
    CLASS,
    NAME,
    NAMED,
    Section,
    Share,
    Tiles,
    WithOptions,
    field,
    options_apart,
)
from pipeline.plan.sources import check_path, located, name_of


class RunConfig(Section):
    """`[run]`."""

    policy: Literal["newest", "every"] = field("newest", "'newest' or 'every'")
    seconds: float | None = field(None, "a number of seconds > 0", gt=0)  # None: until stopped
    directory: Path | None = field(None, "a folder")  # None: one of its own
    strict: bool = field(False, BOOL)  # a source that can't be opened at start ends the run
    # room for cameras that join later; 0: for a quarter more than there are, and 16 at least
    max_cameras: int = field(0, "a whole number within 0..10000 (0: room for more)", ge=0, le=10000)


class ModelConfig(Section):
    """`[model]`. What is None is what the bundle says; 0 is what fits the host."""

    path: Path | None = field(None, "the path of a model bundle")  # load() puts what is meant in
    name: str | None = field(None, "a name that `manyeyes model list` knows", min_length=1)
    engine: Literal["auto", "torchscript", "onnx", "openvino", "stub"] = field(
        "auto", "'auto', 'torchscript', 'onnx', 'openvino' or 'stub'"
    )
    device: str = field(
        "auto", "'auto', 'cpu', 'cuda' or 'cuda:N'", pattern=r"^(auto|cpu|cuda(:\d+)?)$"
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = field(
        "auto", "'auto', 'fp32', 'fp16' or 'bf16'"
    )
    max_batch: int = field(0, "a whole number within 0..256 (0: as the model allows)", ge=0, le=256)
    workers: int = field(0, "a whole number within 0..64 (0: chosen for the host)", ge=0, le=64)
    threads: int = field(0, "a whole number within 0..256 (0: chosen for the host)", ge=0, le=256)
    tiles: tuple[Tiles, Tiles] | None = field(
        None, "[columns, rows], whole numbers within 1..8 ([1, 1]: the whole picture alone)"
    )
    cuda_graphs: bool = field(False, BOOL)  # for small models on CUDA: one launch a batch
    sha256: str | None = field(None, "64 hexadecimal digits", pattern="^[0-9a-fA-F]{64}$")
    score_threshold: Share | None = field(None, SHARE)
    iou_threshold: Share | None = field(None, SHARE)
    max_detections: int | None = field(None, "a whole number within 1..1000", ge=1, le=1000)
    per_class: dict[str, Share] = field({}, SHARE)  # score thresholds by class name
    classes: tuple[str, ...] | None = field(None, "a list of class names", min_length=1)


class PreprocessConfig(Section):
    """`[preprocess]`."""

    workers: int = field(1, "a whole number within 1..64", ge=1, le=64)


class RenderConfig(Section):
    """`[render]`."""

    max_age_ms: float = field(500.0, "a number of milliseconds >= 0", ge=0)
    clock: bool = field(True, BOOL)
    fps: bool = field(True, BOOL)


class MetricsConfig(Section):
    """`[metrics]`. After `load`, port is None where metrics are not wanted."""

    host: str = field("127.0.0.1", "an address of this host", min_length=1)
    enabled: bool = field(True, BOOL)
    port: int | None = field(9108, "a port within 0..65535 (0: any free one)", ge=0, le=65535)


class CameraConfig(WithOptions):
    """One `[[camera]]`; its options are those of the source's own class."""

    name: str = field(..., NAMED, pattern=NAME)
    source: str | int | None = field(None, "a URL, a path, or the index of a webcam")
    run: str | None = field(None, "'package.module:Class'", pattern=CLASS)  # in place of `source`
    model: Path | None = field(None, "a model bundle, or a name of the list")  # None: [model]
    credentials: str | None = field(
        None,
        "a NAME, with NAME_USER and NAME_PASSWORD in the environment",
        pattern=r"^[A-Za-z_]\w*$",
    )
    max_fps: float | None = field(None, "a number of frames a second > 0", gt=0)
    reader: Literal["av", "opencv", "snapshots"] | None = field(
        None, "'av', 'opencv' or 'snapshots'"
    )  # None: the best for the source


SinkType = Literal["events", "happenings", "store", "video", "snapshot", "window", "null", "custom"]
_SINKS = "'events', 'happenings', 'store', 'video', 'snapshot', 'window', 'null' or 'custom'"


class SinkConfig(WithOptions):
    """One `[[sink]]`; its options are those of the sink's own class."""

    type: SinkType = field(..., _SINKS)
    name: str | None = field(None, NAMED, pattern=NAME)
    run: str | None = field(None, "'package.module:Class'", pattern=CLASS)


class StageConfig(Section):
    """One `[[stage]]` of somebody else."""

    name: str = field(..., NAMED, pattern=NAME)
    run: str = field(..., "'package.module:Class'", pattern=CLASS)
    after: Literal["capture", "postprocess"] = field("capture", "'capture' or 'postprocess'")
    path: Literal["detect", "view", "both"] = field("both", "'detect', 'view' or 'both'")
    config: dict[str, Any] = field({}, "a table")


class Config(Section):
    """A whole run. Made by `load` and `from_sources`, which check what a field can't."""

    run: RunConfig = RunConfig()
    model: ModelConfig = ModelConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    track: TrackConfig | None = None
    health: HealthConfig = HealthConfig()
    render: RenderConfig = RenderConfig()
    metrics: MetricsConfig = MetricsConfig()
    camera: tuple[CameraConfig, ...] = field((), "tables, each under [[camera]]")
    sink: tuple[SinkConfig, ...] = field((), "tables, each under [[sink]]")
    stage: tuple[StageConfig, ...] = field((), "tables, each under [[stage]]")
    zone: tuple[ZoneConfig, ...] = field((), "tables, each under [[zone]]")
    line: tuple[LineConfig, ...] = field((), "tables, each under [[line]]")
    overlap: tuple[OverlapConfig, ...] = field((), "tables, each under [[overlap]]")
    alert: tuple[AlertConfig, ...] = field((), "tables, each under [[alert]]")
    target: tuple[TargetConfig, ...] = field((), "tables, each under [[target]]")
    outbox: OutboxConfig = OutboxConfig()


def load(path: str | Path, **overrides: Unpack[Overrides]) -> Config:
    """The configuration in a TOML file; relative paths in it are relative to its folder.

    Raises ConfigError: the file can't be read, or the first mistake in it.
    """
    path = Path(path)
    return validate(overridden(read(path), overrides), path.name, path.absolute().parent)


def load_to_look(path: Path) -> Config:
    """The same for who runs nothing: a model that is not here is as the file names it, or None."""
    return validate(read(path), path.name, path.absolute().parent, runs=False)


def read(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises ConfigError: it can't be read, or is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        where = redaction.shown(str(path))
        raise ConfigError(f"{where}: can't be read: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no UTF-8 text; wanted a TOML file") from error
    except RecursionError:
        raise ConfigError(too_deep(path.name)) from None
    except ValueError as error:  # also a number of thousands of digits
        raise ConfigError(f"{path.name}: is no TOML: {error}") from error


def cameras_in(path: Path) -> tuple[CameraConfig, ...]:
    """The cameras in a TOML file that has nothing else. Raises ConfigError as `load`."""
    return cameras_of(read(path), path.name, path.absolute().parent)


def cameras_of(raw: dict[str, Any], file: str, folder: Path) -> tuple[CameraConfig, ...]:
    """The same for what is read already; folder: what relative paths are relative to."""
    if others := raw.keys() - {"camera"}:
        raise ConfigError(
            f"{file}: [{sorted(others)[0]}] is not of a camera; wanted [[camera]] alone: "
            "a whole configuration goes to `ctl apply`"
        )
    config = _parsed(raw, file)
    return _placed(config.camera, file, folder)


def with_cameras(config: Config, cameras: tuple[CameraConfig, ...], file: str) -> Config:
    """The same configuration with these cameras, checked as a whole. Raises ConfigError."""
    changed = config.model_copy(update={"camera": cameras})
    _check_whole(changed, file)
    return changed


def from_sources(sources: Sequence[str | int], **overrides: Unpack[Overrides]) -> Config:
    """The configuration of `manyeyes run SOURCE…`: no metrics, paths relative to the current folder.

    A camera is named after its file, or cam0, cam1, …; a name that is taken gets -2, -3, …
    Raises ConfigError as `load`.
    """
    names: list[str] = []
    for index, source in enumerate(sources):
        check_path(source)
        names.append(name_of(source, index, names))
    cameras = [{"name": n, "source": s} for n, s in zip(names, sources, strict=True)]
    raw = {"metrics": {"enabled": False}, "camera": cameras}
    return validate(overridden(raw, overrides), "command line", Path.cwd())


def schema() -> dict[str, Any]:
    """The JSON schema of a configuration file, for editors."""
    return Config.model_json_schema()


# -- what a name, a path and a whole configuration must be ------------------------------------------


def _parsed(raw: dict[str, Any], file: str) -> Config:
    check_texts(file, raw)
    for name, section, needed in (
        ("camera", CameraConfig, ("name", "source")),
        ("sink", SinkConfig, ("type",)),
        ("target", TargetConfig, ("name", "type")),
    ):
        if isinstance(tables := raw.get(name), list):
            raw = {**raw, name: [options_apart(table, section, needed) for table in tables]}
    try:
        # By way of JSON: there a strict check knows lists as tuples and text as paths.
        return Config.model_validate_json(json.dumps(raw, default=no_json), strict=True)
    except ValidationError as error:
        raise ConfigError(
            sentence(error, raw, file, Config)
        ) from None  # its text repeats the input


def _placed(
    cameras: Sequence[CameraConfig], file: str, folder: Path, *, runs: bool = True
) -> tuple[CameraConfig, ...]:
    """With paths from this folder on."""
    placed = (_camera(camera, file, folder) for camera in cameras)
    return tuple(_with_model(camera, file, folder, runs=runs) for camera in placed)


def validate(raw: dict[str, Any], file: str, folder: Path, *, runs: bool = True) -> Config:
    """The configuration in the tables of a file in `folder`. Raises ConfigError: the first mistake.

    runs: False for who only looks, see `load_to_look`.
    """
    config = _parsed(raw, file)
    _check_whole(config, file)
    cameras = _placed(config.camera, file, folder, runs=runs)
    rendered = config.model.engine == "stub" or all(
        camera.model is not None or str(camera.source).startswith("synthetic://")
        for camera in cameras
    )
    path = config.model.path
    with _unless(runs):
        path = model_path.of(config.model.path, config.model.name, rendered, file, folder)
    model = config.model.model_copy(update={"path": path})
    directory = config.run.directory and folder / config.run.directory
    run = config.run.model_copy(update={"directory": directory})
    metrics = config.metrics
    if not metrics.enabled:
        metrics = metrics.model_copy(update={"port": None})
    outbox = config.outbox.model_copy(update={"path": folder / config.outbox.path})
    return config.model_copy(
        update={
            "camera": cameras,
            "sink": tuple(_sink(sink, folder) for sink in config.sink),
            "target": tuple(_target(target, folder) for target in config.target),
            "zone": with_limits(config.zone, config.alert, file),
            "outbox": outbox,
            "model": model,
            "run": run,
            "metrics": metrics,
        }
    )


def _sink(sink: SinkConfig, folder: Path) -> SinkConfig:
    path = sink.options.get("path")
    if sink.type == "custom" or not isinstance(path, str):
        return sink
    return sink.with_options(path=str(folder / path))


def _target(target: TargetConfig, folder: Path) -> TargetConfig:
    files = {
        key: str(folder / value)
        for key, value in target.options.items()
        if key in ("path", "ca_file") and isinstance(value, str)
    }
    return target.with_options(**files)


def _check_whole(config: Config, file: str) -> None:
    if not config.camera:
        raise ConfigError(f"{file}: there is no camera; add a [[camera]] with a name and a source")
    n, most = len(config.camera), config.run.max_cameras
    if most and n > most:
        raise ConfigError(
            f"{file}: {n} cameras, and [run] max_cameras is {most}; raise it, or use fewer"
        )
    sinks = [sink.name or sink.type for sink in config.sink]
    cameras = [camera.name for camera in config.camera]
    for kind, names in (
        ("camera", cameras),
        ("sink", sinks),
        ("stage", [stage.name for stage in config.stage]),
    ):
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ConfigError(f"{file}: {kind} {twice!r}: the name is used twice; give one another")
    check_places(config.zone, config.line, cameras, file)
    check_overlaps(config.overlap, config.zone, file)
    check_alerts(config.alert, config.target, config.zone, config.line, cameras, file)
    for camera in config.camera:
        if camera.source is None and camera.run is None:
            raise ConfigError(
                f"{file}: camera {camera.name!r}: 'source' is missing; it must be a URL, a path, or the "
                "index of a webcam (run = 'package.module:Class' for a class of your own)"
            )
        if camera.source is not None and camera.run is not None:
            raise ConfigError(
                f"{file}: camera {camera.name!r}: has a source and a class of its own, run; remove either"
            )
        if config.run.policy == "every" and camera.max_fps is not None:
            raise ConfigError(
                f"{file}: camera {camera.name!r}: max_fps leaves frames out, 'every' none; remove either"
            )
    for sink, name in zip(config.sink, sinks, strict=True):
        if (sink.type == "custom") != (sink.run is not None):
            raise ConfigError(
                f"{file}: sink {name!r}: type 'custom' and run = 'package.module:Class' go together; "
                "write both or neither"
            )


def _camera(camera: CameraConfig, file: str, folder: Path) -> CameraConfig:
    if camera.source is None:
        return camera
    source = located(f"{file}: camera {camera.name!r}", camera.source, folder)
    return camera.model_copy(update={"source": source})


def _with_model(camera: CameraConfig, file: str, folder: Path, *, runs: bool) -> CameraConfig:
    if camera.model is not None:
        where = f"{file}: camera {camera.name!r}: model"
        with _unless(runs):
            model = model_path.there(camera.model, where, folder)
            return camera.model_copy(update={"model": model})
    return camera


def _unless(runs: bool) -> AbstractContextManager[None]:
    """Who runs nothing goes on without the model."""
    return nullcontext() if runs else suppress(ConfigError)
