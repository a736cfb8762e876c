import dataclasses
import time
import warnings

import numpy as np
import pytest
import tiny_models
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, DeviceLost, ModelError
from stages.detector import engine as engine_module
from stages.detector.bundle import Facts, InputFacts
from stages.detector.engines import MAX_FINAL_ROWS, OutOfMemory, StubTiming, load

FACTS = Facts(
    name="m",
    architecture="a",
    classes=("cat", "dog"),
    input=InputFacts(width=64, height=32),
    layout="candidates",
)
rng = np.random.default_rng(0)


def facts(layout="candidates", batch_sizes=(1, 2, 4, 8), **more_input):
    size = InputFacts(width=64, height=32, **more_input)
    return dataclasses.replace(FACTS, layout=layout, input=size, batch_sizes=batch_sizes)


def pictures(n):
    return rng.integers(0, 256, (n, 32, 64, 3), np.uint8)


def test_torchscript_runs_every_batch_size(tmp_path):
    engine = load(tiny_models.save(tiny_models.Candidates(), tmp_path / "m.pt"), FACTS)
    batch = pictures(5)
    together = [tuple(a.copy() for a in arrays) for arrays in engine.infer(batch)]
    for picture, (boxes, scores, labels) in zip(batch, together, strict=True):
        assert boxes[0].tolist() == [0, 0, 32, 16]
        assert scores[0] == pytest.approx(picture[..., 0].mean() / 255, abs=1e-6)
        assert labels.dtype == np.int64
        (alone,) = engine.infer(picture[None])
        assert np.allclose(alone[1], scores, atol=1e-6)


def test_pictures_may_lie_anywhere(tmp_path):
    engine = load(tiny_models.save(tiny_models.Candidates(), tmp_path / "m.pt"), FACTS)
    batch = pictures(2 * max(FACTS.batch_sizes) + 1)
    wanted = [arrays[1].copy() for arrays in engine.infer(batch)]
    batch.flags.writeable = False
    for n in (1, 3, len(batch)):
        scattered = [np.asarray(picture[::-1])[::-1] for picture in batch[:n]]
        got = [arrays[1] for arrays in engine.infer_pictures(scattered)]
        assert np.allclose(got, wanted[:n], atol=1e-6)


def test_a_batch_above_the_largest_is_run_in_parts(tmp_path):
    path = tiny_models.save(tiny_models.Candidates(), tmp_path / "m.pt")
    batch = pictures(7)
    wanted = [arrays[1].copy() for arrays in load(path, FACTS).infer(batch)]
    got = [arrays[1] for arrays in load(path, facts(batch_sizes=(1, 2))).infer(batch)]
    assert np.array_equal(wanted, got)


class Mean(nn.Module):
    """Per channel the mean of a float input."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        means = x.mean(dim=(2, 3))  # (B, 3)
        return torch.cat([means, means, means[:, :1]], dim=1)[:, None]  # (B, 1, 7)


def test_float_input_is_scaled_then_normalised(tmp_path):
    affine = {"scale": 1 / 255, "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.25, 2.0)}
    path = tiny_models.save(Mean(), tmp_path / "m.pt")
    batch = pictures(2)
    means = batch.mean(axis=(1, 2)) / 255
    wanted = (means - affine["mean"]) / affine["std"]
    outputs = load(path, facts("yolox", dtype="float32", **affine)).infer(batch)
    assert np.allclose([arrays[0][0, :3] for arrays in outputs], wanted, atol=1e-4)


def test_lists_of_dicts_become_three_arrays(tmp_path):
    path = tiny_models.save(tiny_models.Torchvision(), tmp_path / "m.pt")
    three = np.stack([np.full_like(pictures(1)[0], value) for value in (0, 1, 2)])
    unscaled = dataclasses.replace(facts("torchvision", dtype="float32").input, scale=1 / 255)
    engine = load(path, dataclasses.replace(facts("torchvision"), input=unscaled))
    outputs = engine.infer(three)
    assert [arrays[0].shape for arrays in outputs] == [(1, 4), (2, 4), (3, 4)]
    assert [len(arrays) for arrays in outputs] == [3, 3, 3]
    assert max(len(arrays[0]) for arrays in outputs) <= MAX_FINAL_ROWS


@pytest.mark.parametrize("layout", ["torchvision", "yolox"])
def test_outputs_of_another_kind_are_named(tmp_path, layout):
    module = tiny_models.Candidates() if layout == "torchvision" else Dicts()
    engine = load(tiny_models.save(module, tmp_path / "m.pt"), facts(layout, dtype="float32"))
    with pytest.raises(ModelError, match=r"m\.pt: (layout|the model fails)"):
        engine.infer(pictures(1))


class Dicts(nn.Module):
    """Something that no layout declares."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": x}


