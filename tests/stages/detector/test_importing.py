import json
import warnings

import numpy as np
import pytest
import tiny_models
import torch

from pipeline.errors import ConfigError, ModelError
from stages.detector import archive, golden, proof
from stages.detector.bundle import Facts, InputFacts, ResizeFacts, read_facts
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


# -- what the file says ----------------------------------------------------------------------------


class Spots(torch.nn.Module):
    """(B, 6, 64): a box for each cell of 8 px; red ones are of class 0, blue ones of class 1."""

    def __init__(self, spoil=lambda boxes, scores: torch.cat([boxes, scores], dim=1)):
        super().__init__()
        y, x = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
        cells = torch.stack([8.0 * x + 4, 8.0 * y + 4, 8.0 + 0 * x, 8.0 + 0 * y])
        self.register_buffer("cells", cells.flatten(1)[None])  # (1, 4, 64)
        self.spoil = spoil

    def forward(self, x):
        mean = torch.nn.functional.avg_pool2d(x, 8).flatten(2)  # (B, 3, 64)
        above = mean[:, ::2] - mean[:, 1:2]  # green
        scores = (above * (2 - above)).clamp(0, 1)  # 1 at 1, and less where it is scaled wrongly
        return self.spoil(self.cells.expand(x.shape[0], -1, -1), scores)


def traced(path, module=None, config=None):
    extra = {} if config is None else {"config.txt": json.dumps(config)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(module or Spots(), torch.rand(1, 3, 64, 64))
        torch.jit.save(script, str(path), _extra_files=extra)
    return str(path)


SAID = {  # as Ultralytics' exporter writes it
    "description": "Ultralytics YOLOv8n model trained on spots", "task": "detect", "stride": 32,
    "batch": 1, "imgsz": [64, 64], "names": {"0": "red", "1": "blue"},
}  # fmt: skip
SPOTS = {"layout": "ultralytics", "classes": "red,blue", "size": 64}


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


def constant_onnx(path, given, rows):
    """An ONNX file that answers every picture with the same rows."""
    onnx = pytest.importorskip("onnx")
    helper, numbers = onnx.helper, onnx.TensorProto
    value = onnx.numpy_helper.from_array(rows.numpy().astype("float32"), "rows")
    nothing = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "nothing")
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Add", ["rows", "zero"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", numbers.FLOAT, given[1])
    y = helper.make_tensor_value_info("y", numbers.FLOAT, list(rows.shape))
    graph = helper.make_graph(nodes, "g", [x], [y], [value, nothing])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return str(path)


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


# -- gates -----------------------------------------------------------------------------------------


def logits(boxes, scores):
    return torch.cat([boxes, 30 * scores - 15], dim=1)


def shares(boxes, scores):
    return torch.cat([boxes / 64, scores], dim=1)


def flooded(boxes, scores):
    return torch.cat([boxes, 0 * scores + 0.9], dim=1)


def rows(boxes, scores):
    """(B, N, 6) of centre and size."""
    best, labels = scores.max(dim=1, keepdim=True)
    return torch.cat([boxes, best, labels], dim=1).transpose(1, 2)


def one_class(boxes, scores):
    """(B, N, 6): centre, size, objectness, class."""
    return torch.cat([boxes, scores[:, :1], 0.5 * scores[:, 1:]], dim=1).transpose(1, 2)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (logits, r"scores must be within 0..1, got -15..[-\d.]+: they are logits"),
        (shares, "boxes must be in pixels of the input, got all within .*shares of the picture"),
        (flooded, "100% of all its predictions have a score above 0.35"),
        (rows, "got some with x2 < x1 or y2 < y1: they are centre and size"),
        (one_class, "labels are no whole numbers"),
    ],
)
def test_what_no_right_model_does_is_refused(spoil, says, tmp_path):
    path = traced(tmp_path / "m.pt", Spots(spoil))
    with pytest.raises(ModelError, match=says):
        import_model(path, str(tmp_path / "m.bundle"), **SPOTS)
    assert not (tmp_path / "m.bundle").exists()


def test_a_batch_counts_only_if_each_of_it_is_as_alone(tmp_path):
    def first_alone(boxes, scores):
        seen = torch.cat([boxes, scores], dim=1)
        return torch.cat([seen[:1], 0 * seen[1:]])

    path = traced(tmp_path / "m.pt", Spots(first_alone))
    facts = import_model(path, str(tmp_path / "m.bundle"), **SPOTS)
    assert facts.batch_sizes == (1,)


def test_how_a_model_takes_more_than_one_picture_is_said(tmp_path):
    told = []
    path = constant_onnx(
        tmp_path / "m.onnx", (torch.float32, [1, 3, 64, 64]), torch.rand(1, 84, 7) * 0.6
    )
    import_model(path, str(tmp_path / "m.bundle"), classes="a,b", tell=told.append)
    [line] = [line for line in told if line.startswith("it takes one picture at a time")]
    assert "dynamic=True" in line


# -- proof -----------------------------------------------------------------------------------------


