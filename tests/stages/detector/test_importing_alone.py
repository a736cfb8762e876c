"""What a file says of itself needs no option."""

import numpy as np
import pytest
import tiny_models
import torch
from spots import SPOTS, Spots, constant_onnx, traced

from pipeline.errors import ConfigError
from stages.detector import archive
from stages.detector.bundle import read_facts
from stages.detector.engines import load
from stages.detector.importing import COCO80, import_model, parse_classes

SAID = {  # as Ultralytics' exporter writes it
    "description": "Ultralytics YOLOv8n model trained on spots", "task": "detect", "stride": 32,
    "batch": 1, "imgsz": [64, 64], "names": {"0": "red", "1": "blue"},
}  # fmt: skip


def test_metadata_of_ultralytics_needs_no_option(tmp_path):
    told = []
    path = traced(tmp_path / "m.torchscript", config=SAID)
    facts = import_model(path, str(tmp_path / "m.bundle"), tell=told.append)
    assert (facts.layout, facts.classes) == ("ultralytics", ("red", "blue"))
    assert (facts.input.width, facts.input.color) == (64, "rgb")
    assert facts.input.scale == pytest.approx(1 / 255)
    assert (facts.resize.align, facts.resize.pad) == ("center", 114)
    assert "2 classes (red, blue, …), 64x64" in told[0]
    assert "scale 1/255" in told[1]
    assert import_model(path, str(tmp_path / "b.bundle"), color="bgr").input.color == "bgr"


def test_the_same_in_onnx(tmp_path):
    onnx = pytest.importorskip("onnx")
    import_model(traced(tmp_path / "m.pt"), str(tmp_path / "m.bundle"), **SPOTS)
    twin = archive.read_twin(tmp_path / "m.bundle", read_facts(str(tmp_path / "m.bundle")).twin)
    model = onnx.load_from_string(twin)
    for key, value in SAID.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str({0: "red", 1: "blue"} if key == "names" else value)
    onnx.save(model, tmp_path / "m.onnx")
    facts = import_model(str(tmp_path / "m.onnx"), str(tmp_path / "o.bundle"))
    assert (facts.layout, facts.classes, facts.input.width) == ("ultralytics", ("red", "blue"), 64)
    assert facts.batch_sizes == (1, 2, 4, 8)


def test_yolox_is_known_by_its_shape_and_decoded_or_not_by_its_numbers(tmp_path):
    for decoded in (True, False):
        rows = torch.rand(1, 84, 7) * (20 if decoded else 1) - (0 if decoded else 0.5)
        rows[..., 4:] = 0.3
        told = ((torch.float32, [1, 3, 64, 64]), rows)
        path = constant_onnx(tmp_path / "m.onnx", *told)
        facts = import_model(path, str(tmp_path / "m.bundle"), classes="a,b")
        assert facts.layout == ("yolox" if decoded else "yolox-raw")
        assert (facts.input.color, facts.resize.align) == ("bgr", "top-left")


def test_weights_in_a_second_file_go_into_the_bundle(tmp_path):
    onnx = pytest.importorskip("onnx")
    given = (torch.float32, [1, 3, 64, 64])
    path = constant_onnx(tmp_path / "whole.onnx", given, torch.rand(1, 84, 7) * 20 / 30)
    onnx.save(
        onnx.load(path), tmp_path / "m.onnx", save_as_external_data=True, location="m.onnx.data",
        size_threshold=0,
    )  # fmt: skip
    (tmp_path / "other").mkdir()
    output = tmp_path / "other" / "m.bundle"
    facts = import_model(str(tmp_path / "m.onnx"), str(output), classes="a,b")
    (tmp_path / "m.onnx.data").unlink()
    assert len(load(str(output), facts).infer(np.zeros((1, 64, 64, 3), np.uint8))) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"task": "classify"}, "its task is 'classify', no detection"),
        ({"task": "obb"}, "its task is 'obb', no detection"),
        ({"imgsz": None}, "does not say its size; pass --size"),
    ],
)
def test_what_the_metadata_cannot_give(changes, says, tmp_path):
    path = traced(tmp_path / "m.torchscript", config=SAID | changes)
    with pytest.raises(ConfigError, match=says):
        import_model(path, str(tmp_path / "m.bundle"))


def test_what_no_file_says_is_asked_for(tmp_path):
    path = tiny_models.save(tiny_models.Candidates(), tmp_path / "foreign.pt")
    with pytest.raises(
        ConfigError, match="layout and classes and size; pass --layout and --classes"
    ):
        import_model(path, str(tmp_path / "m.bundle"))


def test_masks_and_key_points_are_left_alone(tmp_path):
    def with_masks(boxes, scores):
        return torch.cat([boxes, scores, scores.repeat(1, 16, 1)], dim=1), scores

    path = traced(tmp_path / "m.pt", Spots(with_masks), SAID | {"task": "segment"})
    facts = import_model(path, str(tmp_path / "m.bundle"))
    assert facts.output_bytes_per_image == 4 * (4 + 2 + 32) * 64
    assert {d["label"] for d in facts.golden["picture"]} == {"red", "blue"}


def test_placeholders_and_backgrounds_among_the_names():
    assert parse_classes(["a", "N/A", "b", "N/A"]) == ("a", "N/A 1", "b", "N/A 3")
    assert parse_classes("a,N/A") == ("a", "N/A")
    assert len(parse_classes(",".join(COCO80))) == 80  # longer than a file's name may be


def test_a_list_that_begins_with_a_background_is_counted_from_one(tmp_path):
    path = tiny_models.save(tiny_models.Torchvision(), tmp_path / "m.pt")
    facts = import_model(
        path,
        str(tmp_path / "m.bundle"),
        layout="torchvision",
        classes="__background__,cat",
        size=64,
    )
    assert (facts.classes, facts.label_offset) == (("cat",), 1)
