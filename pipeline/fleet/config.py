"""`fleet.toml`: the cameras, models, places and sinks of all machines once, and the machines.

Its sections are those of a run, and `[fleet]` and `[[machine]]`; a `[[camera]]` has some keys more. What a
machine runs is a file beside it with its cameras alone, which `manyeyes run` takes like any other.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, ValidationError

from pipeline.errors import ConfigError, ResourceError
from pipeline.fleet.planner import Camera, Machine
from pipeline.fleet.share import share
from pipeline.plan import config as run_config
from pipeline.plan.config import MetricsConfig
from pipeline.plan.fields import no_json
from pipeline.plan.mistakes import sentence
from pipeline.plan.scenery import OverlapConfig
from pipeline.plan.section import NAME, NAMED, Section, field
from pipeline.plan.standard import make

_LABEL = r"^[A-Za-z0-9_.:-]{1,64}$"
_LABELS = "a label or a list of them, each of 1 to 64 of the characters A-Z a-z 0-9 _ . : -"

_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC

Label = Annotated[str, Field(pattern=_LABEL)]


class FleetConfig(Section):
    """`[fleet]`: what carries it out."""

    placement: Literal["static", "ray"] = field("static", "'static' or 'ray'")
    address: str = field("auto", "HOST:PORT of the head node of Ray, or 'auto'", min_length=1)
    lease_s: float = field(6.0, "a number of seconds within 3..300", ge=3, le=300)
    targets: Path | None = field(None, "the path of a file that Prometheus reads")


class MachineConfig(Section):
    """One `[[machine]]`; `cameras`, `certificate` or `measure_hz` says how much it takes."""

    name: str = field(..., NAMED, pattern=NAME)
    cameras: float | None = field(None, "a number of cameras > 0", gt=0)
    certificate: Path | None = field(None, "the file that `manyeyes bench capacity` has written")
    measure_hz: float | None = field(None, "a number of frames a second of a camera > 0", gt=0)
    labels: Label | tuple[Label, ...] = field((), _LABELS)
    near: Label | None = field(None, "the label of a place")
    host: str | None = field(None, "the address at which it answers", min_length=1)
    port: int | None = field(None, "a port within 1..65535", ge=1, le=65535)  # of its metrics


class PlacedCamera(Section):
    """What a `[[camera]]` of a fleet has beside what one of a run has."""

    name: str = field(..., NAMED, pattern=NAME)
    weight: float = field(1.0, "a number > 0, in cameras", gt=0)
    needs: Label | tuple[Label, ...] = field((), _LABELS)
    near: Label | None = field(None, "the label of a place")
    overlaps: str | tuple[str, ...] = field((), "the name of a camera, or a list of them")


class _File(Section):
    fleet: FleetConfig = FleetConfig()
    machine: tuple[MachineConfig, ...] = field((), "tables, each under [[machine]]")
    camera: tuple[PlacedCamera, ...] = field((), "tables, each under [[camera]]")


_OWN = PlacedCamera.model_fields.keys() - {"name"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A checked `fleet.toml`."""

    file: Path
    settings: FleetConfig
    machines: tuple[Machine, ...]
    cameras: tuple[Camera, ...]
    tables: dict[str, Any]  # the run of all cameras, as one machine had it
    addresses: dict[str, str]  # machine → HOST:PORT of its metrics
    raw: dict[str, Any]  # the file's own tables
    revision: str  # another one whenever they are others
    model: Path = Path()  # of [model]
    measured_hz: dict[str, float] = dataclass_field(default_factory=dict)
    """Machines whose capacity is measured when they join, for cameras of such a rate."""

    def check(self) -> None:
        """Also what only the classes of sources and sinks know. Raises ConfigError."""
        make(run_config.validate(_of_all(self.tables), self.file.name, self.file.parent))

    def machine(self, name: str) -> Machine:
        """Raises ConfigError if there is none."""
        return self.machines[known(f"{self.file.name}", "machine", name, self.names)]

    @property
    def names(self) -> list[str]:
        """Of all machines."""
        return [machine.name for machine in self.machines]

    def file_of(self, machine: str) -> Path:
        """Where the run of a machine is written: beside this file, so that its paths mean the same."""
        return self.file.with_suffix(f".{machine}.toml")

    def run_of(self, machine: str, cameras: Collection[str]) -> dict[str, Any]:
        """The tables of a run with these cameras."""
        _, _, port = self.addresses[machine].rpartition(":")
        return share(self.tables, machine, cameras, int(port))

    def write_run(self, machine: str, cameras: Collection[str]) -> Path:
        """The file of a run, replaced as a whole. Raises ResourceError if it can't be written."""
        path = self.file_of(machine)
        head = f"# {machine}'s part of {self.file.name}; written by `manyeyes fleet`, change that one\n\n"
        text = head + tomli_w.dumps(self.run_of(machine, cameras))
        replace_file(path, text, is_private=True)
        return path


def load(path: str | Path) -> Fleet:
    """The fleet in a TOML file. Raises ConfigError: it can't be read, or the first mistake in it."""
    path = Path(path).absolute()
    return checked(run_config.read(path), path)


