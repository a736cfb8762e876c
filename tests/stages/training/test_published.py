"""Published weights become bundles: with random stand-ins of the same form, since no test has a network."""

import dataclasses
import re
import socket

import numpy as np
import pytest
import torch

from benchmarks import stand_ins
from benchmarks.conditioned import conditioned
from pipeline.errors import ConfigError
from stages.detector import engines, golden, zoo
from stages.detector.bundle import read_facts
from stages.detector.importing import COCO80
from stages.training import models, published, weights
from stages.training.models import ModelConfig

CLASSIFIERS = re.compile(
    r"(cls_score|classification_head\.(cls_logits|module_list\.\d+(\.1)?))\.bias$"
)


def small(name):
    """As published, for a small canvas."""
    return dataclasses.replace(stand_ins.as_published(name, 96), width=128)


@pytest.mark.parametrize("sure_of", ["person", "toothbrush"])  # before and behind the rows "N/A"
@pytest.mark.parametrize(
    "name",
    [
        "ssdlite320_mobilenet_v3_large",
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        "retinanet_resnet50_fpn_v2",
    ],
)
def test_a_class_keeps_its_name(name, sure_of, tmp_path):
    file = tmp_path / "weights.pth"
    state = models.build(small(name)).state_dict()
    for key, bias in state.items():
        if CLASSIFIERS.search(key):
            bias.view(-1, 91)[:, weights.COCO.index(sure_of)] += 30
    torch.save(state, file)
    config = ModelConfig(architecture=name, classes=COCO80, width=128, height=96)
    model = models.build(config)
    weights.load(model, name, models.names(config), file, published=True)
    with torch.no_grad():
        [found] = model.eval()([torch.rand(3, 96, 128)])
    best = int(found["labels"][found["scores"].argmax()]) - models.label_offset(config)
    assert COCO80[best] == sure_of


def test_norms_that_were_trained_without_an_epsilon(tmp_path):
    """Which torchvision knows of two of its files, and of no others."""
    for name, shift in (("fasterrcnn_resnet50_fpn", 1e-5), ("fasterrcnn_resnet50_fpn_v2", 0.0)):
        config = ModelConfig(architecture=name, classes=weights.COCO[1:2], width=64, height=64)
        model = models.build(config)
        state = model.state_dict()
        key = next(key for key in state if key.endswith("running_var"))
        rows = {k: v for k, v in state.items() if "box_predictor" not in k}
        head = model.roi_heads.box_predictor
        rows["roi_heads.box_predictor.cls_score.weight"] = torch.rand(91, 1024)
        rows["roi_heads.box_predictor.cls_score.bias"] = torch.rand(91)
        rows["roi_heads.box_predictor.bbox_pred.weight"] = torch.rand(91 * 4, 1024)
        rows["roi_heads.box_predictor.bbox_pred.bias"] = torch.rand(91 * 4)
        rows = {k: v.clone() for k, v in rows.items()}
        torch.save(rows, tmp_path / "weights.pth")
        weights.load(model, name, models.names(config), tmp_path / "weights.pth", published=True)
        assert torch.equal(model.state_dict()[key], rows[key] - shift)
        assert torch.equal(head.cls_score.bias, rows["roi_heads.box_predictor.cls_score.bias"][:2])


def test_a_published_file_is_known_by_its_digest_whatever_it_is_called(tmp_path, monkeypatch):
    name = "retinanet_resnet50_fpn"
    config = small(name)
    model = models.build(config)
    rows = {k: v.clone() for k, v in model.state_dict().items()}
    key = next(key for key in rows if key.endswith("running_var"))
    torch.save(rows, tmp_path / "by-hand.pth")
    weights.load(model, name, models.names(config), tmp_path / "by-hand.pth")
    assert torch.equal(model.state_dict()[key], rows[key])
    digest = published.archive.sha256(str(tmp_path / "by-hand.pth"))
    monkeypatch.setattr(weights, "_digits", lambda url: digest[:8])
    weights.load(model, name, models.names(config), tmp_path / "by-hand.pth")
    assert torch.equal(model.state_dict()[key], rows[key] - 1e-5)


@pytest.mark.parametrize("name", ["COCO_V1", "DEFAULT"])
def test_a_firewall_that_swallows_packets_costs_a_time_out_and_a_sentence(
    name, tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr(weights.download, "TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        for variable in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{silent.getsockname()[1]}")
        config = small("ssdlite320_mobilenet_v3_large")
        with pytest.raises(ConfigError, match=rf"weights '{name}': .* could not be .*timed out"):
            models.build(config, weights=name)
    assert not list(tmp_path.rglob("*.pth*"))


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """SSDLite, for a small canvas."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    entry = zoo.entry("ssdlite320_mobilenet_v3_large")
    return dataclasses.replace(entry, recipe={**entry.recipe, "size": "128x96"})


@pytest.mark.timeout(300)
def test_a_file_where_the_sentence_says_becomes_a_bundle(entry, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "PICTURES", 2)
    unreachable = dataclasses.replace(entry, url="http://127.0.0.1:1/weights-a79551df.pth")
    with pytest.raises(ConfigError) as error:
        published.get(unreachable)
    place = re.search(
        r"\(13 MB\) and put it at (\S+), or name it: manyeyes model get", str(error.value)
    )[1]
    torch.save(conditioned(small(entry.name)).state_dict(), place)
    told = []
    facts = published.get(unreachable, tell=told.append)
    assert "its sha256 does not begin with a79551df" in told[0]
    assert facts == read_facts(str(entry.bundle))
    assert (facts.name, facts.classes, facts.resize.mode) == (entry.name, COCO80, "stretch")
    assert facts.twin
    assert not {"licence", "coco_ap"} & facts.provenance.keys()  # of another file
    engine = engines.load(str(entry.bundle), facts, engine="onnx")
    golden.check(facts, engine)
    assert len(engine.infer(np.zeros((1, 96, 128, 3), np.uint8))) == 1


def test_what_the_maker_says_travels_with_the_maker_s_file(entry, tmp_path, monkeypatch):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"the very one")
    taken = []
    monkeypatch.setattr(published, "_of_torchvision", lambda *arguments: taken.append(arguments))
    digest = published.archive.sha256(file)
    published.get(dataclasses.replace(entry, sha256=digest[:8]), file)
    [(_, _, about)] = taken
    assert (about["licence"], about["coco_ap"]) == ("BSD-3-Clause", 21.3)
    assert about["source_sha256"] == digest


def test_files_that_are_none(entry, tmp_path):
    with pytest.raises(ConfigError, match=r"--from .*none\.pth: there is no such file"):
        published.get(entry, tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ConfigError, match="wanted a state dict"):
        published.get(entry, tmp_path / "text.pth")
    assert not entry.bundle.exists()


@pytest.mark.parametrize(
    "name", [entry.name for entry in zoo.entries().values() if "torchvision" not in entry.recipe]
)
def test_a_file_of_the_published_form_becomes_a_bundle(name, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    entry = zoo.entry(name)
    stand_ins.write(entry, tmp_path / "m.onnx")
    told = []
    facts = published.get(entry, tmp_path / "m.onnx", tell=told.append)
    assert facts == read_facts(str(entry.bundle))
    assert facts.golden["picture"]
    assert ("licence" in facts.provenance) == (
        not entry.sha256
    )  # where a hash is known, it is not that
    assert not any(
        line.startswith("as models of") for line in told
    )  # its recipe leaves nothing open
