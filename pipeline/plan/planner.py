"""The configuration of a run, and the plans that are made of it one after the other.

What was chosen for the host at the start (processes, threads, engine, batches) stays, and so does the id of
the run: a plan that follows differs in what was edited and in nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.plan import config as configuration
from pipeline.plan.chains import READ_FACTS, Chain, chains_of, classes_of, shadow_of, with_cameras
from pipeline.plan.config import Config, MetricsConfig, ModelConfig, PreprocessConfig, RunConfig
from pipeline.plan.graph import Plan
from pipeline.plan.loading import load
from pipeline.plan.standard import make, sinks_of
from pipeline.plan.ways import ways_of

# Keys of sections that are read at the start of a run and never again
_OF_THE_START = {
    "run": RunConfig.model_fields,
    "metrics": MetricsConfig.model_fields,
    "preprocess": PreprocessConfig.model_fields,
    "outbox": ("path",),  # what waits there is still to be delivered
}


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What the next plan could be."""

    config: Config
    written: ModelConfig  # [model] as it was before any swap
    chains: tuple[Chain, ...]
    classes: tuple[str, ...]  # by label; it only grows
    plan: Plan
    ways: dict[str, int]  # of sinks in the ledger, those that are gone among them
    shadow: Chain | None = None


class Planner:
    """Of one run."""

    def __init__(self, config: Config, read: Callable[[Path], Config], file: Path | None) -> None:
        """read: another configuration, as that of the start was read; file: where that lies, if in one.

        Starts nothing, loads no model. Raises ConfigError.
        """
        self.file = file
        self._read = read
        self._run_id = secrets.token_hex(4)
        self._now = self._good = self._made(config)
        self._sinks = self._now.plan.layout.room[4]  # for how many the ledger has room
        self._before: Proposal | None = None

    @property
    def plan(self) -> Plan:
        """The plan that was accepted last."""
        return self._now.plan

    def accept(self, proposal: Proposal, *, is_whole: bool = True) -> None:
        """From now on this is the plan. is_whole: what was accepted last has come to run."""
        if is_whole:
            self._good = self._now
        self._before, self._now = self._now, proposal

    def withdraw(self) -> None:
        """From now on that is the plan again which ran before what was accepted since."""
        self._now, self._before = self._good, None

    def rollback(self) -> Proposal:
        """What was the plan before the last change. Raises ConfigError if there was none."""
        if self._before is None:
            raise ConfigError(
                "ctl rollback: nothing has changed yet; there is no plan to go back to"
            )
        before, classes = self._before, self._now.classes
        ways = ways_of(sinks_of(before.config), self._now.ways, self._sinks)
        if before.classes == classes and ways.items() >= before.ways.items():
            return replace(before, ways=ways)
        # sinks have learned the names of a model since, and forget none
        plan = make(before.config, self._run_id, before.chains, classes, before.shadow, ways)
        plan.check()
        return replace(before, classes=classes, plan=plan, ways=ways)

    def from_file(self, file: Path) -> Proposal:
        """As a file has it. Raises ConfigError."""
        config, before = self._read(file), self._now.config
        for section, keys in _OF_THE_START.items():
            old, new = getattr(before, section), getattr(config, section)
            for key in keys:
                if getattr(old, key) != getattr(new, key):
                    raise ConfigError(
                        f"{file.name}: [{section}] {key} can't change while a run goes on; "
                        "stop it and start it again"
                    )
        return self._made(config, self._now, config.model, shadow=self._shadow(config))

    def with_file(self, file: Path) -> Proposal:
        """And the cameras of a file. Raises ConfigError."""
        return self._with(configuration.cameras_in(file), file.name)

    def with_cameras(self, tables: list[dict[str, Any]], folder: Path) -> Proposal:
        """And these cameras, tables as under [[camera]]; folder: of their paths. Raises ConfigError."""
        cameras = configuration.cameras_of({"camera": tables}, "ctl add", folder)
        return self._with(cameras, "ctl add")

    def without(self, camera: str) -> Proposal:
        """But this camera, and its zones and lines. Raises ConfigError."""
        now = self._now.config
        places = {
            "zone": tuple(zone for zone in now.zone if zone.camera != camera),
            "line": tuple(line for line in now.line if line.camera != camera),
        }
        left = tuple(c for c in now.camera if c.name != camera)
        config = configuration.with_cameras(now.model_copy(update=places), left, "ctl remove")
        return self._made(config, self._now, shadow=self._shadow(config))

    def with_model(self, path: Path, cameras: Sequence[str], *, known: bool = False) -> Proposal:
        """This bundle in the place of [model], or of the models of these cameras.

        known: of its classes keep those alone that the run knows, which is a matter of [model] only.
        Raises ConfigError.
        """
        now, model = self._now.config, self._now.written
        if cameras:
            if known:
                raise ConfigError(
                    "ctl swap: what is kept of classes is said of [model], not of one camera; leave out "
                    "--camera or --known-classes"
                )
            own = None if path == now.model.path else path
            return self._made(now.model_copy(update={"camera": tuple(
                camera.model_copy(update={"model": own}) if camera.name in cameras else camera
                for camera in now.camera
            )}), self._now)  # fmt: skip
        if all(camera.model is not None for camera in now.camera):
            raise ConfigError(
                "ctl swap: every camera has a model of its own; say which with --camera"
            )
        if path != model.path:
            model = model.model_copy(update={"path": path, "name": None, "sha256": None})
        if known:
            model = model.model_copy(update={"classes": self._known(path, model)})
        return self._made(now.model_copy(update={"model": model}), self._now)

    def with_shadow(self, path: Path, cameras: Sequence[str]) -> Proposal:
        """This bundle beside what looks at these cameras, or at all: it is compared, and delivers nothing.

        Raises ConfigError.
        """
        config = self._now.config
        names = cameras or [camera.name for camera in config.camera]
        if self._now.shadow is not None:
            raise ConfigError(
                f"ctl swap: {self._now.shadow.facts.name!r} looks on already; `manyeyes ctl rollback` "
                "withdraws it, a swap to it lets it take over"
            )
        return self._made(config, self._now, shadow=shadow_of(config, path, names))

    def _shadow(self, config: Config) -> Chain | None:
        """The one that looks on goes on doing so, at the cameras that are left."""
        if (shadow := self._now.shadow) is None:
            return None
        left = with_cameras(shadow, [camera.name for camera in config.camera])
        return left if left.cameras else None

    def _known(self, path: Path, model: ModelConfig) -> tuple[str, ...]:
        wanted = self._now.classes if model.classes is None else model.classes
        known = tuple(n for n in load(READ_FACTS)(path).classes if n in self._now.classes)
        if not (kept := tuple(name for name in known if name in wanted)):
            raise ConfigError(
                f"{path}: has none of the classes {', '.join(wanted[:10])}; start the run again with it"
            )
        return kept

    def _with(self, cameras: tuple[configuration.CameraConfig, ...], where: str) -> Proposal:
        before = self._now.config
        config = configuration.with_cameras(before, (*before.camera, *cameras), where)
        return self._made(config, self._now, shadow=self._shadow(config))

    def _made(
        self,
        config: Config,
        before: Proposal | None = None,
        written: ModelConfig | None = None,
        *,
        shadow: Chain | None = None,
    ) -> Proposal:
        chains = chains_of(config, before.chains if before else ())
        # as a start would have it: it knows what the models of by then lack
        ways: dict[str, int] = {}
        if before is not None:
            ways = ways_of(sinks_of(config), before.ways, self._sinks)
        plan = make(config, self._run_id, chains, shadow=shadow, ways=ways)
        classes = classes_of(chains, before.classes if before else ())
        if classes != classes_of(chains):
            plan = make(config, self._run_id, chains, classes, shadow, ways)
        plan.check()
        written = written or (before.written if before else config.model)
        return Proposal(
            config=config, written=written, chains=chains, classes=classes, plan=plan, shadow=shadow,
            ways=ways or ways_of(sinks_of(config), {}),
        )  # fmt: skip
