"""The command line: parses, calls, prints; no logic. Exit codes as in errors.py."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import IO, Annotated, Any, NoReturn, TypeVar, cast

import typer
from rich.console import Console

from pipeline.doctor import checks as health
from pipeline.errors import ConfigError, ManyeyesError, ModelNotHere, ResourceError
from pipeline.face import (
    alert_commands,
    ctl_commands,
    explain_commands,
    fleet_commands,
    scene_commands,
    terminal,
)
from pipeline.face.demo import demo_config, follows
from pipeline.face.live import LiveTable, health_table, speed_table
from pipeline.face.metrics import MetricsServer
from pipeline.host import refusal, signals
from pipeline.host.machine import child_environment, open_as_many_files_as_allowed
from pipeline.plan import config as configuration
from pipeline.plan.chains import speed_of
from pipeline.plan.loading import load, search_current_folder
from pipeline.plan.model_path import model_path
from pipeline.plan.planner import Planner
from pipeline.plan.standard import make
from pipeline.redaction import shown
from pipeline.supervision.chatter import listening
from pipeline.supervision.needs import Needs
from pipeline.supervision.supervisor import Options, Supervisor

app = typer.Typer(
    name="manyeyes",
    help="Real-time object detection for many cameras: every frame accounted for.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(
    load("stages.training.model_commands:app"), name="model"
)  # list, get, inspect, import
app.add_typer(scene_commands.app)  # zones
app.add_typer(explain_commands.app)
app.add_typer(alert_commands.app)  # alerts
app.add_typer(ctl_commands.app, name="ctl")
app.add_typer(fleet_commands.app, name="fleet")
app.add_typer(load("stages.training.commands:app"))  # data, train, evaluate, export, predict
app.add_typer(load("benchmarks.tool.commands:app"), name="bench")  # capacity, stages, compare


@app.callback()
def _begin(context: typer.Context) -> None:
    if context.invoked_subcommand not in (
        "run",
        "demo",
    ):  # these close what they open by themselves
        signals.raise_exceptions()


_T = TypeVar("_T")
Sources = Annotated[
    list[str],
    typer.Argument(help="a TOML file, or sources: rtsp://…, a video, a folder, 0, synthetic://"),
]


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(help="how long to run")] = 20.0,
    cameras: Annotated[int, typer.Option(min=1, max=64, help="rendered cameras")] = 4,
    window: Annotated[bool, typer.Option(help="show a live window, too")] = False,
    output: Annotated[Path, typer.Option(help="folder for the video and the events")] = Path(
        "out/demo"
    ),
) -> None:
    """Four rendered cameras through every stage: no camera, GPU, weights or account needed.

    Example: manyeyes demo --seconds 30 --cameras 8
    """
    config = demo_config(cameras, seconds, output, window=window)
    if not follows():
        _progress("objects are not followed: pip install 'manyeyes[track]'")
    _run(Planner(config, configuration.load, None), config)
    Console().print(f"annotated videos, events, happenings and alarms (*.jsonl) are in {output}/")


@app.command()
def run(
    sources: Sources,
    model: Annotated[
        str | None,
        typer.Option(help="a name (`manyeyes model list`) or a bundle; none: as the sources need"),
    ] = None,
    score: Annotated[float | None, typer.Option(help="threshold; none: the model's own")] = None,
    track: Annotated[bool, typer.Option(help="follow objects: ids in events and pictures")] = False,
    events: Annotated[Path | None, typer.Option(help="write detections as JSON Lines")] = None,
    video: Annotated[
        Path | None, typer.Option(help="write annotated videos into this folder")
    ] = None,
    window: Annotated[bool, typer.Option(help="show a live window; q or Esc quits")] = False,
    policy: Annotated[
        str | None, typer.Option(help="newest: never wait; every: process each frame")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="end after so many seconds")] = None,
    strict: Annotated[bool, typer.Option(help="a source that does not open ends the run")] = False,
    watch: Annotated[bool, typer.Option(help="apply the TOML file whenever it was edited")] = False,
) -> None:
    """Detect objects in cameras, videos or pictures until they end, or Ctrl-C.

    Example: manyeyes run rtsp://10.0.0.7/stream1 --events out.jsonl --window
    """
    given: dict[str, Any] = {
        "model": model, "score": score, "track": track or None,
        "events": events, "video": video, "window": window or None, "policy": policy,
        "seconds": seconds, "strict": strict or None,
    }  # fmt: skip
    given = {key: value for key, value in given.items() if value is not None}
    config = fetched_config(sources, given)
    file = Path(sources[0]).absolute() if sources[0].endswith(".toml") else None
    if watch and file is None:
        raise ConfigError("command line: --watch wants a TOML file, and these are sources")
    read = partial(configuration.load, **given)
    _run(Planner(config, read, file), config, watch=watch)


@app.command()
def check(config: Annotated[Path, typer.Argument(help="a TOML file")]) -> None:
    """Check a configuration, its files and its memory without starting anything.

    Example: manyeyes check street.toml
    """
    checked = configuration.load(config)
    plan = make(checked)
    plan.check()
    needs = Needs.of(plan)
    needs.check()
    print(f"{config}: fine. {needs}")
    for note in plan.notes:
        print(note)
    speed = speed_of(checked.model)
    print(health.cores_wanted(speed, checked))
    for sentence in health.sentences(speed, checked):
        print(sentence)


@app.command()
def doctor(
    model: Annotated[
        list[str] | None, typer.Option(help="a name or a bundle, or several; none: the demo model")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="frames to measure with; none: a rendered 720p clip")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="a store of happenings to look through, too")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Check this host, and measure how fast models run on it; later runs and `check` use that.

    The same network in another format beside a model (street.onnx beside street.bundle) is measured,
    too. Takes about half a minute. Exit code 78 if something is missing that every run needs.

    Example: manyeyes doctor --model street.bundle --source street.mp4
    """
    with health.workplace() as folder:
        rows = health.check_host(folder)
        if store is not None:
            rows.append(health.check_store(store))
        healthy = all(row.verdict != "fails" for row in rows)
        if not as_json:
            Console().print(health_table(rows))
        files = [fetching(partial(model_path, name)) for name in model or []] if healthy else []
        speed = health.measure(files, source, folder, _progress) if healthy else None
    if as_json:
        print(json.dumps(health.document(rows, speed), indent=2))
    elif speed is not None:
        Console().print(speed_table(speed))
        for sentence in health.sentences(speed, health.config_of(files)):
            print(sentence)
    if not healthy:
        raise typer.Exit(ConfigError.exit_code)


