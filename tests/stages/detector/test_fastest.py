"""Which engine runs a bundle: the fastest that computes rightly here, found once and kept."""

import dataclasses
import fcntl
import functools
import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError, ModelError
from stages.detector import archive, engines, fastest, golden, openvino_engine
from stages.detector.bundle import read_facts
from stages.detector.importing import import_model
from stages.inference import Inference, InferenceConfig

pytest.importorskip("onnxruntime")


class Spots(torch.nn.Module):
    """(B, 6, 64): a box for each cell of 8 px, of class 0 where it is bright and 1 where it is dark."""

    def __init__(self):
        super().__init__()
        y, x = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
        cells = torch.stack([8.0 * x + 4, 8.0 * y + 4, 8.0 + 0 * x, 8.0 + 0 * y])
        self.register_buffer("cells", cells.flatten(1)[None])  # (1, 4, 64)

    def forward(self, x):
        bright = torch.nn.functional.avg_pool2d(x.mean(dim=1, keepdim=True), 8).flatten(2) - 0.5
        scores = 0.6 * torch.cat([bright, -bright], dim=1).clamp(min=0)
        return torch.cat([self.cells.expand(x.shape[0], -1, -1), scores], dim=1)


def traced(path, module=None, batch=1):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(module or Spots(), torch.rand(batch, 3, 64, 64)).save(str(path))
    return str(path)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spots")
    output = folder / "spots.bundle"
    import_model(
        traced(folder / "spots.pt"),
        str(output),
        layout="ultralytics",
        classes="bright,dark",
        size=64,
    )
    return output


@pytest.fixture
def spoilt(bundle, tmp_path):
    """With the twin of a model whose boxes are half as large; the hash in the facts fits it."""
    half = Spots()
    half.cells[:, 2:] /= 2
    other = tmp_path / "other.bundle"
    import_model(
        traced(tmp_path / "half.pt", half), str(other), layout="ultralytics", classes="a,b", size=64
    )
    twin = tmp_path / "twin.onnx"
    twin.write_bytes(archive.read_twin(other, read_facts(str(other)).twin))
    facts = dataclasses.replace(read_facts(str(bundle)), twin=archive.sha256(twin))
    path = tmp_path / "spoilt.bundle"
    archive.write_text(bundle, path, facts.to_json(), twin)
    return path


def started(model, **config):
    stage = Inference(InferenceConfig(model=str(model), **config))
    stage.check(stage.config)
    stage.setup()
    return stage


def test_a_traced_model_gets_its_twin(bundle):
    facts = read_facts(str(bundle))
    assert facts.twin
    assert "twin" not in facts.provenance
    batch = golden.pattern(3, 64, 64)
    wanted = started(bundle, engine="torchscript")._engine.infer(batch)
    for name in fastest.candidates(str(bundle), facts, "auto")[1:]:
        found = started(bundle, engine=name)._engine.infer(batch)
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(ours[0], theirs[0], atol=1e-4)


def test_the_answer_is_kept_and_read(bundle, tmp_path, caplog):
    memory = tmp_path / "cache" / "m.json"
    with caplog.at_level("INFO"):
        first = started(bundle, memory=str(memory))
    known = json.loads(memory.read_text())
    assert tuple(known["picture_ms"]) == fastest.candidates(str(bundle), first._facts, "auto")
    assert first.engine == known["engine"] == min(known["picture_ms"], key=known["picture_ms"].get)
    assert f"engine: {fastest.describe(known)}" in caplog.text
    for wanted in ("onnx", "torchscript"):  # what is kept decides, whatever it is
        memory.write_text(json.dumps({**known, "engine": wanted}))
        assert started(bundle, memory=str(memory)).engine == wanted
        assert started(bundle, fastest=wanted).engine == wanted  # and so does what doctor found


def test_who_waits_for_another_s_answer_says_that_it_lives(bundle, tmp_path):
    """A trial of a large model takes minutes, in which those that wait for it would count as hung."""
    memory = tmp_path / "m.json"
    asked = []
    with memory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def alive():
            asked.append(None)
            if len(asked) == 3:  # the other one is through
                memory.write_text('{"engine": "onnx", "picture_ms": {}}')
                fcntl.flock(lock, fcntl.LOCK_UN)

        stage = Inference(InferenceConfig(model=str(bundle), memory=str(memory)))
        stage.runtime.alive = alive
        stage.setup()
    assert stage.engine == "onnx"
    assert len(asked) == 3


