import json
import zipfile

import pytest
import tiny_models
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, ModelError
from stages.detector import archive
from stages.detector.bundle import Defaults, Facts, InputFacts, ResizeFacts, model_id, read_facts

FACTS = Facts(
    name="street",
    architecture="ssdlite",
    classes=("Fußgänger", "car"),
    input=InputFacts(width=320, height=256, dtype="float32", mean=(0.5, 0.5, 0.5), std=(1, 1, 1)),
    layout="candidates",
    resize=ResizeFacts(align="top-left", pad=0),
    label_offset=1,
    defaults=Defaults(score_threshold=0.25),
    output_bytes_per_image=28_000,
    provenance={"torch": "2.14"},
    golden={"generator": "v1"},
)


def changed(**changes):
    """The facts as JSON with some keys, written `input__width`, set or (...) taken out."""
    table = json.loads(FACTS.to_json())
    for key, value in changes.items():
        *parents, last = key.split("__")
        at = table
        for parent in parents:
            at = at[parent]
        if value is ...:
            del at[last]
        else:
            at[last] = value
    return json.dumps(table)


def test_there_and_back():
    assert Facts.from_json(FACTS.to_json()) == FACTS


def test_defaults_may_be_left_out():
    text = changed(
        resize=..., defaults=..., golden=..., provenance=..., input__mean=..., batch_sizes=...
    )
    facts = Facts.from_json(text)
    assert (facts.resize, facts.batch_sizes, facts.golden) == (ResizeFacts(), (1, 2, 4, 8), None)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"clases": ["a"]}, "unknown key 'clases'; did you mean 'classes'?"),
        ({"input__colour": "rgb"}, "input: unknown key 'colour'; did you mean 'color'?"),
        ({"zzz": 1}, "unknown key 'zzz'; known: name"),
        ({"classes": ...}, "'classes' is missing"),
        ({"classes": "car"}, 'classes must be a list, got "car"'),
        ({"classes": []}, "at least one class"),
        ({"classes": ["a", "a"]}, "different"),
        ({"classes": ["a", 1]}, "classes[1] must be text, got 1"),
        ({"input__width": "320"}, "input: width must be an integer"),
        ({"input__width": True}, "input: width must be an integer"),
        ({"input__width": 0}, "1..8192 px a side"),
        ({"input__mean": [1, 2]}, "input: mean must be a list of 3"),
        ({"input__std": [1, 0, 1]}, "std must be above 0"),
        ({"input__scale": 0}, "scale must be above 0"),
        ({"input__dtype": "uint8"}, "go with dtype float32"),
        ({"input__color": "gray"}, "one of 'rgb', 'bgr'"),
        ({"layout": "yolo"}, "layout must be one of 'candidates', 'yolox'"),
        ({"resize__pad": 256}, "within 0..255, got 256"),
        ({"defaults__score_threshold": 35}, "within 0..1, got 35"),
        ({"defaults__max_detections": 0}, "within 1..1000"),
        ({"batch_sizes": []}, "at least one number"),
        ({"batch_sizes": [0]}, "at least one number"),
        ({"label_offset": 2}, "0 or 1"),
        ({"provenance": []}, "provenance must be an object"),
        ({"output_bytes_per_image": -1}, "within 0..1 GiB"),
        ({"format": 2}, "a later manyeyes"),
    ],
)
def test_each_lie_gets_one_sentence(changes, says):
    with pytest.raises(ModelError, match=r"^m\.bundle") as caught:
        Facts.from_json(changed(**changes), where="m.bundle")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists) | st.text())
def test_any_json_is_an_error_and_no_crash(value):
    for text in (json.dumps(value), str(value)):
        with pytest.raises(ModelError):
            Facts.from_json(text)


@pytest.fixture
def bare(tmp_path):
    return tiny_models.save(tiny_models.Candidates(), tmp_path / "bare.pt")


