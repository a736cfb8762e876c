"""Who knows the password of a camera: that camera's process, and nobody else in the run."""

import dataclasses
import inspect
import json
import os
from pathlib import Path

import patterns
import pytest
from cameras import Camera

from pipeline.plan import config
from pipeline.plan.loading import load
from pipeline.plan.standard import make
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
    }  # fmt: skip
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{patterns.PATH}")
    monkeypatch.syspath_prepend(here)
    return names


def test_no_process_of_a_run_starts_with_a_password(secrets, tmp_path, caplog):
    seen = {}

    def look(supervisor):
        if all(totals.delivered for totals in supervisor.totals.values()) and not seen:
            for pid in descendants(os.getpid()):
                parts = [
                    Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline")
                ]
                seen[pid] = b"\0".join(parts).decode()
            supervisor.stop()

    toml, known = tmp_path / "run.toml", tmp_path / "known.json"
    with (
        Camera(login="gateuser:gatesecret99") as gate,
        Camera(login="yarduser:yardsecret77") as yard,
    ):
        toml.write_text(RUN.format(gate=gate.url, yard=yard.url, known=known))
        plan = make(config.load(toml))
        supervisor = Supervisor(plan, Options(), look)
        supervisor.run()  # each camera lets nobody in but with its own password
    assert len(seen) > len(plan.processes)  # the janitor is looked at, too
    for text in (
        *seen.values(),
        plan.text(),
        json.dumps([*map(dataclasses.asdict, plan.processes)]),
    ):
        for secret in ("gatesecret99", "yardsecret77", "tellssecret55", secrets["YARD_FILE"]):
            assert secret not in text
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
