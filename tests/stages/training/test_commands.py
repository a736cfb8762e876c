"""The offline commands as they are typed: a whole walk through them, and what bad input gets."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import tiny_runs
import torch

from pipeline.face import cli
from pipeline.plan.model_path import demo_model

FAST = ("--epochs", "1", "--batch", "4", "--size", "96x64", "--workers", "0")


@pytest.fixture
def manyeyes(capsys, monkeypatch):
    """Runs a command line in this process; gives (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["manyeyes", *map(str, arguments)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("train", 6), ("val", 3)):
        tiny_runs.draw(folder, split, count)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A data set of things that no model here knows."""
    folder = tmp_path_factory.mktemp("other")
    tiny_runs.draw(folder, "val", 2)
    file = folder / "annotations" / "val.json"
    file.write_text(file.read_text().replace("disc", "cat").replace("bar", "dog"))
    return folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    command = [sys.executable, "-m", "pipeline", "train", data, "-o", folder, *FAST]
    subprocess.run(command, check=True)
    return folder


def test_from_pictures_to_a_report(manyeyes, data, run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = manyeyes(
        "data", "inspect", data, "--split", "train", "--sheet", "s.png", "--json"
    )
    assert (code, json.loads(out)["pictures"]) == (0, 6)
    assert cv2.imread("s.png") is not None
    code, out, _ = manyeyes(
        "evaluate", run_folder, data, "--split", "val", "--json", "--html", "r.html"
    )
    assert code == 0
    of_checkpoint = json.loads(out)
    assert of_checkpoint["pictures"] == 3
    assert Path("r.html").read_text().startswith("<!doctype html>")
    code, out, _ = manyeyes("export", run_folder, "-o", "tiny.bundle", "--json")
    assert (code, json.loads(out)["classes"]) == (0, ["disc", "bar"])
    assert json.loads(out)["provenance"]["data"].keys() == {"training", "validation"}
    code, out, _ = manyeyes("evaluate", "tiny.bundle", data, "--split", "val", "--json")
    assert code == 0
    of_bundle = json.loads(out)
    assert of_bundle["coco"] == pytest.approx(of_checkpoint["coco"], abs=1e-3)
    assert of_bundle["score_threshold"] == of_checkpoint["score_threshold"]
    names = sorted((data / "val").glob("*.png"))
    Path("empty.jsonl").write_text(
        "".join(
            json.dumps({"camera": "a", "frame_id": i, "name": path.name, "width": 80, "height": 64,
                        "detections": []}) + "\n"
            for i, path in enumerate(names)
        )
    )  # fmt: skip
    events = ("evaluate", "empty.jsonl", data, "--split", "val", "--json")
    code, out, err = manyeyes(*events)
    assert (code, "a file of detections has no threshold" in " ".join(err.split())) == (0, True)
    code, out, err = manyeyes(*events, "--score", "tiny.bundle")
    assert (code, json.loads(out)["score_threshold"]) == (0, of_bundle["score_threshold"])
    code, out, _ = manyeyes(
        "predict", run_folder, data / "val", "-o", "found", "--score", "0.01", "--json"
    )
    assert code == 0
    from_folder = json.loads(out)
    code, out, _ = manyeyes(
        "predict", "tiny.bundle", data / "val", "-o", "again", "--score", "0.01", "--json"
    )
    assert (code, json.loads(out)) == (0, from_folder)
    assert len(list(Path("found").glob("*.jpg"))) == 3


def test_split_and_convert_make_folders_that_the_pipeline_can_read(manyeyes, data, tmp_path):
    code, out, _ = manyeyes(
        "data", "split", data / "annotations" / "train.json", "-o", tmp_path / "s", "--json",
        "--parts", "train=0.5,test=0.5", "--seed", 3,
    )  # fmt: skip
    assert code == 0
    assert {name: row["pictures"] for name, row in json.loads(out).items()} == {
        "train": 3,
        "test": 3,
    }
    code, out, _ = manyeyes(
        "data", "convert", tmp_path / "s", "--split", "test", "-o", tmp_path / "t"
    )
    assert code == 0
    assert len(list((tmp_path / "t" / "images").glob("*.png"))) == 3  # not in folders of folders


def test_a_run_goes_on_and_may_learn_some_classes_only(manyeyes, data, tmp_path):
    folder = tmp_path / "run"
    code, out, _ = manyeyes("train", data, "-o", folder, *FAST, "--classes", "bar", "--json")
    assert (code, json.loads(out)["epochs"]) == (0, 1)
    last = (folder / "last.pt").read_bytes()
    code, out, _ = manyeyes("train", "-o", folder, "--resume")
    assert (code, (folder / "last.pt").read_bytes()) == (0, last)  # it was done already
    assert json.loads((folder / "plan.json").read_text())["plan"]["model"]["classes"] == ["bar"]
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    again = ("train", moved, "-o", folder, "--resume", "--json", "--classes", "bar", "--batch", 4)
    code, out, _ = manyeyes(*again, "--epochs", 2)  # what it began with may be said again
    assert (code, json.loads(out)["epochs"]) == (0, 2)
    assert json.loads((folder / "plan.json").read_text())["plan"]["train"]["epochs"] == 2
    code, _, err = manyeyes(*again, "--epochs", 1)
    assert (code, "has 2 epochs behind it" in err) == (78, True)


def test_a_broken_picture_is_named_counted_and_skipped_unless_strict(manyeyes, data, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    broken = folder / "val" / "1.png"
    broken.write_bytes(broken.read_bytes()[:100])
    code, out, err = manyeyes("data", "convert", folder, "--split", "val", "-o", tmp_path / "new")
    assert code == 0
    assert "broken: 1" in err
    assert "1.png" in err
    assert "2 pictures" in out
    code, _, err = manyeyes("data", "inspect", folder, "--split", "val", "--strict")
    assert code == 78
    assert "1.png" in err
    assert "strict; 1 problem" in err


NEW = "{new}"
BAD = {
    "no data set": (("data", "inspect", "{new}"), "no such file or folder"),
    "unknown format": (("data", "inspect", "{data}", "--format", "coca"), "'coca'", "openimages"),
    "unknown split": (("data", "inspect", "{data}", "--split", "night"), "'night'", "train.json"),
    "sheet nowhere": (("data", "inspect", "{val}", "--sheet", "{new}/s.png"), "cannot be written"),
    "unknown target": (("data", "convert", "{val}", "-o", NEW, "--to", "tf"), "'tf'", "yolo"),
    "folder exists": (("data", "convert", "{val}", "-o", "{run}"), "exists already"),
    "no shares": (("data", "split", "{val}", "-o", NEW, "--parts", "half"), "NAME=VALUE", "'half'"),
    "shares of words": (("data", "split", "{val}", "-o", NEW, "--parts", "a=b"), "train=0.8"),
    "too much": (("data", "split", "{val}", "-o", NEW, "--parts", "a=0.9,b=0.9"), "add up to 1"),
    "too few pictures": (
        ("data", "split", "{val}", "-o", NEW, "--group-by", "folder"), "1 group", "3 parts",
    ),
    "no expression": (("data", "split", "{val}", "-o", NEW, "--group-by", "("), "regular expression"),
    "no pattern": (("data", "split", "{val}", "-o", NEW, "--group-by", "cam"), "does not match"),
    "nothing to train": (("train", "-o", NEW), "wanted a data set"),
    "nothing to resume": (("train", "-o", NEW, "--resume"), "nothing to resume", "plan.json"),
    "resume with lr": (("train", "-o", "{run}", "--resume", "--lr", "0.5"), "--lr 0.5", "0.002"),
    "resume with arch": (("train", "-o", "{run}", "--resume", "--arch", "ssd"), "--arch ssd", "fcos_tiny"),
    "resume with size": (("train", "-o", "{run}", "--resume", "--size", "64"), "--size (64, 64)"),
    "resume with set": (("train", "-o", "{run}", "--resume", "--set", "ema=0"), "--set ema 0", "0.998"),
    "resume elsewhere": (("train", "{empty}", "-o", "{run}", "--resume"), "no usable picture"),
    "resume with others": (("train", "{broken}", "-o", "{run}", "--resume"), "data set has changed"),
    "backbone of none": (
        ("train", "{data}", "-o", NEW, "--backbone-weights", "{new}.pth"), "fcos_tiny has no",
    ),
    "two beginnings": (
        ("train", "{data}", "-o", NEW, "--arch", "fasterrcnn_resnet50_fpn", "--weights", "COCO_V1",
         "--backbone-weights", "{new}.pth"), "one of the two",
    ),
    "idle setting": (("train", "{data}", "-o", NEW, "--set", "momentum=0.5"), "momentum", "no effect"),
    "int8 alone": (("export", "{run}", "-o", NEW, "--precision", "int8"), "--calibrate DATA go together"),
    "int8 of nothing": (
        ("export", "{demo}", "-o", NEW, "--precision", "int8", "--calibrate", "{val}"), "pass --data",
    ),
    "idle split": (("export", "{run}", "-o", NEW, "--split", "val"), "--split is of --data"),
    "no score": (("evaluate", "{run}", "{val}", "--score", "1.5"), "within 0..1"),
    "score of text": (("evaluate", "{run}", "{val}", "--score", "{text}"), "text.pt"),
    "no such device": (("train", "{data}", "-o", NEW, "--device", "cuda:9"), "CUDA devices"),
    "no device": (("train", "{data}", "-o", NEW, "--device", "gpu"), "auto, cpu, cuda"),
    "run exists": (("train", "{data}", "-o", "{run}", *FAST), "exists already", "--resume"),
    "no split": (("train", "{data}", "-o", NEW, "--val-split", "dusk"), "'dusk'", "val.json"),
    "empty split": (("train", "{empty}", "-o", NEW), "no usable picture of split 'train'"),
    "no such class": (("train", "{data}", "-o", NEW, "--classes", "disk"), "'disk'", "disc, bar"),
    "no such model": (("train", "{data}", "-o", NEW, "--arch", "ssdlight"), "did you mean 'ssdlite'"),
    "no backbone": (("train", "{data}", "-o", NEW, "--arch", "ssd"), "needs a backbone"),
    "no size": (("train", "{data}", "-o", NEW, "--size", "big"), "320x192", "'big'"),
    "no such setting": (("train", "{data}", "-o", NEW, "--set", "emma=1"), "did you mean 'ema'"),
    "wrong setting": (("train", "{data}", "-o", NEW, "--set", "ema=often"), "ema: ", "'often'"),
    "out of range": (("train", "{data}", "-o", NEW, "--batch", "0"), "batch", "at least 1"),
    "weights of others": (
        ("train", "{data}", "-o", NEW, "--arch", "ssdlite", "--backbone", "mobilenet_v2",
         "--size", "96x64", "--weights", "{run}/best.pt"), "best.pt", "another architecture",
    ),
    "no weights": (("train", "{data}", "-o", NEW, "--weights", "{new}.pt"), "no such file"),
    "strict": (("train", "{broken}", "-o", NEW, "--strict"), "0.png", "strict"),
    "no model": (("evaluate", "{new}", "{val}"), "no such file", "bundle"),
    "text as model": (("evaluate", "{text}", "{val}"), "text.pt"),
    "folder as model": (("evaluate", "{data}", "{val}"), "best.pt: no such file"),
    "other classes": (("evaluate", "{run}", "{other}"), "no class of the model (disc, bar)", "cat, dog"),
    "rename nothing": (("evaluate", "{run}", "{val}", "--rename", "disk=disc"), "'disk'"),
    "rename what": (("evaluate", "{run}", "{val}", "--rename", "disc"), "NAME=VALUE"),
    "class that is not there": (("evaluate", "{run}", "{val}", "--classes", "cat"), "'cat'"),
    "checkpoint of another": (("evaluate", "{foreign}", "{val}"), "do not fit"),
    "export of another": (("export", "{foreign}", "-o", NEW, "--data", "{val}"), "do not fit"),
    "export of text": (("export", "{text}", "-o", NEW), "text.pt", "checkpoint"),
    "unknown form": (("export", "{run}", "-o", NEW, "--format", "tensorrt"), "'tensorrt'", "onnx"),
    "unknown precision": (("export", "{run}", "-o", NEW, "--precision", "fp8"), "'fp8'", "bf16"),
    "half onnx": (
        ("export", "{run}", "-o", NEW, "--format", "onnx", "--precision", "fp16"), "fp32",
    ),
    "moved checkpoint": (("export", "{moved}", "-o", NEW), "plan.json"),
    "predict by text": (("predict", "{text}", "{data}", "-o", NEW), "text.pt"),
    "predict where": (("predict", "{demo}", "{new}.mp4", "-o", NEW), "no such picture"),
    "predict into": (("predict", "{demo}", "{data}", "-o", "{run}"), "exists already"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name, manyeyes, data, other, run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {
        "new": tmp_path / "new", "data": data, "val": data / "annotations" / "val.json",
        "run": run_folder, "other": other, "demo": demo_model(),
        "text": tmp_path / "text.pt", "foreign": tmp_path / "foreign.pt", "moved": tmp_path / "moved.pt",
        "empty": tmp_path / "empty", "broken": tmp_path / "broken",
    }  # fmt: skip
    _spoil(places)
    arguments, *words = BAD[name]
    before = sorted(run_folder.iterdir())
    code, out, err = manyeyes(*(a.format(**places) for a in arguments))
    sentence = err.strip().splitlines()[-1] if err.strip() else ""
    assert code == 78, (code, err)
    assert sentence.startswith("manyeyes: ")
    assert all(word in sentence for word in words), sentence
    assert "Traceback" not in err
    assert not out
    assert not places["new"].exists()
    assert sorted(run_folder.iterdir()) == before


def _spoil(places):
    """Files that are not what they should be."""
    places["text"].write_text("no model at all")
    shutil.copy(places["run"] / "best.pt", places["moved"])
    state = torch.load(places["run"] / "best.pt", weights_only=True)
    state["config"] |= {"architecture": "ssdlite", "backbone": "mobilenet_v2"}
    torch.save(state, places["foreign"])
    for name in ("empty", "broken"):
        shutil.copytree(places["data"], places[name])
    for picture in (places["empty"] / "train").iterdir():
        picture.unlink()
    (places["broken"] / "train" / "0.png").write_bytes(b"\x89PNG")


def test_without_the_extra_it_says_what_to_install(manyeyes, data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = manyeyes(
        "data", "inspect", data / "annotations" / "val.json", "--sheet", tmp_path / "s.png"
    )
    assert code == 78
    assert err.splitlines()[-1] == (
        "manyeyes: data inspect needs matplotlib, which is not installed; "
        "pip install 'manyeyes[train]'"
    )


def test_help_loads_nothing_heavy():
    code = (
        "import sys, pipeline.face.cli; "
        "print(sorted({'torch', 'cv2', 'PIL', 'matplotlib', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command",
    [
        "data inspect",
        "data split",
        "data convert",
        "data pick",
        "train",
        "evaluate",
        "export",
        "predict",
    ],
)
def test_each_command_shows_an_example(command, manyeyes):
    code, out, _ = manyeyes(*command.split(), "--help")
    assert code == 0
    assert f"Example: manyeyes {command}" in " ".join(out.split())


def test_the_help_of_train_lists_every_architecture(manyeyes):
    from stages.training import models

    _, out, _ = manyeyes("train", "--help")
    words = set(out.replace(",", " ").replace(".", " ").split())
    assert not [name for name in models.ARCHITECTURES if name not in words]


def test_threads_that_wait_take_no_core_from_others(tmp_path):
    """OpenMP itself says what it was told, when PyTorch loads it."""
    command = [sys.executable, "-P", "-m", "pipeline", "train", str(tmp_path / "none"), "-o", "run"]
    environment = {**os.environ, "OMP_DISPLAY_ENV": "true"}
    environment.pop("OMP_WAIT_POLICY", None)
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
