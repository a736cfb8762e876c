"""A bundle is written only when it equals the training model; a spoilt one is noticed."""

import copy
import dataclasses
import shutil
import zipfile

import numpy as np
import pytest
import torch
from spoilt_bundles import SPOILT, save
from test_candidates import lively

from pipeline.errors import ConfigError, ManyeyesError, ModelError
from stages.detector import archive, engines, golden
from stages.detector.bundle import Defaults, ResizeFacts, read_facts
from stages.training import export as exporting
from stages.training import parity
from stages.training.candidates import candidates
from stages.training.export import export
from stages.training.models import ModelConfig

TINY = ModelConfig(
    architecture="ssdlite",
    classes=("person", "car", "bicycle"),
    width=96,
    height=64,
    backbone="mobilenet_v2[:7]",
    width_mult=0.25,
    first_stride=8,
    levels=2,
)
FASTER = ModelConfig(
    architecture="fasterrcnn", classes=("a", "b"), width=96, height=96, backbone="mobilenet_v2[:7]",
    width_mult=0.25,
)  # fmt: skip


def pictures(count=5):
    return [golden.picture(100 + 30 * i, 120)[:, 20 * i :] for i in range(count)]


@pytest.fixture(scope="module")
def model():
    return lively(TINY)


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "tiny.bundle"
    export(model, TINY, output=path, pictures=pictures())
    return path


@pytest.fixture(scope="module")
def trained_on_something_else(tmp_path_factory):
    """A twin of the same architecture; its export takes seconds."""
    path = tmp_path_factory.mktemp("twin") / "other.onnx"
    exporting._save_onnx(candidates(lively(TINY, seed=1), TINY), TINY, path)
    return path


def opened(path, engine="torchscript"):
    """As the inference process does it; returns facts and engine or raises."""
    facts = read_facts(str(path))
    engine = engines.load(str(path), facts, engine=engine, device="cpu", precision="fp32")
    golden.check(facts, engine)
    return facts, engine


def test_what_an_untrained_model_finds_everywhere_is_not_compared_as_a_whole():
    config = ModelConfig(architecture="fcos_tiny", classes=TINY.classes, width=96, height=64)
    picture, rows = np.zeros((1, 64, 96, 3), np.uint8), 10
    [everything] = parity._reference(lively(config), config, picture, 0.0, 10**6)
    [some] = parity._reference(lively(config), config, picture, 0.0, rows)
    assert len(everything.scores) > 20 * rows
    assert rows <= len(some.scores) <= 3 * 2 * rows  # of each level
    assert set(np.sort(everything.scores)[-rows:]) <= set(some.scores)


class TestExport:
    def test_facts_say_what_is_in_the_file(self, bundle):
        facts, engine = opened(bundle)
        assert facts.classes == TINY.classes
        assert facts.name == "tiny"
        [arrays] = engine.infer(np.zeros((1, 64, 96, 3), np.uint8))
        assert sum(a.nbytes for a in arrays) == facts.output_bytes_per_image
        assert facts.provenance["parity"]["candidates"] > 100
        assert ModelConfig.from_json(facts.provenance["model"]) == TINY

    def test_nothing_else_is_left_beside_it(self, bundle):
        assert [p.name for p in bundle.parent.iterdir()] == [bundle.name]

    def test_no_device_is_baked_in(self, bundle):
        with zipfile.ZipFile(bundle) as file:
            code = b"".join(file.read(n) for n in file.namelist() if n.endswith(".py"))
        assert b'torch.device("' not in code

    def test_runs_on_a_device_without_memory(self, bundle):
        module = torch.jit.load(str(bundle), map_location="meta")
        found = module(torch.zeros(2, 3, 64, 96, dtype=torch.uint8, device="meta"))
        assert {t.device.type for t in found} == {"meta"}

    def test_the_callers_facts_travel(self, model, tmp_path):
        facts = export(
            model,
            TINY,
            output=tmp_path / "new" / "x.bundle",
            pictures=pictures(1),
            name="street",
            resize=ResizeFacts(align="top-left", pad=0),
            defaults=Defaults(score_threshold=0.2),
            provenance={"data": {"train": "sha256"}},
            twin=False,
            k=50,
        )
        assert facts == read_facts(str(tmp_path / "new" / "x.bundle"))
        assert (facts.name, facts.resize.pad, facts.defaults.score_threshold) == ("street", 0, 0.2)
        assert facts.output_bytes_per_image == 50 * 28
        assert facts.provenance["data"] == {"train": "sha256"}

    @pytest.mark.parametrize("precision", ["fp16", "bf16"])
    def test_half_precision_is_close(self, model, precision, tmp_path):
        path = tmp_path / "half.bundle"
        facts = export(model, TINY, output=path, pictures=pictures(), precision=precision)
        assert facts.provenance["parity"]["precision"] == precision
        opened(path)

    def test_two_stages(self, tmp_path):
        path = tmp_path / "faster.bundle"
        export(lively(FASTER), FASTER, output=path, pictures=pictures(2), twin=False)
        opened(path)

    @pytest.mark.parametrize("config", [TINY, FASTER], ids=["one stage", "two stages"])
    def test_onnx(self, config, tmp_path):
        path = tmp_path / "tiny.onnx"
        export(lively(config), config, output=path, pictures=pictures(), format="onnx")
        _, engine = opened(path, "onnx")
        three = np.zeros((3, config.height, config.width, 3), np.uint8)
        assert len(engine.infer(three)) == 3
        assert [p.name for p in tmp_path.iterdir()] == [path.name]

    def test_onnx_halves_are_refused(self, model, tmp_path):
        with pytest.raises(ConfigError, match="fp32"):
            export(
                model, TINY, output=tmp_path / "x", pictures=pictures(1), format="onnx",
                precision="fp16",
            )  # fmt: skip

    @pytest.mark.parametrize("wrong", [{"format": "onxx"}, {"precision": "int8"}])
    def test_unknown_formats_are_refused(self, model, wrong, tmp_path):
        with pytest.raises(ConfigError, match="wanted one of"):
            export(model, TINY, output=tmp_path / "x", pictures=pictures(1), **wrong)

    def test_without_pictures_there_is_no_proof(self, model, tmp_path):
        with pytest.raises(ConfigError, match="at least one picture"):
            export(model, TINY, output=tmp_path / "x.bundle", pictures=[])
        assert list(tmp_path.iterdir()) == []

    def test_an_unwritable_folder_is_one_sentence(self, model, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigError, match="cannot be written"):
            export(model, TINY, output=tmp_path / "file" / "x.bundle", pictures=pictures(1))

    def test_what_differs_is_not_written(self, model, tmp_path, monkeypatch):
        def half_folded(module):
            module.net.backbone.stages[0][0][0].weight.data *= 1.01
            return 0

        monkeypatch.setattr(exporting, "fold_batch_norms", half_folded)
        path = tmp_path / "x.bundle"
        path.write_text("the old one")
        with pytest.raises(ModelError, match="nothing was written"):
            export(model, TINY, output=path, pictures=pictures(1), twin=False)
        assert path.read_text() == "the old one"
        assert list(tmp_path.iterdir()) == [path]


