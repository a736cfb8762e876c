"""Published weights become bundles: with random stand-ins of the same form, since no test has a network."""

import dataclasses
import re
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

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


def as_published(name):
    """Of 91 rows for each anchor, as torchvision's; `build` adds the background where there is one."""
    rows = 91 if name.startswith(("retinanet", "fcos")) else 90
    classes = tuple(f"row {i}" for i in range(rows))
    return ModelConfig(architecture=name, classes=classes, width=128, height=96)


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
    state = models.build(as_published(name)).state_dict()
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
    config = as_published(name)
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
        config = as_published("ssdlite320_mobilenet_v3_large")
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
    torch.save(conditioned(as_published(entry.name)).state_dict(), place)
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


def gfl(apart):
    """80 classes at 416 px in strides 8, 16, 32, 64; one object. apart: an output for each table."""
    cells = [52 * 52, 26 * 26, 13 * 13, 7 * 7]
    scores, sides = (
        np.full((sum(cells), 80), 0.01, np.float32),
        np.zeros((sum(cells), 32), np.float32),
    )
    scores[52 * 20 + 20, 2] = 0.9
    if not apart:
        return {"output": np.hstack([scores, sides])[None]}
    parts = [*np.split(scores, np.cumsum(cells)[:-1]), *np.split(sides, np.cumsum(cells)[:-1])]
    return {f"t{i}": part[None] for i, part in enumerate(parts)}


def yolox(cells):
    """Raw predictions of 80 classes; one object in the first cell."""
    rows = np.zeros((1, cells, 85), np.float32)
    rows[0, 0, 4:8] = 0.9
    return {"output": rows}


def faces():
    outputs = {
        f"{part}_{stride}": np.zeros((1, (640 // stride) ** 2, columns), np.float32)
        for part, columns in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
        for stride in (8, 16, 32)
    }
    outputs["cls_8"][0, 900] = outputs["obj_8"][0, 900] = 0.9
    return outputs


STAND_INS = {
    "yolox-nano": (416, lambda: yolox(3549)),
    "yolox-s": (640, lambda: yolox(8400)),
    "nanodet-plus-m-416": (416, lambda: gfl(apart=False)),
    "picodet-s-416": (416, lambda: gfl(apart=True)),
    "picodet-m-416": (416, lambda: gfl(apart=True)),
    "yunet": (640, faces),
}


@pytest.mark.parametrize("name", STAND_INS)
def test_a_file_of_the_published_form_becomes_a_bundle(name, tmp_path, monkeypatch):
    onnx_models = pytest.importorskip("onnx_models")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    size, outputs = STAND_INS[name]
    file = onnx_models.save(tmp_path / "m.onnx", outputs(), shape=(1, 3, size, size))
    entry = zoo.entry(name)
    told = []
    facts = published.get(entry, Path(file), tell=told.append)
    assert facts == read_facts(str(entry.bundle))
    assert facts.golden["picture"]
    assert ("licence" in facts.provenance) == (
        not entry.sha256
    )  # where a hash is known, it is not that
    assert not any(
        line.startswith("as models of") for line in told
    )  # its recipe leaves nothing open
