"""Int8: written where it finds as much, refused with the number where it does not."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from pipeline.errors import ConfigError, ModelError
from stages.detector import engines, golden, zoo
from stages.detector.bundle import read_facts
from stages.training import demo, quantising

DEMO = zoo.bundle_of(zoo.DEMO)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """What the demo model was made for: pictures to calibrate with, and others to judge."""
    folder = tmp_path_factory.mktemp("scenes")
    return demo.render(folder, "train", 3), demo.render(folder, "val", 6)


def test_the_demo_model_in_int8_is_small_and_finds_the_same(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(quantising, "MAX_LOSS", 0.05)  # of AP; six pictures are few
    output = tmp_path / "demo8.bundle"
    facts = quantising.quantise(DEMO, output, *scenes)
    assert facts == read_facts(str(output))
    assert output.stat().st_size < DEMO.stat().st_size / 4
    found = facts.provenance["int8"]
    assert found["ap"] > 0.5
    assert f"AP {found['ap']:.4f} in int8, {found['fp32_ap']:.4f} in fp32" in quantising.said_of(
        facts
    )
    engine = engines.load(str(output), facts)
    assert engine.precision == "int8"
    golden.check(facts, engine)
    engine.infer(np.zeros((3, facts.input.height, facts.input.width, 3), np.uint8))


def test_a_loss_is_refused_with_the_number(scenes, tmp_path, monkeypatch):
    found = iter([0.7, 0.6949])
    monkeypatch.setattr(quantising, "_ap", lambda *_: next(found))
    with pytest.raises(ModelError, match=r"in int8 its AP on .* is 0\.6949, and 0\.7000 in fp32"):
        quantising.quantise(DEMO, tmp_path / "demo8.bundle", *scenes)
    assert list(tmp_path.iterdir()) == []


def test_without_pictures_or_an_onnx_form_there_is_none(scenes, tmp_path):
    calibration, validation = scenes
    none = dataclasses.replace(calibration, samples=())
    with pytest.raises(ConfigError, match="wanted pictures, got none"):
        quantising.quantise(DEMO, tmp_path / "m.bundle", none, validation)
    import tiny_models

    from stages.detector.importing import import_model

    path = tiny_models.save(tiny_models.Torchvision(), tmp_path / "m.pt")
    plain = tmp_path / "plain.bundle"
    import_model(path, str(plain), layout="torchvision", classes="a,b", size=64)
    with pytest.raises(
        ModelError, match="int8 is made of its ONNX form, and it has none: none: torch"
    ):
        quantising.quantise(plain, tmp_path / "m.bundle", *scenes)


def test_decoding_is_what_no_convolution_follows(tmp_path):
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = onnx.numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="between"),
        helper.make_node("Conv", ["b", "w"], ["c"], name="last"),
        helper.make_node("Sigmoid", ["c"], ["d"], name="behind"),
        helper.make_node("Sigmoid", ["b"], ["e"], name="aside"),
        helper.make_node("Mul", ["d", "e"], ["y"], name="end"),
    ]
    x, y = (helper.make_tensor_value_info(name, kind, [1, 1, 4, 4]) for name in "xy")
    onnx.save(
        helper.make_model(helper.make_graph(nodes, "g", [x], [y], [weights])), tmp_path / "m.onnx"
    )
    assert sorted(quantising.decoding(tmp_path / "m.onnx")) == ["aside", "behind", "end", "last"]
