"""Models of transformers, with the files that lie beside them: nothing has to be said."""

import json

import numpy as np
import pytest

from pipeline.errors import ModelError
from stages.detector import layouts
from stages.detector.engines import load
from stages.detector.importing import import_model

onnx_models = pytest.importorskip("onnx_models")
pytest.importorskip("onnxruntime")

NAMES = {"0": "ant", "1": "bee", "2": "cat"}
PICTURES = {
    "size": {"height": 32, "width": 64}, "do_rescale": True, "rescale_factor": 1 / 255, "resample": 2,
    "do_normalize": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7],
}  # fmt: skip
BOXES = np.float32([[0.25, 0.5, 0.25, 0.5], [0.75, 0.5, 0.25, 0.25]])  # shares: cx, cy, w, h
XYXY = np.float32([[8, 8, 24, 24], [40, 12, 56, 20]])


def logits(columns=3):
    """Two queries: a cat, surely, and a bee."""
    found = np.full((2, columns), -9, np.float32)
    found[0, 2], found[1, 1] = 3, 1
    return found


def exported(folder, *, kind="rt_detr", config=None, pictures=PICTURES, columns=3, **more):
    """The files of a model: its own exporter gives what layers pass on, too, and some is alike."""
    config = {"model_type": kind, "id2label": NAMES} if config is None else config
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if pictures:
        (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    outputs = {
        "enc_topk_logits": np.zeros((1, 2, columns), np.float32),
        "init_reference_points": np.full((1, 2, 4), 0.9, np.float32),
        "logits": logits(columns)[None],
        "hidden.0": np.zeros((1, 7, 2, 2), np.float32),
        "pred_boxes": BOXES[None],
    }
    return onnx_models.save(folder / "model.onnx", outputs, name="pixel_values", **more)


def found(path, tmp_path, **options):
    output = str(tmp_path / "m.bundle")
    facts = import_model(path, output, **options)
    size = facts.input
    (arrays,) = load(output, facts).infer(np.zeros((1, size.height, size.width, 3), np.uint8))
    layouts.check(arrays, facts, "m")
    assert sum(array.nbytes for array in arrays) <= facts.output_bytes_per_image
    return layouts.candidates(arrays, facts, 0.1), facts


def test_names_of_outputs_tell_the_answer_from_what_layers_pass_on(tmp_path):
    seen, facts = found(exported(tmp_path, shape=(1, 3, 32, 64)), tmp_path)
    best = seen.scores.argmax()
    np.testing.assert_allclose(seen.xyxy[best], XYXY[0], atol=1e-4)
    assert seen.scores[best] == pytest.approx(1 / (1 + np.exp(-3)), abs=1e-5)
    assert facts.classes[seen.labels[best]] == "cat"
    assert facts.output.roles == ("none", "none", "scores", "none", "boxes")
    assert (facts.input.color, facts.resize.mode) == ("rgb", "stretch")
    assert (facts.input.mean, facts.input.std) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    assert facts.resize.interpolation == "antialias"


def test_rf_detr_is_shown_smaller_pictures_without_a_filter(tmp_path):
    pictures = {**PICTURES, "image_processor_type": "RfDetrImageProcessor"}
    path = exported(tmp_path, kind="rf_detr", pictures=pictures, shape=(1, 3, 32, 64))
    assert found(path, tmp_path)[1].resize.interpolation == "linear"


def test_softmax_has_a_last_column_for_nothing(tmp_path):
    path = exported(tmp_path, kind="detr", columns=4, shape=(1, 3, 32, 64))
    seen, facts = found(path, tmp_path)
    assert facts.activation == "softmax"
    assert sorted(facts.classes[label] for label in seen.labels) == ["bee", "cat"]


@pytest.mark.parametrize(
    ("size", "shape", "canvas"),
    [
        ({"shortest_edge": 48, "longest_edge": 64}, (1, 3, "h", "w"), (64, 36)),
        ({"shortest_edge": 32, "longest_edge": 1333}, (1, 3, "h", "w"), (57, 32)),
        ({"shortest_edge": 48, "longest_edge": 64}, (1, 3, 32, 40), (40, 32)),  # the file's is
        (48, (1, 3, "h", "w"), (85, 48)),  # as it was once written
    ],
)
def test_pictures_that_keep_their_shape_get_a_canvas(size, shape, canvas, tmp_path):
    path = exported(tmp_path, pictures=PICTURES | {"size": size}, shape=shape)
    _, facts = found(path, tmp_path)
    assert (facts.input.width, facts.input.height) == canvas
    assert (facts.resize.mode, facts.resize.align) == ("letterbox", "top-left")
    assert facts.resize.pad == 51  # the mean, which is 0 for the model


def test_numbers_that_name_nothing_keep_their_place(tmp_path):
    config = {"model_type": "rf_detr", "id2label": {"0": "ant", "2": "cat"}}
    seen, facts = found(exported(tmp_path, config=config, shape=(1, 3, 32, 64)), tmp_path)
    assert facts.classes == ("ant", "N/A", "cat")
    assert facts.classes[seen.labels[seen.scores.argmax()]] == "cat"


def test_files_around_a_folder_of_onnx(tmp_path):
    path = exported(tmp_path / "onnx", shape=(1, 3, 32, 64))
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / "onnx" / name).rename(tmp_path / name)
    assert found(path, tmp_path)[1].classes == ("ant", "bee", "cat")


def test_how_pictures_are_scaled_is_asked_for(tmp_path):
    path = exported(tmp_path, pictures=None, shape=(1, 3, 32, 64))
    with pytest.raises(
        ModelError, match=r"preprocessor_config\.json, which says how pictures .* not there"
    ):
        import_model(path, str(tmp_path / "m.bundle"))
    facts = import_model(path, str(tmp_path / "m.bundle"), scale=1 / 255)
    assert facts.input.mean is None
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": PICTURES}))
    assert import_model(path, str(tmp_path / "m.bundle")).input.mean == (0.1, 0.2, 0.3)


def test_a_model_without_boxes_is_named(tmp_path):
    config = {"architectures": ["ViTForImageClassification"], "id2label": NAMES}
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = onnx_models.save(tmp_path / "m.onnx", {"logits": np.zeros((1, 3), np.float32)})
    with pytest.raises(
        ModelError, match="it is ViTForImageClassification, no detection: it returns logits"
    ):
        import_model(path, str(tmp_path / "m.bundle"))
