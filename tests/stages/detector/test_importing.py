"""Foreign models become bundles, by what is declared."""

import json

import numpy as np
import pytest
import tiny_models
import torch

from pipeline.errors import ConfigError, ModelError
from stages.detector import golden
from stages.detector.bundle import read_facts
from stages.detector.engines import load
from stages.detector.importing import COCO80, import_model, inspect, parse_classes, parse_size

DECLARED = {"layout": "candidates", "classes": "cat,dog", "size": 64, "dtype": "uint8"}


BY_LAYOUT = {
    "candidates": tiny_models.Candidates,
    "yolox": tiny_models.Yolox,
    "yolox-raw": tiny_models.YoloxRaw,
    "ultralytics": tiny_models.Ultralytics,
    "torchvision": tiny_models.Torchvision,
}


@pytest.mark.parametrize("layout", BY_LAYOUT)
def test_every_layout_becomes_a_bundle_that_runs(layout, tmp_path):
    path = tiny_models.save(BY_LAYOUT[layout](), tmp_path / "foreign.pt")
    output = str(tmp_path / "mine.bundle")
    facts = import_model(
        path, output, layout=layout, classes=["cat", "dog"], size="64x64", color="bgr", scale=0.5
    )
    assert facts == read_facts(output)
    assert (facts.name, facts.classes, facts.layout) == ("mine", ("cat", "dog"), layout)
    assert (facts.input.color, facts.input.scale, facts.input.dtype) == ("bgr", 0.5, "float32")
    assert facts.batch_sizes == (1, 2, 4, 8)
    engine = load(output, facts)
    golden.check(facts, engine)
    for arrays in engine.infer(np.zeros((3, 64, 64, 3), np.uint8)):
        assert sum(array.nbytes for array in arrays) <= facts.output_bytes_per_image


def test_what_is_found_in_a_golden_picture_is_remembered(tmp_path):
    path = tiny_models.save(tiny_models.Candidates(), tmp_path / "foreign.pt")
    facts = import_model(path, str(tmp_path / "m.bundle"), **DECLARED)
    assert facts.golden["generator"] == "v1"
    assert facts.golden["picture"][0]["label"] == "dog"
    assert 0 < facts.golden["picture"][0]["score"] < 1


def test_inspect_tells_the_facts_and_the_file(tmp_path):
    path = tiny_models.save(tiny_models.Candidates(), tmp_path / "foreign.pt")
    with pytest.raises(ModelError, match="manyeyes model import"):
        inspect(path)
    output = str(tmp_path / "m.bundle")
    facts = import_model(path, output, **DECLARED)
    found, file = inspect(output)
    assert found == facts
    assert file["kind"] == "torchscript"
    assert file["sha256"].startswith(file["model_id"])
    json.dumps(file)


class OneOnly(torch.nn.Module):
    """Traced for one picture: two give the result of one."""

    def forward(self, x):
        return torch.zeros(1, 5, 7)


def test_a_model_for_single_pictures_gets_batch_size_one(tmp_path):
    path = tiny_models.save(OneOnly(), tmp_path / "foreign.pt")
    facts = import_model(path, str(tmp_path / "m.bundle"), **DECLARED | {"layout": "yolox"})
    assert facts.batch_sizes == (1,)
    assert facts.golden is None  # it finds nothing, so there is nothing to compare
    assert (
        len(load(str(tmp_path / "m.bundle"), facts).infer(np.zeros((3, 64, 64, 3), np.uint8))) == 3
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layout": "yolo"}, "layout must be one of candidates, yolox"),
        ({"layout": "yolox"}, "layout 'yolox' needs one array (N, 7)"),
        ({"classes": "cat"}, "name all classes"),
        ({"classes": ""}, "not empty"),
        ({"size": "4 by 4"}, "416 or 640x384"),
        ({"size": 0}, "1..8192 px a side"),
        ({"color": "grey"}, "'rgb', 'bgr'"),
        ({"align": "left"}, "'center', 'top-left'"),
        ({"pad": 300}, "within 0..255"),
        ({"scale": 0.5}, "go with dtype float32"),
        ({"dtype": "float32", "mean": [0.5]}, "a list of 3"),
    ],
)
def test_declarations_that_do_not_fit_write_nothing(changes, says, tmp_path):
    path = tiny_models.save(tiny_models.Candidates(), tmp_path / "foreign.pt")
    with pytest.raises(ConfigError) as caught:
        import_model(path, str(tmp_path / "m.bundle"), **DECLARED | changes)
    assert says in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["foreign.pt"]


def test_undecoded_boxes_are_told_how_to_be_imported(tmp_path):
    path = tiny_models.save(tiny_models.YoloxRaw(), tmp_path / "foreign.pt")
    with pytest.raises(ModelError, match="--layout yolox-raw"):
        import_model(path, str(tmp_path / "m.bundle"), **DECLARED | {"layout": "yolox"})


def test_an_onnx_file_becomes_a_bundle_that_runs(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, proto = onnx.helper, onnx.TensorProto
    x = helper.make_tensor_value_info("x", proto.UINT8, ["b", 3, 64, 64])
    y = helper.make_tensor_value_info("y", proto.FLOAT, ["b", 6, 2048])
    shape = helper.make_tensor("shape", proto.INT64, [3], [-1, 6, 2048])
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=proto.FLOAT),
        helper.make_node("Reshape", ["f", "shape"], ["rows"]),
        helper.make_node("Div", ["rows", "most"], ["y"]),
    ]
    most = helper.make_tensor("most", proto.FLOAT, [1, 6, 1], [4.0, 4, 4, 4, 600, 600])
    graph = helper.make_graph(nodes, "g", [x], [y], [shape, most])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "foreign.onnx")
    output = str(tmp_path / "m.bundle")
    facts = import_model(
        str(tmp_path / "foreign.onnx"), output, **DECLARED | {"layout": "ultralytics"}
    )
    assert inspect(output)[1]["kind"] == "onnx"
    assert facts.output_bytes_per_image == 6 * 2048 * 4
    golden.check(facts, load(output, facts))
    batch = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    (first, _) = load(output, facts).infer(batch)
    pixels = (first[0] * [[4.0], [4], [4], [4], [600], [600]]).reshape(3, 64, 64)
    np.testing.assert_allclose(pixels, batch[0].transpose(2, 0, 1), atol=1e-3)


def test_a_model_of_tflite_is_named(tmp_path):
    (tmp_path / "m.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    with pytest.raises(
        ModelError, match="a TFLite model, which no engine here runs; export it as ONNX"
    ):
        import_model(str(tmp_path / "m.tflite"), str(tmp_path / "m.bundle"), **DECLARED)


def test_a_checkpoint_is_no_model(tmp_path):
    torch.save({"weights": torch.zeros(3)}, tmp_path / "last.pt")
    with pytest.raises(ModelError, match="manyeyes export"):
        import_model(str(tmp_path / "last.pt"), str(tmp_path / "m.bundle"), **DECLARED)


def test_sizes_and_classes(tmp_path):
    assert [parse_size(size) for size in (416, "416", "640x384", (3, 4))] == [
        (416, 416),
        (416, 416),
        (640, 384),
        (3, 4),
    ]
    assert parse_classes("coco80") == COCO80
    assert (len(COCO80), COCO80[2], COCO80[62], COCO80[-1]) == (80, "car", "tv", "toothbrush")
    file = tmp_path / "names.txt"
    file.write_text("traffic light\n\nFußgänger\n")
    assert parse_classes(str(file)) == ("traffic light", "Fußgänger")
    with pytest.raises(ConfigError, match="no such file of class names"):
        parse_classes("missing.txt")