def checked(raw: dict[str, Any], path: Path) -> Fleet:
    """The fleet in the tables of the file `path`, which itself is not read. Raises ConfigError."""
    tables = {key: value for key, value in raw.items() if key not in ("fleet", "machine")}
    own: dict[str, Any] = {key: raw[key] for key in ("fleet", "machine") if key in raw}
    if isinstance(raw.get("camera"), list) and all(isinstance(c, dict) for c in raw["camera"]):
        tables["camera"] = [_without(camera, _OWN) for camera in raw["camera"]]
        own["camera"] = [
            _without(camera, camera.keys() - _OWN - {"name"}) for camera in raw["camera"]
        ]
    run = run_config.validate(_of_all(tables), path.name, path.parent)
    try:
        file = _File.model_validate_json(json.dumps(own, default=no_json), strict=True)
    except ValidationError as error:
        raise ConfigError(sentence(error, own, path.name, _File)) from None
    machines = tuple(_machine(machine, path, file.fleet) for machine in file.machine)
    names = [machine.name for machine in machines]
    if not machines:
        raise ConfigError(
            f"{path.name}: there is no machine; add a [[machine]] with a name, and cameras or certificate"
        )
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(
            f"{path.name}: machine {twice!r}: the name is used twice; give one another"
        )
    fleet = Fleet(
        file=path, settings=file.fleet, machines=machines,
        cameras=tuple(_camera(camera, run.overlap) for camera in file.camera), tables=tables,
        addresses={m.name: _address(m, run.metrics) for m in file.machine},
        model=run.model.path or Path(),
        measured_hz={m.name: m.measure_hz for m in file.machine if m.measure_hz is not None},
        raw=raw, revision=hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()[:16],
    )  # fmt: skip
    _check_names(fleet)
    return fleet


def known(where: str, kind: str, name: str, names: list[str]) -> int:
    """The index of a name. Raises ConfigError, with the nearest that there is."""
    if name in names:
        return names.index(name)
    close = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names) or 'none'}"
    raise ConfigError(f"{where}: there is no {kind} {name!r}; {hint}")


def replace_file(path: Path, text: str, *, is_private: bool = False) -> None:
    """Who reads it sees the old one or the new one. Raises ResourceError.

    is_private: its user alone may, since paths and queries of sources may hold tokens.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        part.unlink(missing_ok=True)  # of one that was killed: its mode is not ours
        fd = os.open(part, _NEW, 0o600 if is_private else 0o666)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
        part.replace(path)
    except OSError as error:
        raise ResourceError(
            f"{path}: can't be written: {error.strerror}; let this user write into its folder"
        ) from error


# -- what a file says --------------------------------------------------------------------------------


def _without(table: dict[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in keys}


def _machine(machine: MachineConfig, path: Path, fleet: FleetConfig) -> Machine:
    where = f"{path.name}: machine {machine.name!r}"
    said = (machine.cameras, machine.certificate, machine.measure_hz)
    if (times := sum(one is not None for one in said)) != 1:
        raise ConfigError(
            f"{where}: its capacity is {'said twice' if times else 'unknown'}; write cameras = NUMBER, or "
            "certificate = 'FILE' with what `manyeyes bench capacity` wrote there"
        )
    if machine.measure_hz is not None and fleet.placement == "static":
        raise ConfigError(
            f"{where}: with placement = 'static' nobody measures it when it joins; write cameras or "
            "certificate"
        )
    capacity = math.inf if machine.measure_hz is not None else machine.cameras
    if machine.certificate is not None:
        capacity = _certified(where, path.parent / machine.certificate)
    return Machine(
        name=machine.name, capacity=capacity or 0.0, labels=_set(machine.labels), near=machine.near
    )


def _certified(where: str, path: Path) -> float:
    """How many cameras a certificate says. Raises ConfigError for what is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        cameras = document["cameras"] if document["benchmark"] == "capacity" else None
    except OSError as error:
        raise ConfigError(
            f"{where}: certificate {path}: can't be read: {error.strerror}; correct the path"
        ) from error
    except (ValueError, TypeError, KeyError):
        cameras = None
    if type(cameras) is not int:
        raise ConfigError(
            f"{where}: certificate {path}: is none; wanted the capacity.json of `manyeyes bench capacity`"
        )
    if cameras < 1:
        raise ConfigError(f"{where}: certificate {path}: it takes no camera; take the machine out")
    return float(cameras)


def _of_all(tables: dict[str, Any]) -> dict[str, Any]:
    """As a run of all cameras, which has no limit of how many."""
    run = tables.get("run")
    return {**tables, "run": _without(run, ["max_cameras"])} if isinstance(run, dict) else tables


def _camera(camera: PlacedCamera, overlaps: Sequence[OverlapConfig]) -> Camera:
    views = [{zone.partition("/")[0] for zone in overlap.zones} for overlap in overlaps]
    apart = _set(camera.overlaps)
    together = frozenset[str]().union(*(view for view in views if camera.name in view))
    return Camera(
        name=camera.name, weight=camera.weight, needs=_set(camera.needs), near=camera.near,
        overlaps=apart, together=together - apart - {camera.name},
    )  # fmt: skip


def _set(one_or_more: str | tuple[str, ...]) -> frozenset[str]:
    return frozenset((one_or_more,) if isinstance(one_or_more, str) else one_or_more)


def _address(machine: MachineConfig, metrics: MetricsConfig) -> str:
    port = machine.port or metrics.port or MetricsConfig().port
    return f"{machine.host or machine.name}:{port}"


def _check_names(fleet: Fleet) -> None:
    """Raises ConfigError for an overlap with a camera, or a place of a camera, that there is not."""
    names = [camera.name for camera in fleet.cameras]
    places = sorted({machine.near for machine in fleet.machines if machine.near})
    for camera in fleet.cameras:
        where = f"{fleet.file.name}: camera {camera.name!r}"
        for other in sorted(camera.overlaps):
            known(f"{where}: overlaps", "camera", other, names)
        if camera.near is not None and camera.near not in places:
            known(f"{where}: near", "machine with near =", camera.near, places)
