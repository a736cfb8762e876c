"""The capacity of a machine that joins: what doctor has measured there, or why that is not known."""

import shutil
from time import monotonic, sleep

import pytest

from pipeline.fleet import measuring as measuring_module
from pipeline.fleet.measuring import Measuring
from pipeline.host.speed import Speed, Timing, remember
from pipeline.plan.model_path import demo_model
from pipeline.plan.sizing import cameras_at


def until(condition):
    """Poll for what a thread and its process do; there is nothing to wait on."""
    end = monotonic() + 120
    while not condition():
        assert monotonic() < end, "it did not happen in time"
        sleep(0.01)


@pytest.fixture
def model(tmp_path):
    return shutil.copy(demo_model(), tmp_path / "street.bundle")


def test_what_was_measured_before_is_known_at_once(model):
    timing = Timing(
        model=str(model), engine="onnx", device="cpu fp32", threads=1, alpha_s=0.001, beta_s=0.002,
        seconds={1: 0.003}, cpu_s=0.004, capture_s=0.001, preprocess_s=0.001, postprocess_s=0.001,
    )  # fmt: skip
    remember(Speed(source="a test", timings=(timing,)))
    measuring = Measuring(model, 5.0)
    until(lambda: measuring.cameras is not None)
    assert measuring.cameras == cameras_at(timing, 5.0)[0] > 0
    assert measuring.failure == ""


def test_what_can_not_be_measured_says_why(tmp_path):
    measuring = Measuring(tmp_path / "there.bundle", 5.0)
    until(lambda: measuring.failure)
    assert measuring.failure.startswith("its capacity is unknown: doctor: ")
    assert "there.bundle" in measuring.failure
    assert measuring.cameras is None


def test_who_measures_for_too_long_is_ended_and_said_so(model, monkeypatch):
    monkeypatch.setattr(measuring_module, "_DOCTOR_S", 0.01)
    measuring = Measuring(model, 5.0)
    until(lambda: measuring.failure)
    assert measuring.failure == "its capacity is unknown: doctor: it was not through after 0 s"