def _progress(text: str) -> None:
    Console(stderr=True).print(text, style="dim")


@app.command()
def graph(
    sources: Sources,
    svg: Annotated[Path | None, typer.Option(help="draw it into this SVG file")] = None,
) -> None:
    """Print the wiring: every process and every edge.

    Example: manyeyes graph street.toml --svg wiring.svg
    """
    plan = make(config_of(sources, {}))
    plan.check()
    print(plan.text())
    if svg is not None:
        try:
            svg.write_text(load("pipeline.plan.drawing:svg")(plan))
        except OSError as error:
            raise ResourceError(
                f"--svg {svg}: can't be written: {error.strerror}; name another file"
            ) from error


def fetching(make_config: Callable[[], _T]) -> _T:
    """What it returns; a model that is known by name and not here is fetched first."""
    try:
        return make_config()
    except ModelNotHere as missing:
        command = [sys.executable, "-m", "pipeline", "model", *missing.command]
        if code := subprocess.run(command, env=child_environment({}), check=False).returncode:
            raise typer.Exit(code) from None  # it has said why
    return make_config()


def fetched_config(sources: list[str], given: dict[str, Any]) -> configuration.Config:
    """As `config_of`; a model that is known by name and not here is fetched first."""
    return fetching(lambda: config_of(sources, given))


def config_of(sources: list[str], given: dict[str, Any]) -> configuration.Config:
    """Of one TOML file, or of sources; given: `configuration.Overrides`. Raises ConfigError."""
    files = [source for source in sources if source.endswith(".toml")]
    if len(sources) == 1 and files:
        return configuration.load(Path(files[0]), **given)
    if files:
        raise ConfigError(
            f"command line: wanted one TOML file or only sources, got {shown(files[0])} and others; "
            "write all cameras into one file"
        )
    return configuration.from_sources(sources, **given)


def _run(planner: Planner, config: configuration.Config, *, watch: bool = False) -> None:
    plan = planner.plan
    out, err = terminal.never_wait()
    open_as_many_files_as_allowed()
    console = Console(file=cast(IO[str], out))
    for note in plan.notes:
        console.print(note, style="dim")
    table = LiveTable(console, lambda: out.idle)
    with ExitStack() as stack:
        stack.enter_context(table.shown())
        beside = out.isatty() and err.isatty()  # then it appears above the live table
        say = table.say if beside else lambda line: err.write(line + "\n")
        chatter = stack.enter_context(listening(say))
        options = Options(
            directory=config.run.directory, seconds=config.run.seconds, strict=config.run.strict,
            stderr=chatter.descriptor, watch=watch,
        )  # fmt: skip
        supervisor = Supervisor(plan, options, table.tick, planner)

        def serve_metrics() -> None:
            host, port = config.metrics.host, config.metrics.port
            if port is not None:
                server = stack.enter_context(closing(MetricsServer(supervisor, host, port)))
                console.print(f"metrics on http://{host}:{server.port}/metrics", style="dim")

        supervisor.run(serve_metrics)
    table.print_end(supervisor)
    _check_end(supervisor)


def _check_end(supervisor: Supervisor) -> None:
    """Raises ManyeyesError if a run that is over did not do all that it was to do."""
    for sink, accounts in supervisor.accounts.of_sinks().items():
        if lost := sum(one.lost for one in accounts):
            offered = sum(one.captured for one in accounts)
            raise ManyeyesError(
                f"sink {sink!r}: {lost} of {offered} results were lost; see above why"
            )
    if broken := [child.broken for child in supervisor.children.values() if child.broken]:
        raise ManyeyesError(f"not read to the end: {'; '.join(broken)}")
    spoilt = [
        f"{account.dropped['error']} of {account.captured} of camera {camera!r}"
        for (camera, path), account in supervisor.totals.items()
        if path == "detect" and account.dropped["error"]
    ]
    if spoilt and supervisor.plan.policy == "every":
        raise ManyeyesError(f"frames could not be used: {', '.join(spoilt)}; see above why")


def main() -> None:
    """The console script, once it is loaded; see `__main__`."""
    logging.getLogger().setLevel(logging.INFO)
    search_current_folder()
    try:
        try:
            app()
        except ManyeyesError as error:
            _end_with(error)
        except (OSError, MemoryError) as error:  # whatever the host refuses
            _end_with(ResourceError(refusal.sentence(error)))
        finally:
            terminal.finish()
    except ManyeyesError as error:  # what the command had to say could not be written
        _end_with(error)


def _end_with(error: ManyeyesError) -> NoReturn:
    print(f"manyeyes: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
