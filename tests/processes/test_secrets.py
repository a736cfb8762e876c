"""Who knows the password of a camera: that camera's process, and nobody else in the run."""

import dataclasses
import inspect
import json
import os
import re
import signal
from pathlib import Path

import patterns
import pytest
from cameras import Camera

from pipeline.plan import config
from pipeline.plan.loading import load
from pipeline.plan.planner import Planner
from pipeline.stage import Sink
from pipeline.supervision.supervisor import Options, Supervisor
from stages.capture import choose

RUN = """
[model]
engine = "stub"
[[camera]]
name = "gate"
source = "{gate}"
credentials = "GATE"
[[camera]]
name = "yard"
source = "{yard}"
credentials = "YARD"
[[sink]]
type = "custom"
name = "tells"
run = "test_secrets:Tells"
path = "{known}"
"""


@dataclasses.dataclass(frozen=True)
class TellsConfig:
    path: str


class Tells(Sink):
    """Writes down what it has in its environment."""

    Config = TellsConfig

    @classmethod
    def secrets(cls, config):
        return ("TELLS_TOKEN",)

    def setup(self):
        Path(self.config.path).write_text(json.dumps(dict(os.environ)))

    def process(self, result: load("pipeline.messages:Result")) -> None:
        pass


def descendants(pid):
    """Every process below this one."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield child
            yield from descendants(child)


@pytest.fixture
def secrets(monkeypatch, tmp_path):
    file = tmp_path / "yard"
    file.write_text("yarduser\nyardsecret77\n")
    file.chmod(0o600)
    names = {
        "GATE_USER": "gateuser", "GATE_PASSWORD": "gatesecret99", "YARD_FILE": str(file),
        "TELLS_TOKEN": "tellssecret55",
        # of a camera and of a target that join later, perhaps
        "LATER_USER": "latersecret11", "LATER_PASSWORD": "latersecret22", "HOOK_SECRET": "whsec_secret33",
    }  # fmt: skip
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{patterns.PATH}")
    monkeypatch.syspath_prepend(here)
    return names


def said_at_start(pid):
    """What every process of the same user can read of one."""
    parts = [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline")]
    return b"\0".join(parts).decode()


def test_no_process_of_a_run_starts_with_a_password(secrets, tmp_path, caplog):
    seen, last = {}, []

    def look(supervisor):
        """At all that run, then at one that is started when a camera with a password has left."""
        inference = supervisor.children[name]
        if supervisor.stopping:
            return
        if not seen and all(totals.delivered for totals in supervisor.totals.values()):
            seen.update((pid, said_at_start(pid)) for pid in descendants(os.getpid()))
            supervisor.apply(planner.without("yard").plan)
        elif seen and "yard" not in supervisor.plan.cameras and inference.incarnation == 0:
            inference.signal(signal.SIGKILL)
        elif inference.incarnation and inference.state == "ready" and not last:
            last.append(said_at_start(inference.pid))
            supervisor.stop()

    toml, known = tmp_path / "run.toml", tmp_path / "known.json"
    with (
        Camera(login="gateuser:gatesecret99") as gate,
        Camera(login="yarduser:yardsecret77") as yard,
    ):
        toml.write_text(RUN.format(gate=gate.url, yard=yard.url, known=known))
        planner = Planner(config.load(toml), config.load, toml)
        plan = planner.plan
        name = next(spec.name for spec in plan.processes if spec.role == "batch")
        supervisor = Supervisor(plan, Options(), look)
        supervisor.run()  # each camera lets nobody in but with its own password
    assert len(seen) > len(plan.processes)  # the janitor is looked at, too
    assert last
    for text in (
        *seen.values(),
        *last,
        plan.text(),
        json.dumps([*map(dataclasses.asdict, plan.processes)]),
    ):
        assert not re.search(r"secret\d\d", text)
        assert secrets["YARD_FILE"] not in text
    assert "secret" not in caplog.text
    environment = json.loads(known.read_text())
    assert {name for name in secrets if name in environment} == {"TELLS_TOKEN"}


def test_every_source_that_takes_credentials_says_what_they_are_in():
    sources = [load(run) for run, _ in (choose.AV, *choose.CLASSES.values())]
    taking = [cls for cls in sources if "credentials" in inspect.signature(cls.Config).parameters]
    assert taking
    for cls in taking:
        needed = {
            field.name: "x"
            for field in dataclasses.fields(cls.Config)
            if field.default is field.default_factory is dataclasses.MISSING
        }
        made = cls.Config(**needed, credentials="GATE")
        assert set(cls.secrets(made)) == {"GATE_USER", "GATE_PASSWORD", "GATE_FILE"}