class Half(nn.Module):
    """One result whatever the batch, as a trace of one picture may give."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(1, 5, 7)


def test_a_baked_in_batch_size_is_noticed(tmp_path):
    engine = load(tiny_models.save(Half(), tmp_path / "m.pt"), facts("yolox"))
    assert len(engine.infer(pictures(1))) == 1
    with pytest.raises(ModelError, match="batch of 2 pictures must give results for 2, got 1"):
        engine.infer(pictures(2))


class Fails(nn.Module):
    """Asks for too much memory, for a shape that cannot be, or raises by itself."""

    def forward(self, x: Tensor) -> Tensor:
        if int(x.max()) == 0:
            return torch.zeros(1 << 48)
        if int(x.max()) == 1:
            return x.reshape(5, 7)
        raise RuntimeError("no such picture")


def test_failures_are_told_apart(tmp_path):
    engine = load(tiny_models.save(Fails(), tmp_path / "m.pt"), FACTS)
    with pytest.raises(OutOfMemory, match="batch of 2"):
        engine.infer(np.zeros((2, 32, 64, 3), np.uint8))
    with pytest.raises(ModelError, match=r"64x32, uint8: .*shape '\[5, 7\]' is invalid"):
        engine.infer(np.full((2, 32, 64, 3), 1, np.uint8))
    with pytest.raises(ModelError, match="no such picture"):
        engine.infer(np.full((2, 32, 64, 3), 2, np.uint8))


def test_bf16_keeps_float32_outputs(tmp_path):
    path = tiny_models.save(tiny_models.Candidates(), tmp_path / "m.pt")
    engine = load(path, FACTS, precision="bf16")
    assert engine.precision == "bf16"
    assert [array.dtype for array in engine.infer(pictures(1))[0]] == [
        np.float32,
        np.float32,
        np.int64,
    ]


def test_loading_is_silent_and_leaves_other_warnings(tmp_path):
    path = tiny_models.save(tiny_models.Candidates(), tmp_path / "m.pt")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        load(path, FACTS)
        warnings.warn("another", FutureWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["another"]


def test_wrong_settings(tmp_path):
    path = tiny_models.save(tiny_models.Candidates(), tmp_path / "m.pt")
    for settings, says in (
        ({"device": "gpu"}, "device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        ({"device": "cuda:x"}, "device must be"),
        ({"device": "cuda:99"}, "CUDA devices; write device = 'cpu'"),
        ({"precision": "int8"}, "precision must be one of"),
        ({"engine": "onnx"}, "cannot run it, torchscript can"),
    ):
        with pytest.raises(ConfigError, match=says):
            load(path, FACTS, **settings)
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ModelError, match="got neither"):
        load(str(tmp_path / "text.pt"), FACTS)


def test_stub_finds_the_bright_part_and_takes_its_time():
    engine = load("", FACTS, engine="stub", stub=StubTiming(alpha_ms=4, beta_ms=3))
    batch = np.zeros((2, 32, 64, 3), np.uint8)
    batch[1, 5:9, 10:30] = 255
    start = time.perf_counter()
    dark, bright = engine.infer(batch)
    assert time.perf_counter() - start >= 0.010
    assert (dark[1].tolist(), bright[0].tolist()) == ([0], [[10, 5, 30, 9]])
    with pytest.raises(ConfigError, match="candidates"):
        load("", facts("yolox"), engine="stub")


def test_warm_up_reports_the_slowest_batch():
    for burn in (False, True):
        timing = StubTiming(alpha_ms=2, beta_ms=2, burn=burn)
        engine = load("", FACTS, engine="stub", stub=timing)
        assert engine.warm_up((1, 4)) >= 0.010
        assert engine.warm_up(()) == 0


def test_the_buffer_is_the_same_memory_each_time():
    engine = load("", FACTS, engine="stub")
    assert engine.buffer(3).shape == (3, 32, 64, 3)
    engine.buffer(2)[:] = 7
    assert engine.buffer(1).max() == 7


@pytest.fixture
def onnx_path(tmp_path):
    """y = x, float (B, 3, 32, 64) flattened to (B, 1, 6144)."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    x = helper.make_tensor_value_info("x", float32, ["b", 3, 32, 64])
    y = helper.make_tensor_value_info("y", float32, ["b", 1, 6144])
    shape = helper.make_tensor("shape", onnx.TensorProto.INT64, [3], [-1, 1, 6144])
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    graph = helper.make_graph([node], "g", [x], [y], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return str(path)


def test_onnx_input_is_planar_scaled_and_normalised(onnx_path):
    affine = {"scale": 1 / 255, "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.25, 2.0)}
    batch = pictures(3)
    wanted = ((batch / 255 - affine["mean"]) / affine["std"]).transpose(0, 3, 1, 2)
    engine = load(onnx_path, facts("yolox", dtype="float32", **affine))
    outputs = engine.infer(batch)
    assert np.allclose([arrays[0][0] for arrays in outputs], wanted.reshape(3, -1), atol=1e-5)


def test_onnx_models_that_do_not_fit_are_named(onnx_path, tmp_path):
    with pytest.raises(ModelError, match=r"one input of tensor\(uint8\)"):
        load(onnx_path, FACTS)
    wide = dataclasses.replace(FACTS, input=InputFacts(width=96, height=32, dtype="float32"))
    with pytest.raises(ModelError, match="fails on a batch of 1 pictures of 96x32"):
        load(onnx_path, wide).infer(np.zeros((1, 32, 96, 3), np.uint8))
    with pytest.raises(ConfigError, match="precision inside"):
        load(onnx_path, facts(dtype="float32"), precision="fp16")
    with pytest.raises(ConfigError, match="this ONNX Runtime offers"):
        load(onnx_path, facts(dtype="float32"), device="cuda")
    with open(onnx_path, "rb") as file:
        damaged = file.read().replace(b"Reshape", b"Rashape")
    (tmp_path / "bad.onnx").write_bytes(damaged)
    with pytest.raises(ModelError, match="ONNX Runtime cannot load it"):
        load(str(tmp_path / "bad.onnx"), facts(dtype="float32"))


def test_errors_lose_their_traceback():
    error = RuntimeError(
        "The following failed.\nTraceback of TorchScript\n  x\nRuntimeError: no shape\n"
    )
    assert engine_module.first_line(error) == "RuntimeError: no shape"
    assert engine_module.first_line(RuntimeError("a\nb")) == "a"
    assert engine_module.first_line(DeviceLost()) == "DeviceLost()"
