"""The golden inputs are the same bytes everywhere, and the record notices what differs."""

import dataclasses
import hashlib

import numpy as np
import pytest

from pipeline.errors import ModelError
from stages.detector import golden
from stages.detector.bundle import Facts, InputFacts


class Bright:
    """A model that knows one thing: how bright the first channel is; its score and its box say it."""

    precision = "fp32"

    def infer(self, batch):
        out = []
        for pixels in batch:
            score = np.float32(pixels[..., 0].mean() / 255)
            box = np.array([[0, 0, 40 * score, 20]], np.float32)
            out.append((box, np.array([score]), np.array([1])))
        return out


FACTS = Facts(
    name="bright",
    architecture="none",
    classes=("dark", "bright"),
    input=InputFacts(width=64, height=32),
    layout="candidates",
)


def recorded():
    return dataclasses.replace(FACTS, golden=golden.record(FACTS, Bright()))


def test_the_inputs_never_change():
    inputs = golden.pattern(2, 48, 64), golden.picture(64, 48)
    assert [i.shape for i in inputs] == [(2, 48, 64, 3), (90, 160, 3)]
    assert [hashlib.sha256(i.tobytes()).hexdigest()[:16] for i in inputs] == [
        "4bd55d13c48b2993",
        "4d8aad5368988e20",
    ]


def test_the_same_model_passes():
    golden.check(recorded(), Bright())


def test_an_export_without_its_record_is_refused():
    with pytest.raises(ModelError, match="no golden record, which every export writes"):
        golden.check(FACTS, Bright())


@pytest.mark.parametrize(
    "changes", [{"provenance": {"source": "foreign.onnx"}}, {"layout": "yolox"}], ids=str
)
def test_an_imported_model_may_have_found_nothing(changes, caplog):
    golden.check(dataclasses.replace(FACTS, **changes), Bright())
    assert "model 'bright' has no golden record" in caplog.text


@pytest.mark.parametrize(
    "facts",
    [
        dataclasses.replace(recorded(), classes=("bright", "dark")),
        dataclasses.replace(recorded(), input=InputFacts(width=64, height=32, color="bgr")),
    ],
    ids=["names", "colours"],
)
def test_other_facts_fail(facts):
    with pytest.raises(ModelError, match="golden test on the"):
        golden.check(facts, Bright())


def test_a_device_that_computes_wrongly_fails():
    class Wrong(Bright):
        def infer(self, batch):
            return [(b, s * np.float32(1.02), c) for b, s, c in super().infer(batch)]

    with pytest.raises(ModelError, match="wanted 'bright'"):
        golden.check(recorded(), Wrong())


def test_half_precision_may_differ_more():
    class Half(Bright):
        precision = "fp16"

        def infer(self, batch):
            return [(b, s + np.float32(0.01), c) for b, s, c in super().infer(batch)]

    golden.check(recorded(), Half())


def test_a_damaged_record_is_one_sentence():
    for record in ({"generator": "v1"}, {"generator": "v1", "pattern": [[], []], "picture": []}):
        with pytest.raises(ModelError, match="damaged"):
            golden.check(dataclasses.replace(FACTS, golden=record), Bright())
    with pytest.raises(ModelError, match="'v9'"):
        golden.check(dataclasses.replace(FACTS, golden={"generator": "v9"}), Bright())