def test_facts_travel_in_a_torchscript_archive(bare, tmp_path):
    path = str(tmp_path / "m.bundle")
    archive.write_text(bare, path, FACTS.to_json())
    assert read_facts(path) == FACTS
    extra = {"manyeyes.json": ""}
    module = torch.jit.load(path, _extra_files=extra)  # torch still reads it
    assert Facts.from_json(extra["manyeyes.json"]) == FACTS
    assert module(torch.zeros(2, 3, 8, 8))[0].shape == (2, 3, 4)
    again = str(tmp_path / "again.bundle")
    archive.write_text(path, again, changed(name="other"))
    assert read_facts(again).name == "other"
    assert torch.jit.load(again)(torch.zeros(1, 3, 8, 8))[0].shape == (1, 3, 4)
    archive.write_text(again, again, FACTS.to_json())  # in place
    assert read_facts(again) == FACTS
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.bundle", "bare.pt", "m.bundle"]


def test_facts_that_torch_wrote_are_read(tmp_path):
    path = str(tmp_path / "m.pt")
    module = torch.jit.script(tiny_models.Candidates())
    torch.jit.save(module, path, _extra_files={"manyeyes.json": FACTS.to_json()})
    assert read_facts(path) == FACTS


def test_facts_travel_in_an_onnx_file(tmp_path):
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "g", [], [])
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, {"by": "someone", "manyeyes.json": "{}"})
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    archive.write_text(path, path, FACTS.to_json())
    assert read_facts(str(path)) == FACTS
    props = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert props == {"by": "someone", "manyeyes.json": FACTS.to_json()}
    assert len(onnx.load(path).metadata_props) == 2


def test_model_id_is_the_hash_of_the_file(bare, tmp_path):
    path = tmp_path / "m.bundle"
    archive.write_text(bare, path, FACTS.to_json())
    first = model_id(str(path))
    archive.write_text(bare, path, FACTS.to_json())
    assert len(first) == 16
    assert model_id(str(path)) == first  # the same facts, the same bytes
    archive.write_text(bare, path, changed(name="other"))
    assert model_id(str(path)) != first


def a_zip(path, **entries):
    with zipfile.ZipFile(path, "w") as out:
        for name, content in entries.items():
            out.writestr(
                name.replace("__", "/").replace("_pkl", ".pkl").replace("_json", ".json"), content
            )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p, bare: None, "no such model file"),
        (lambda p, bare: p.mkdir(), "no such model file"),
        (lambda p, bare: p.write_bytes(b""), "got neither"),
        (lambda p, bare: p.write_text("hello"), "got neither"),
        (lambda p, bare: a_zip(p, a__data_pkl="x"), "got another zip file"),
        (lambda p, bare: p.write_bytes(bare[: len(bare) // 2]), "damaged or cut short"),
        (
            lambda p, bare: p.write_bytes(bare),
            "carries no facts (manyeyes.json); `manyeyes model",
        ),
        (
            lambda p, bare: a_zip(
                p, a__constants_pkl="", a__code__b="", a__extra__manyeyes_json=" " * (2**20 + 1)
            ),
            "at most 1 MiB",
        ),
        (
            lambda p, bare: a_zip(
                p,
                a__constants_pkl="",
                a__code__b="",
                a__extra__manyeyes_json="",
                b__extra__manyeyes_json="",
            ),
            "wanted one manyeyes.json, got 2",
        ),
        (
            lambda p, bare: a_zip(
                p, a__constants_pkl="", a__code__b="", a__extra__manyeyes_json=b"\xff"
            ),
            "not UTF-8",
        ),
        (
            lambda p, bare: a_zip(
                p, a__constants_pkl="", a__code__b="", a__extra__manyeyes_json="["
            ),
            "wanted JSON",
        ),
    ],
)
def test_files_that_are_no_bundle(make, says, bare, tmp_path):
    path = tmp_path / "m.bundle"
    with open(bare, "rb") as file:
        make(path, file.read())
    with pytest.raises(ModelError) as caught:
        read_facts(str(path))
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


@given(st.binary(max_size=400))
def test_any_bytes_are_an_error_and_no_crash(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "garbage"
    path.write_bytes(data)
    with pytest.raises(ModelError):
        read_facts(str(path))


def test_an_output_that_cannot_be_written(bare, tmp_path):
    with pytest.raises(ConfigError, match="cannot be written"):
        archive.write_text(bare, tmp_path / "missing" / "m.bundle", FACTS.to_json())
