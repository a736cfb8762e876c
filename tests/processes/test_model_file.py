"""The model's file is changed while a run goes on, and inference dies: it goes on with what it had."""

import json
import shutil
import signal

import pytest

from pipeline.plan import config
from pipeline.plan.model_path import demo_model
from pipeline.plan.standard import make
from pipeline.supervision.supervisor import Options, Supervisor


def removed(path):
    path.unlink()


def overwritten(path):
    path.write_bytes(b"no model")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("change", [removed, overwritten, cut])
def test_the_next_inference_has_the_model_that_the_run_began_with(tmp_path, change, caplog):
    model, events = tmp_path / "street.bundle", tmp_path / "events.jsonl"
    shutil.copyfile(demo_model(), model)
    plan = make(
        config.from_sources(["synthetic://?seed=1&size=640x352&rate=8"], model=model, events=events)
    )
    (name,) = [spec.name for spec in plan.processes if spec.role == "batch"]
    state = {"served": 0, "killed": False, "again": False}

    def tick(supervisor):
        child = supervisor.children[name]
        served = supervisor.totals["cam0", "detect"].delivered if supervisor.totals else 0
        if not state["killed"]:
            if served:
                change(model)
                child.signal(signal.SIGKILL)
                state.update(killed=True)
        elif child.incarnation >= 1 and child.state == "ready":
            if not state["again"]:
                state.update(again=True, served=served)
            elif served > state["served"]:
                supervisor.stop()

    supervisor = Supervisor(plan, Options(), tick)
    supervisor.run()
    assert supervisor.children[name].incarnation == 1, caplog.text
    told = [r.getMessage() for r in caplog.records if "since the run began" in r.getMessage()]
    assert len(told) == 1
    assert str(model) in told[0]
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert any(event["detections"] for event in lines)
    (totals,) = supervisor.totals.values()
    assert (totals.error, totals.delivered) == (0, len(lines))


def test_a_model_that_does_not_load_is_called_by_its_name(tmp_path):
    model = tmp_path / "street.bundle"
    shutil.copyfile(demo_model(), model)
    plan = make(config.from_sources(["synthetic://?seed=1"], model=model))
    model.write_bytes(b"no model")  # between the check and the start
    with pytest.raises(config.ConfigError, match=r"street\.bundle") as caught:
        Supervisor(plan, Options()).run()
    assert "/proc/" not in str(caught.value)