def test_where_the_answer_is_known_torch_is_not_loaded(bundle, tmp_path):
    memory = tmp_path / "m.json"
    memory.write_text('{"engine": "onnx", "picture_ms": {}}')
    script = (
        "import sys; from stages.inference import Inference, InferenceConfig as C; "
        f"s = Inference(C(model={str(bundle)!r}, memory={str(memory)!r})); s.setup(); "
        "print(s.engine, 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.stdout.split() == ["onnx", "False"], found.stderr


def test_one_that_computes_wrongly_is_left_out(spoilt, tmp_path, caplog):
    memory = tmp_path / "m.json"
    assert started(spoilt, memory=str(memory)).engine == "torchscript"
    assert "engine 'onnx' is left out: model 'spots' fails its golden test" in caplog.text
    for name in fastest.candidates(str(spoilt), read_facts(str(spoilt)), "auto")[1:]:
        assert "golden test" in json.loads(memory.read_text())["left_out"][name]
        with pytest.raises(ModelError, match="golden test"):
            started(spoilt, engine=name)


def test_a_kept_answer_that_is_wrong_now_is_found_again(spoilt, tmp_path, caplog):
    memory = tmp_path / "m.json"
    memory.write_text('{"engine": "onnx", "picture_ms": {"onnx": 1.0}}')
    assert started(spoilt, memory=str(memory)).engine == "torchscript"
    assert "was the fastest, and fails now" in caplog.text
    assert json.loads(memory.read_text())["engine"] == "torchscript"


def test_where_none_passes_the_reason_is_that_of_its_own(spoilt, tmp_path):
    facts = read_facts(str(spoilt))
    wrong = dataclasses.replace(facts, classes=facts.classes[::-1])
    with pytest.raises(ConfigError, match="golden test"):
        Inference(InferenceConfig(model=str(spoilt), facts=wrong.to_json())).setup()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"engine": 3}', '{"engine": "cuda", "picture_ms": {}}']
)
def test_a_damaged_memory_is_none(bundle, tmp_path, text):
    memory = tmp_path / "m.json"
    memory.write_text(text)
    assert started(bundle, memory=str(memory)).engine in ("torchscript", "onnx", "openvino")
    assert fastest.recall(memory)["picture_ms"]


def test_a_cache_that_cannot_be_written_is_no_error(bundle, tmp_path):
    (tmp_path / "file").write_text("")
    assert started(bundle, memory=str(tmp_path / "file" / "m.json")).engine


def test_precision_and_no_golden_record_leave_less_choice(bundle, monkeypatch):
    facts = read_facts(str(bundle))
    unproven = dataclasses.replace(facts, golden=None)
    for installed, one_more in ((True, ("openvino",)), (False, ())):
        monkeypatch.setattr(openvino_engine, "is_installed", lambda there=installed: there)
        choice = functools.partial(fastest.candidates, str(bundle), facts)
        assert choice("auto") == choice("fp32") == ("torchscript", "onnx", *one_more)
        assert choice("bf16") == ("torchscript", *one_more)
        assert choice("fp16") == ("torchscript",)
        assert fastest.candidates(str(bundle), unproven, "auto") == ("torchscript",)


class Bags(torch.nn.Module):
    """Loops over its pictures, so that a trace has as many of them as it was made with."""

    def forward(self, x):
        return torch.stack([Spots()(x[i : i + 1])[0] for i in range(x.shape[0])])


def test_a_trace_for_one_picture_has_a_twin_for_one(tmp_path):
    output = tmp_path / "m.bundle"
    facts = import_model(
        traced(tmp_path / "m.pt", Bags()), str(output), layout="ultralytics", classes="a,b", size=64
    )
    assert facts.batch_sizes == (1,)
    assert facts.twin
    assert started(output, engine="onnx")


def test_what_torch_cannot_write_is_said_once(tmp_path, caplog):
    import tiny_models

    path = tiny_models.save(tiny_models.Torchvision(), tmp_path / "m.pt")
    facts = import_model(
        path, str(tmp_path / "m.bundle"), layout="torchvision", classes="a,b", size=64
    )
    assert facts.twin is None
    assert facts.provenance["twin"].startswith("none: torch can't write it as ONNX: ")
    assert caplog.text.count("TorchScript alone will run it") == 1
    assert sorted(os.listdir(tmp_path)) == ["m.bundle", "m.pt"]


def test_nobody_is_told_what_runs_here(bundle, tmp_path):
    """ONNX Runtime would keep a file of its session for those that it tells."""
    script = (
        "from stages.inference import Inference, InferenceConfig as C; import os; "
        f"s = Inference(C(model={str(bundle)!r}, engine='onnx')); s.setup(); "
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True,
        env={**environment, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert found.stdout.strip() == "1", found.stderr
    assert list(tmp_path.iterdir()) == []


def test_openvino_takes_what_onnx_runtime_takes(bundle):
    pytest.importorskip("openvino")
    facts = read_facts(str(bundle))
    stage = started(bundle, engine="openvino", precision="bf16")
    assert stage.device == "cpu bf16"
    golden.check(facts, stage._engine)
    for settings, says in (
        ({"device": "cuda"}, "runs on the CPU, got device 'cuda'"),
        ({"precision": "fp16"}, "computes in fp32 or bf16, got precision 'fp16'"),
    ):
        with pytest.raises(ConfigError, match=says):
            engines.load(str(bundle), facts, engine="openvino", **settings)


def test_openvino_names_what_does_not_fit(bundle):
    pytest.importorskip("openvino")
    facts = read_facts(str(bundle))
    wide = dataclasses.replace(facts, input=dataclasses.replace(facts.input, width=96))
    with pytest.raises(ModelError, match="fails on a batch of 1 pictures of 96x64"):
        engines.load(str(bundle), wide, engine="openvino").infer(np.zeros((1, 64, 96, 3), np.uint8))
