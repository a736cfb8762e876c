"""What the console command says to a bad model, or one that it has to fetch."""

import json
import zipfile

import pytest
import tiny_models
from refusing import assert_refused

from pipeline.face import cli
from pipeline.plan.model_path import demo_model


def bad_models(folder):
    (folder / "text.bundle").write_text("hello\n")
    (folder / "empty.bundle").touch()
    with zipfile.ZipFile(folder / "zip.bundle", "w") as file:
        file.writestr("a.txt", "x")
    whole = demo_model().read_bytes()
    (folder / "cut.bundle").write_bytes(whole[: len(whole) // 2])
    tiny_models.save(tiny_models.Candidates(), folder / "foreign.bundle")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("text", ["wanted a TorchScript archive", "got neither"]),
        ("empty", ["empty.bundle"]),
        ("zip", ["wanted a TorchScript archive", "got another zip file"]),
        ("cut", ["cut.bundle"]),
        ("foreign", ["foreign.bundle", "manyeyes model import"]),
        ("missing", ["missing.bundle", "there is no file"]),
    ],
)
def test_a_file_that_is_no_bundle(manyeyes, name, words):
    bad_models(manyeyes.folder)
    model = f"{name}.bundle"
    sources = ["synthetic://", "--model", model, "--events", "e.jsonl"]
    assert_refused(manyeyes, ["run", *sources], *words)
    if name != "missing":
        assert_refused(manyeyes, ["model", "inspect", model], *words)


def test_a_layout_that_does_not_fit_is_not_imported(manyeyes):
    tiny_models.save(tiny_models.Candidates(), manyeyes.folder / "tiny.pt")
    facts = ["--classes", "a,b", "--size", "64", "--color", "rgb", "-o", "tiny.bundle"]
    for layout in ("yolox", "ultralytics", "torchvision"):
        arguments = ["model", "import", "tiny.pt", "--layout", layout, *facts]
        assert_refused(manyeyes, arguments, "tiny.pt: ", "layout", "size")
    arguments = ["model", "import", "tiny.pt", "--layout", "candidates", *facts]
    code, out, err = manyeyes(*arguments)
    assert (code, err) == (0, "as models of candidates have it: dtype uint8\n")
    assert "tiny.bundle: tiny, 2 classes, 64x64" in out


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--layout", "yolo", ["layout must be one of", "yolox", "'yolo'"]),
        ("--size", "wide", ["size must be like 416 or 640x384", "'wide'"]),
        ("--classes", "names.txt", ["names.txt: no such file of class names"]),
        ("--color", "cmyk", ["color must be one of 'rgb', 'bgr'", "cmyk"]),
        ("--mean", "0.5", ["--mean: wanted three numbers", "'0.5'"]),
        ("--pad", "300", ["pad", "300"]),
    ],
)
def test_a_bad_option_of_an_import(manyeyes, option, value, words):
    tiny_models.save(tiny_models.Candidates(), manyeyes.folder / "tiny.pt")
    facts = {
        "--layout": "candidates", "--classes": "a,b", "--size": "64", "--color": "rgb",
        option: value,
    }  # fmt: skip
    options = [word for pair in facts.items() for word in pair]
    assert_refused(manyeyes, ["model", "import", "tiny.pt", *options, "-o", "tiny.bundle"], *words)


def test_a_model_by_name_is_fetched_or_says_where_its_file_belongs(manyeyes, tmp_path):
    """Nobody answers here; the file that the sentence asks for is tried by tests of `published`."""
    manyeyes.environment |= {"XDG_CACHE_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:1"}
    words = [
        "model 'yolox-nano': https://github.com/Megvii-BaseDetection/",
        f"put it at {tmp_path}/manyeyes/downloads/yolox_nano.onnx",
    ]
    for command in (
        ["run", "synthetic://", "--model", "yolox-nano"],
        ["model", "get", "yolox-nano"],
    ):
        code, _, err = manyeyes(*command)
        assert code == 78, err
        assert all(word in err for word in words), err
        assert "Traceback" not in err
    manyeyes.write(
        '[model]\nname = "yolox-nano"\n[[camera]]\nname = "a"\nsource = "synthetic://"\n'
    )
    assert_refused(manyeyes, ["check", "run.toml"], "`manyeyes model get yolox-nano` fetches it")
    assert_refused(
        manyeyes, ["run", "synthetic://", "--model", "yolox_nano"], "did you mean 'yolox-nano'"
    )
    code, out, _ = manyeyes("model", "list", "--json")
    assert (code, {row["name"] for row in json.loads(out)} > {"yolox-nano", "ssd300_vgg16"}) == (
        0,
        True,
    )
    code, out, _ = manyeyes("run", "synthetic://?frames=3", "--model", "demo", "--policy", "every")
    assert code == 0


def test_a_bundle_whose_facts_lie_ends_the_run_before_a_frame(manyeyes):
    facts = json.loads(cli.load("stages.detector.bundle:read_facts")(demo_model()).to_json())
    facts["layout"], facts["golden"] = "yolox", None
    with (
        zipfile.ZipFile(demo_model()) as true,
        zipfile.ZipFile(manyeyes.folder / "lie.bundle", "w") as lie,
    ):
        for item in true.infolist():
            is_facts = item.filename.endswith("manyeyes.json")
            lie.writestr(item, json.dumps(facts) if is_facts else true.read(item))
    code, _, err = manyeyes("run", "synthetic://", "--model", "lie.bundle", "--seconds", "3")
    assert code == 78, err
    assert err.count("\n") == 1, err
    assert "lie.bundle" in err
    assert "yolox" in err
    manyeyes.assert_nothing_left()
