"""The configuration of a run, and the plans that are made of it one after the other.

What was chosen for the host at the start (processes, threads, engine, batches) stays, and so does the id of
the run: a plan that follows differs in what was edited and in nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.plan import config as configuration
from pipeline.plan.chains import Chain, chains_of
from pipeline.plan.config import Config
from pipeline.plan.graph import Plan
from pipeline.plan.standard import make

# Sections that are read at the start of a run and never again
_OF_THE_START = ("run", "metrics", "preprocess")


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What the next plan could be."""

    config: Config
    chains: tuple[Chain, ...]
    plan: Plan


class Planner:
    """Of one run."""

    def __init__(self, config: Config, read: Callable[[Path], Config], file: Path | None) -> None:
        """read: another configuration, as that of the start was read; file: where that lies, if in one.

        Starts nothing, loads no model. Raises ConfigError.
        """
        self.file = file
        self._read = read
        self._run_id = secrets.token_hex(4)
        self._now = self._made(config, ())

    @property
    def plan(self) -> Plan:
        """The plan that was accepted last."""
        return self._now.plan

    def accept(self, proposal: Proposal) -> None:
        """From now on this is the plan."""
        self._now = proposal

    def from_file(self, file: Path) -> Proposal:
        """As a file has it. Raises ConfigError."""
        config, before = self._read(file), self._now.config
        for section in _OF_THE_START:
            old, new = getattr(before, section), getattr(config, section)
            for key in type(old).model_fields:
                if getattr(old, key) != getattr(new, key):
                    raise ConfigError(
                        f"{file.name}: [{section}] {key} can't change while a run goes on; "
                        "stop it and start it again"
                    )
        return self._made(config, self._now.chains)

    def with_file(self, file: Path) -> Proposal:
        """And the cameras of a file. Raises ConfigError."""
        return self._with(configuration.cameras_in(file), file.name)

    def with_cameras(self, tables: list[dict[str, Any]], folder: Path) -> Proposal:
        """And these cameras, tables as under [[camera]]; folder: of their paths. Raises ConfigError."""
        cameras = configuration.cameras_of({"camera": tables}, "ctl add", folder)
        return self._with(cameras, "ctl add")

    def without(self, camera: str) -> Proposal:
        """But this camera. Raises ConfigError."""
        left = tuple(c for c in self._now.config.camera if c.name != camera)
        config = configuration.with_cameras(self._now.config, left, "ctl remove")
        return self._made(config, self._now.chains)

    def _with(self, cameras: tuple[configuration.CameraConfig, ...], where: str) -> Proposal:
        before = self._now.config
        config = configuration.with_cameras(before, (*before.camera, *cameras), where)
        return self._made(config, self._now.chains)

    def _made(self, config: Config, before: tuple[Chain, ...]) -> Proposal:
        chains = chains_of(config, before)
        plan = make(config, self._run_id, chains)
        plan.check()
        return Proposal(config=config, chains=chains, plan=plan)