class TestTwin:
    """The same network as ONNX, inside the bundle."""

    def test_finds_what_the_model_finds(self, model, bundle):
        facts, engine = opened(bundle, "onnx")
        found = parity.compare(model, TINY, engine, facts, pictures())
        assert found.candidates > 100

    def test_its_reason_is_kept_where_there_is_none(self, model, tmp_path, monkeypatch, caplog):
        def doubled(module, config, path):
            module = copy.deepcopy(module)
            module.net.backbone.stages[0][0][0].weight.data *= 2
            save_onnx(module, config, path)

        save_onnx = exporting._save_onnx
        monkeypatch.setattr(exporting, "_save_onnx", doubled)
        path = tmp_path / "x.bundle"
        facts = export(model, TINY, output=path, pictures=pictures(1))
        assert facts == read_facts(str(path))
        assert facts.twin is None
        assert "golden test" in facts.provenance["twin"]
        assert "TorchScript alone will run it" in caplog.text
        assert [p.name for p in tmp_path.iterdir()] == [path.name]
        opened(path)
        with pytest.raises(ModelError, match="torchscript can"):
            opened(path, "onnx")

    @pytest.mark.parametrize("name", ["of another model", "and its hash", "cut", "none", "two"])
    def test_a_spoilt_one_is_refused(self, name, bundle, other_twin, tmp_path):
        path = tmp_path / "spoilt.bundle"
        path.write_bytes(bundle.read_bytes())
        opened(path, "onnx")
        says = {
            "of another model": "that of another model",
            "and its hash": "golden test",
            "cut": "ONNX Runtime cannot load it",
            "none": "wanted one manyeyes.onnx in it, got 0",
            "two": "wanted one manyeyes.onnx in it, got 2",
        }
        facts = read_facts(str(path))
        if name == "cut":
            other_twin.write_bytes(other_twin.read_bytes()[:-1000])
        if name in ("and its hash", "cut"):
            facts = dataclasses.replace(facts, twin=archive.sha256(other_twin))
        if name == "none":
            module = torch.jit.load(str(path))
            save(module, path, facts.to_json())
        elif name == "two":
            with zipfile.ZipFile(path, "a") as out:
                out.writestr("other/extra/manyeyes.onnx", "")
        else:
            archive.write_text(path, path, facts.to_json(), other_twin)
        opened(path)  # TorchScript is as it was
        with pytest.raises(ModelError, match=says[name]):
            opened(path, "onnx")

    @pytest.fixture
    def other_twin(self, trained_on_something_else, tmp_path):
        """One that a test may spoil."""
        return shutil.copy(trained_on_something_else, tmp_path / "other.onnx")


class TestParity:
    def test_says_what_it_compared(self, model, bundle):
        facts, engine = opened(bundle)
        found = parity.compare(model, TINY, engine, facts, pictures())
        assert found.pictures == 5
        assert found.batches == (1, 4)
        assert found.box_px <= 0.05
        assert found.score <= 1e-3
        assert "none unmatched" in str(found)

    def test_finds_other_weights(self, bundle):
        facts, engine = opened(bundle)
        with pytest.raises(ModelError, match="candidate of class"):
            parity.compare(lively(TINY, seed=1), TINY, engine, facts, pictures(1))

    def test_finds_shifted_labels(self, model, bundle):
        facts, engine = opened(bundle)
        facts = dataclasses.replace(facts, label_offset=1)
        with pytest.raises(ModelError, match="candidate of class"):
            parity.compare(model, TINY, engine, facts, pictures(1))


def test_fifty_ways_at_least():
    assert len(SPOILT) >= 50


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_bundle_is_noticed(name, bundle, tmp_path):
    path = tmp_path / "spoilt.bundle"
    path.write_bytes(bundle.read_bytes())
    opened(path)
    SPOILT[name](path)
    with pytest.raises(ManyeyesError):
        opened(path)