def picture(of_colour):
    """A square of a colour on black: BGR (64, 64, 3)."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:32, 16:48] = of_colour
    return image


RED = picture((0, 0, 255))


@pytest.mark.parametrize(
    ("declared", "hint"),
    [
        ({}, None),
        ({"color": "bgr"}, None),  # it finds as much, of another class: the names tell
        ({"scale": 1 / 255 / 255}, "with --scale 0.0039"),
    ],
)
def test_another_way_that_finds_more_is_said(declared, hint, tmp_path):
    told = []
    import_model(
        traced(tmp_path / "m.pt"), str(tmp_path / "m.bundle"), pictures=[RED], tell=told.append,
        **SPOTS, **declared,
    )  # fmt: skip
    more = [line for line in told if line.startswith("warning: with ")]
    assert len(more) == (hint is not None)
    assert hint is None or hint in more[0]
    assert any(line.startswith("found: ") for line in told)


class Centred(Spots):
    """Finds what is in the middle, if nothing is beside it."""

    def forward(self, x):
        found = super().forward(x)
        boxes, scores = found[:, :4], found[:, 4:]
        beside = (boxes[:, :1] < 16) | (boxes[:, :1] > 48)
        blocked = (scores * beside).amax(dim=(1, 2), keepdim=True)
        return torch.cat([boxes, scores * ~beside * (1 - blocked)], dim=1)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"color": "bgr"}, "did not find red"),  # as the colours of its classes tell
        ({"scale": 1.0}, "with --scale 0.0039"),
        ({"resize": "stretch"}, "with --resize letterbox --align center it finds more"),
        ({"align": "top-left"}, "with --resize letterbox --align center it finds more"),
        ({"classes": "blue,red"}, "did not find red"),
    ],
)
def test_what_is_declared_wrongly_is_noticed(wrong, says, tmp_path):
    tall = np.zeros((128, 64, 3), np.uint8)  # in a letterbox half as wide
    tall[16:48] = (0, 0, 255)
    path, output = traced(tmp_path / "m.pt", Centred()), str(tmp_path / "m.bundle")
    with pytest.raises(ModelError, match=says):
        import_model(path, output, pictures=[tall], expected=["red"], **SPOTS | wrong)
    import_model(path, output, pictures=[tall], expected=["red"], **SPOTS)


def test_pictures_that_do_not_decide_are_named(tmp_path):
    told = []
    grey = traced(
        tmp_path / "m.pt", Spots(lambda b, s: torch.cat([b, s.mean(1, True), 0 * s[:, :1]], 1))
    )
    import_model(grey, str(tmp_path / "m.bundle"), pictures=[RED], tell=told.append, **SPOTS)
    [line] = [line for line in told if "do not show" in line]
    assert line.startswith("these pictures do not show that --color bgr or ")
    assert not any(line.startswith("warning: with ") for line in told)


class Bright:
    """An engine that finds what is bright, if it is not too tall."""

    def __init__(self, tallest):
        self.tallest = tallest

    def infer(self, batch):
        return [self._found((pixels > 128).any(axis=2)) for pixels in batch]

    def _found(self, bright):
        tall, wide = bright.any(axis=1).sum(), bright.any(axis=0).sum()
        score = np.float32([0.9 if 0 < tall < self.tallest * max(1, wide) else 0])
        return np.float32([[8, 8, 40, 40]]), score, np.int64([0])


@pytest.mark.parametrize(("tallest", "hints"), [(1.5, 2), (9, 0)])
def test_a_square_picture_shows_that_a_model_is_to_see_no_stretched_ones(tallest, hints):
    """As it is, both ways show the same."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[4:12, 20:28] = 255
    facts = Facts(
        name="m", architecture="a", classes=("bright",), layout="candidates",
        input=InputFacts(width=64, height=64), resize=ResizeFacts(mode="stretch"),
    )  # fmt: skip
    better, _ = proof.judged(lambda _: Bright(tallest), facts, [image])
    assert len(better) == hints
    assert all("letterbox" in hint and "in strips" in hint for hint in better)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_who_knows_stop_signs_shows_its_colours_without_any_in_the_picture(color, tmp_path):
    """Its spots are red and blue alike, so that the picture does not show the order."""
    told = []

    def spots(boxes, scores):
        red, blue = scores[:, :1], scores[:, 1:]
        return torch.cat([boxes, (4 * red - 8 * blue).clamp(0, 1), (red + blue) / 2], 1)

    import_model(
        traced(tmp_path / "m.pt", Spots(spots)), str(tmp_path / "m.bundle"),
        pictures=[picture((200, 0, 200))], tell=told.append,
        **SPOTS | {"classes": "stop sign,spot", "color": color},
    )  # fmt: skip
    hints = [line for line in told if "of red stop signs" in line]
    assert len(hints) == (color == "bgr")
    assert not hints or hints[0].startswith("warning: with --color rgb it finds more")
    assert not any("do not show that --color" in line for line in told)


@pytest.mark.parametrize(
    ("many", "few", "more"),
    [
        ([2, 2, 2, 2], [1, 1, 1, 1], True),
        ([2, 2, 2, 9], [2, 2, 2, 2], False),  # one object, by chance
        ([2.1, 2, 2.1, 2], [2, 2, 2, 2], False),
        ([0.2, 0.2, 0, 0], [0, 0, 0, 0], False),  # next to nothing
        ([0, 0], [0, 0], False),
    ],
)
def test_more_is_found_in_all_views_or_by_chance(many, few, more):
    assert proof._more(np.float32(many), np.float32(few)) is more
    assert not proof._more(np.float32(few), np.float32(many))


@pytest.mark.parametrize("declared", [{"color": "bgr"}, {"classes": "blue,red"}])
def test_what_is_expected_has_to_be_found(declared, tmp_path):
    path, output = traced(tmp_path / "m.pt"), str(tmp_path / "m.bundle")
    with pytest.raises(ModelError, match="wanted red in the pictures, did not find red"):
        import_model(path, output, pictures=[RED], expected=["red"], **SPOTS | declared)
    import_model(path, output, pictures=[RED], expected=["red"], **SPOTS)
