"""A fleet on a cluster: its file, its commands, and what its machines have written about each frame."""

from __future__ import annotations

import datetime
import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

BOUND_S = 300.0  # of a host that is busy with other things
_AWAY_S = 3.0  # a camera that moves is away for longer, one that is read is not
_HEAD = """
[fleet]
placement = "ray"
address = "{address}"
targets = "targets.json"
lease_s = {lease_s:g}
[metrics]
host = "0.0.0.0"
[model]
engine = "stub"
[run]
policy = "every"
[[sink]]
type = "events"
path = "{{machine}}.jsonl"
[[sink]]
type = "store"
path = "{{machine}}.db"
"""


_GET = """
import sys, urllib.request
print(urllib.request.urlopen(f"http://{sys.argv[1]}/metrics", timeout=5).read().decode())
"""


def free_ports(n: int) -> list[int]:
    """That nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def write(
    folder: Path,
    address: str,
    machines: Mapping[str, Mapping[str, Any]],
    cameras: int,
    rate_hz: float,
    lease_s: float,
) -> list[str]:
    """fleet.toml with so many rendered cameras of which no frame may be dropped; returns their names."""
    names = [f"c{n}" for n in range(cameras)]
    tables = [_HEAD.format(address=address, lease_s=lease_s)]
    for name, keys in machines.items():
        rows = {"name": name, **keys}
        tables.append(
            "[[machine]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in rows.items())
        )
    for n, name in enumerate(names):
        source = f"synthetic://?seed={n}&rate={rate_hz:g}&size=160x90"
        tables.append(f'[[camera]]\nname = "{name}"\nsource = "{source}"\n')
    (folder / "fleet.toml").write_text("\n".join(tables))
    return names


@dataclass
class Stay:
    """A run's frames of a camera, from the first that it wrote to the last."""

    camera: str
    machine: str
    first_s: float  # wall time of the picture
    last_s: float
    frames: list[int] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Frames between the first and the last that were never written, or not in their order."""
        return sum(b - a != 1 for a, b in pairwise(self.frames))

    def __str__(self) -> str:
        return f"{self.camera} on {self.machine}: {self.first_s:.3f} to {self.last_s:.3f}"


class Diary:
    """Who served what, read from the events of all machines while they are written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._offsets: dict[Path, int] = {}
        self._open: dict[tuple[str, str], Stay] = {}
        self.stays: dict[
            str, list[Stay]
        ] = {}  # camera → its stays, in the order of their first frame

    def look(self) -> None:
        """Read on, up to the last whole line of each."""
        seen = []
        for path in self.folder.glob("*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                whole, newline, _ = file.read().rpartition(b"\n")
            self._offsets[path] = self._offsets.get(path, 0) + len(whole + newline)
            for event in map(json.loads, whole.splitlines()):
                moment_s = datetime.datetime.fromisoformat(event["time"]).timestamp()
                seen.append((moment_s, path.stem, event["camera"], event["frame_id"]))
        for moment_s, machine, camera, frame in sorted(seen):
            self._saw(machine, camera, moment_s, frame)

    def _saw(self, machine: str, camera: str, moment_s: float, frame: int) -> None:
        """Frames of another run begin anew; those of a camera that comes back to a run go on."""
        stays = self.stays.setdefault(camera, [])
        stay = self._open.get((machine, camera))
        if stay is None or frame <= stay.frames[-1] or self._was_away(stay, moment_s):
            stay = self._open[machine, camera] = Stay(camera, machine, moment_s, moment_s)
            stays.append(stay)
            stays.sort(key=lambda one: one.first_s)
        stay.last_s = moment_s
        stay.frames.append(frame)

    def _was_away(self, stay: Stay, moment_s: float) -> bool:
        """Others had it meanwhile; who writes now and then beside others is here, and is a second owner."""
        return stay is not self.stays[stay.camera][-1] and moment_s - stay.last_s > _AWAY_S

    def of(self, machine: str) -> list[str]:
        """The cameras that it served last."""
        return [camera for camera, stays in self.stays.items() if stays[-1].machine == machine]

    def count(self, cameras: Sequence[str]) -> dict[str, int]:
        """How many stays each had so far."""
        return {camera: len(self.stays.get(camera, [])) for camera in cameras}

    def gaps_s(self, since_s: float) -> list[float]:
        """Between two stays of a camera, of all that began after that moment."""
        pairs = (pair for stays in self.stays.values() for pair in pairwise(stays))
        return [b.first_s - a.last_s for a, b in pairs if b.first_s > since_s]

    @property
    def double(self) -> list[str]:
        """Two machines, or two runs of one, that had a camera at the same time: must be empty."""
        pairs = (pair for stays in self.stays.values() for pair in pairwise(stays))
        return [f"{before}, {after}" for before, after in pairs if before.last_s >= after.first_s]

    @property
    def lost(self) -> int:
        """Frames that are missing within a stay: must be none, since no frame may be dropped."""
        return sum(stay.lost for stays in self.stays.values() for stay in stays)


class Fleet:
    """`manyeyes fleet`, in a folder with its fleet.toml, at the head of a cluster."""

    def __init__(self, folder: Path, cluster: Any) -> None:
        self.folder, self.cluster = folder, cluster
        self.diary = Diary(folder)

    def __call__(self, command: str, *arguments: str, codes: Sequence[int] = (0,)) -> str:
        """What it prints. Raises RuntimeError if it ends with another code."""
        done = subprocess.run(
            [
                *(*self.cluster.before, sys.executable, "-P", "-m", "pipeline"),
                *("fleet", command, "fleet.toml", *arguments),
            ],
            cwd=self.folder, env=self.cluster.environment, capture_output=True, text=True,
            timeout=BOUND_S, check=False,
        )  # fmt: skip
        if done.returncode not in codes:
            raise RuntimeError(f"fleet {command}: {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def status(self) -> dict[str, Any]:
        """Machine → how it does."""
        told = json.loads(self("status", "--json", codes=(0, 1)))
        return {machine["name"]: machine for machine in told["machines"]}

    def ledgers(self) -> dict[str, dict[str, float]]:
        """What does not add up, of each run that Prometheus is sent to: 0 where it does."""
        found = {}
        for group in json.loads((self.folder / "targets.json").read_text()):
            command = [*self.cluster.before, sys.executable, "-c", _GET, group["targets"][0]]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if not done.returncode:  # else it is just starting, or gone
                found[group["labels"]["machine"]] = _unbalanced(done.stdout)
        return found


def _unbalanced(text: str) -> dict[str, float]:
    """Errors of a run's ledger, and of each camera captured - delivered - dropped - in flight."""
    rows: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            if name == "manyeyes_ledger_error":
                rows["errors"] += value
            elif name == "manyeyes_frames_in_flight" and labels["path"] == "detect":
                rows[labels["camera"]] -= value
            elif name == "manyeyes_frames_total" and labels["path"] == "detect":
                rows[labels["camera"]] += value if labels["outcome"] == "captured" else -value
    return rows
