"""Models of others, as their makers export them: each comes in, and finds the boxes that it returns."""

import numpy as np
import pytest

from pipeline.errors import ConfigError, ModelError
from stages.detector import layouts
from stages.detector.bundle import Facts, InputFacts, OutputFacts
from stages.detector.engines import load
from stages.detector.importing import COCO80, COCO91, import_model
from stages.detector.outputs import per_picture
from stages.detector.signatures import FAMILIES

onnx_models = pytest.importorskip("onnx_models")
pytest.importorskip("onnxruntime")

WIDE = (1, 3, 32, 64)  # 64x32: what mixes up width and height is seen
BOXES = np.float32([[8, 4, 24, 20], [40, 8, 56, 28]])  # px of the input, x1 y1 x2 y2
SCORES = np.float32([0.75, 0.5])
LABELS = np.int64([2, 1])
NAMES = "ant,bee,cat"


def found(path, tmp_path, **options):
    """What an imported model finds on a grey picture: boxes, scores, labels; and its facts."""
    output = str(tmp_path / "m.bundle")
    facts = import_model(path, output, **options)
    (arrays,) = load(output, facts).infer(
        np.full((1, facts.input.height, facts.input.width, 3), 255, np.uint8)
    )
    layouts.check(arrays, facts, "m")
    arrays = layouts.used(arrays, facts)
    assert sum(array.nbytes for array in arrays) <= facts.output_bytes_per_image
    assert all(array.flags.c_contiguous for array in arrays)
    return layouts.candidates(arrays, facts, 0.1), facts


def is_right(seen, labels=LABELS):
    np.testing.assert_allclose(seen.xyxy, BOXES, atol=1e-3)
    np.testing.assert_allclose(seen.scores, SCORES, atol=1e-6)
    assert seen.labels.tolist() == list(labels)
    assert seen.final


def one(array):
    return array[None]


# -- three outputs ---------------------------------------------------------------------------------


def test_rt_detr_is_told_the_size_of_its_input(tmp_path):
    """D-FINE and DEIM too: boxes come in pixels of what orig_target_sizes says, which is width, height."""
    mean = np.float32((64 + 32) / 2)
    path = onnx_models.save(
        tmp_path / "m.onnx",
        {"labels": one(LABELS), "boxes": one(BOXES / mean), "scores": one(SCORES / mean)},
        shape=WIDE,
        extra={"orig_target_sizes": ("int64", (1, 2))},
    )
    seen, facts = found(path, tmp_path, classes=NAMES)
    is_right(seen)
    assert (facts.layout, facts.resize.mode) == ("final", "stretch")
    assert facts.output.roles == ("labels", "boxes", "scores")
    assert facts.input.scale == pytest.approx(1 / 255)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_torchvision_has_names_that_say_nothing_and_no_batch(order, tmp_path):
    arrays = [BOXES, SCORES, LABELS + 1]
    path = onnx_models.save(
        tmp_path / "m.onnx",
        {f"out_{i}": arrays[i] for i in order},
        shape=WIDE[1:],
        name="x",
    )
    seen, facts = found(path, tmp_path, classes=f"__background__,{NAMES}")
    is_right(seen)
    assert (facts.input.order, facts.batch_sizes) == ("chw", (1,))
    assert (
        len(load(str(tmp_path / "m.bundle"), facts).infer(np.zeros((3, 32, 64, 3), np.uint8))) == 3
    )


def test_tensorflow_counts_from_one_and_gives_shares_y_first(tmp_path):
    """TF-OD as tf2onnx converts it: pictures of bytes, NHWC; 2 of 3 rows count."""
    share = BOXES[:, [1, 0, 3, 2]] / np.float32([32, 64, 32, 64])
    path = onnx_models.save(
        tmp_path / "m.onnx",
        {
            "detection_boxes": one(np.vstack([share, [[0, 0, 1, 1]]]).astype(np.float32)),
            "detection_classes": one(np.float32([*(LABELS + 1), 1])),
            "detection_scores": one(np.float32([*SCORES, 0.9])),
            "num_detections": np.float32([2]),
            "raw_detection_scores": np.zeros((1, 7, 4), np.float32),
        },
        shape=(1, 32, 64, 3),
        dtype="uint8",
    )
    seen, facts = found(path, tmp_path, classes=NAMES)
    is_right(seen)
    assert (facts.input.order, facts.input.dtype, facts.label_offset) == ("nhwc", "uint8", 1)


def test_a_count_of_each_picture_and_labels_below_zero(tmp_path):
    path = onnx_models.save(
        tmp_path / "m.onnx",
        {
            "num_dets": np.int32([[3]]),
            "det_boxes": one(np.vstack([BOXES, np.ones((2, 4))]).astype(np.float32)),
            "det_scores": one(np.float32([*SCORES, 0.9, 0.9])),
            "det_classes": one(np.int32([*LABELS, -1, 0])),
        },
        shape=WIDE,
    )
    seen, facts = found(path, tmp_path, classes=NAMES)
    is_right(seen)
    assert facts.resize.align == "center"


def test_outputs_that_nothing_tells_apart_are_asked_for(tmp_path):
    cxcywh = np.hstack([(BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2]])
    path = onnx_models.save(
        tmp_path / "m.onnx",
        {"a": one(LABELS.astype(np.float32)), "b": one(cxcywh / 64), "c": one(SCORES)},
        shape=(1, 3, 64, 64),
    )
    with pytest.raises(ConfigError, match="layout and classes; pass --layout and --classes"):
        found(path, tmp_path)
    with pytest.raises(ConfigError, match="does not say its roles; pass --roles"):
        found(path, tmp_path, layout="final", classes=NAMES)
    how = {"layout": "final", "classes": NAMES, "box": "cxcywh", "unit": "share"}
    seen, _ = found(path, tmp_path, roles=["labels", "boxes", "scores"], **how)
    is_right(seen)
    with pytest.raises(ModelError, match="labels are no whole numbers"):
        found(path, tmp_path, roles=["scores", "boxes", "labels"], **how | {"classes": "a,b"})
    with pytest.raises(ModelError, match="give roles to 4 outputs"):
        found(path, tmp_path, roles=["labels", "boxes", "scores", "none"], **how)
    with pytest.raises(
        ModelError, match=r"needs output\.roles with boxes, scores and labels, once each"
    ):
        found(path, tmp_path, roles=["labels", "boxes", "boxes"], **how)


# -- tables ----------------------------------------------------------------------------------------


def table(*columns):
    return np.column_stack(
        [np.broadcast_to(c, (2,)) if np.ndim(c) < 2 else c for c in columns]
    ).astype(np.float32)


@pytest.mark.parametrize("label_first", [True, False])
def test_rows_of_seven_show_which_column_is_the_label(label_first, tmp_path):
    """YOLOv7's and YOLO-NAS's tables differ in nothing else."""
    last = (LABELS, SCORES) if label_first else (SCORES, LABELS)
    path = onnx_models.save(
        tmp_path / "m.onnx",
        {"output": table(0, BOXES, *last)},
        shape=WIDE,
        shapes={"output": ["n", 7]},
    )
    told = []
    seen, facts = found(path, tmp_path, classes=NAMES, tell=told.append)
    is_right(seen)
    assert (facts.output.columns[-1] == "score") == label_first
    assert any("its columns, by what they hold: picture, box" in line for line in told)


def test_rows_that_show_nothing_are_asked_for(tmp_path):
    path = onnx_models.save(
        tmp_path / "m.onnx", {"y": table(0, BOXES, 1, LABELS)}, shape=WIDE, shapes={"y": ["n", 7]}
    )
    with pytest.raises(
        ConfigError, match=r"--columns picture,box,score,label or --columns picture,box,label,score"
    ):
        found(path, tmp_path, classes=NAMES)
    seen, _ = found(path, tmp_path, classes=NAMES, columns=["picture", "box", "score", "label"])
    assert seen.scores.tolist() == [1, 1]


def test_openvino_s_detections_are_shares_and_end_at_minus_one(tmp_path):
    rows = np.zeros((1, 1, 5, 7), np.float32)
    rows[0, 0, :2] = table(0, LABELS, SCORES, BOXES / np.float32([64, 32, 64, 32]))
    rows[0, 0, 2] = -1
    rows[0, 0, 3] = 0, 1, 0.99, 0, 0, 1, 1  # memory that nobody wrote
    path = onnx_models.save(tmp_path / "m.onnx", {"detection_out": rows}, shape=WIDE)
    seen, facts = found(path, tmp_path, classes=NAMES)
    is_right(seen)
    assert (facts.input.color, facts.resize.mode, facts.input.scale) == ("bgr", "stretch", 1)


def rows_facts(*columns, roles=()):
    return Facts(
        name="m", architecture="a", classes=("ant", "bee", "cat"), layout="rows",
        input=InputFacts(width=64, height=32, dtype="float32"),
        output=OutputFacts(columns=columns, roles=roles),
    )  # fmt: skip


def test_rows_of_several_pictures_go_to_each():
    facts = rows_facts("picture", "box", "score", "label")
    rows = np.vstack([table([0, 2], BOXES, SCORES, LABELS), table([2, -1], BOXES, SCORES, LABELS)])
    alone = [arrays[0].tolist() for arrays in per_picture([rows], 3, facts, "m")]
    assert alone == [BOXES[:1].tolist(), [], [BOXES[1].tolist(), BOXES[0].tolist()]]
    with pytest.raises(ModelError, match="a batch of 2 pictures must give results for 2, got 3"):
        per_picture([rows], 2, facts, "m")
    with pytest.raises(ModelError, match="needs a table of 7 columns"):
        per_picture([rows[:, :6]], 3, facts, "m")


def test_rows_one_after_the_other_by_their_count():
    facts = rows_facts("label", "score", "box", roles=("count", "rows"))
    rows = table(LABELS, SCORES, BOXES)
    alone = [
        arrays[2].tolist() for arrays in per_picture([np.int32([1, 0, 1]), rows], 3, facts, "m")
    ]
    assert alone == [[2], [], [1]]
    for counts in ([1, 1], [2, 0, 1]):
        with pytest.raises(ModelError, match="a batch of 3"):
            per_picture([np.int32(counts), rows], 3, facts, "m")


def test_paddle_s_rows_come_with_a_count_and_a_scale(tmp_path):
    path = onnx_models.save(
        tmp_path / "m.onnx",
        {"multiclass_nms3_0.tmp_0": table(LABELS, SCORES, BOXES), "count": np.int32([2])},
        shape=WIDE,
        extra={"scale_factor": ("float32", (1, 2))},
        shapes={"multiclass_nms3_0.tmp_0": ["n", 6]},
        name="image",
    )
    seen, facts = found(path, tmp_path, classes=NAMES)
    is_right(seen)
    assert facts.output.columns == ("label", "score", "box")
    assert facts.input.std == (0.229, 0.224, 0.225)
    assert facts.resize.interpolation == "cubic"


# -- distributions ---------------------------------------------------------------------------------


def by_hand(cell, sides, stride, centre):
    """The box of one prediction, with plain numbers: sides are 4 lists of 8 logits."""
    distances = []
    for logits in sides:
        powers = [np.exp(value) for value in logits]
        distances.append(stride * sum(i * p for i, p in enumerate(powers)) / sum(powers))
    x, y = ((place + centre) * stride for place in cell)
    left, top, right, bottom = distances
    return [x - left, y - top, x + right, y + bottom]


def gfl_predictions(rng):
    """64x32 px in strides 8, 16, 32, 64: 32 + 8 + 2 + 1 cells; two of them are sure."""
    scores = np.full((43, 80), 0.01, np.float32)
    sides = rng.normal(0, 2, (43, 32)).astype(np.float32)
    scores[8 * 2 + 3, 17] = 0.8  # stride 8, column 3, row 2
    scores[32 + 4 * 1 + 2, 4] = 0.6  # stride 16, column 2, row 1
    return scores, sides


def test_nanodet_measures_from_the_corner_of_a_cell(tmp_path):
    scores, sides = gfl_predictions(np.random.default_rng(1))
    path = onnx_models.save(
        tmp_path / "m.onnx", {"output": one(np.hstack([scores, sides]))}, shape=WIDE
    )
    seen, facts = found(path, tmp_path)
    assert (facts.layout, facts.classes, facts.input.color) == ("gfl", COCO80, "bgr")
    assert seen.labels.tolist() == [17, 4]
    assert not seen.final
    wanted = [
        by_hand((3, 2), sides[19].reshape(4, 8), 8, 0),
        by_hand((2, 1), sides[38].reshape(4, 8), 16, 0),
    ]
    np.testing.assert_allclose(seen.xyxy, wanted, atol=1e-3)


def test_a_cell_of_gfl_counts_for_every_class_above_the_threshold(tmp_path):
    scores, sides = gfl_predictions(np.random.default_rng(1))
    scores[19, 3] = 0.7  # beside class 17
    path = onnx_models.save(
        tmp_path / "m.onnx", {"output": one(np.hstack([scores, sides]))}, shape=WIDE
    )
    seen, _ = found(path, tmp_path)
    assert seen.labels.tolist() == [3, 17, 4]
    np.testing.assert_allclose(seen.scores, [0.7, 0.8, 0.6], atol=1e-6)
    np.testing.assert_array_equal(seen.xyxy[0], seen.xyxy[1])


def test_picodet_measures_from_the_middle_and_has_an_output_a_stride(tmp_path):
    scores, sides = gfl_predictions(np.random.default_rng(2))
    ends = [32, 40, 42]
    parts = [*np.split(scores, ends), *np.split(sides, ends)]
    path = onnx_models.save(
        tmp_path / "m.onnx", {f"t{i}": one(part) for i, part in enumerate(parts)}, shape=WIDE
    )
    seen, facts = found(path, tmp_path)
    assert (facts.output.centre, facts.input.color) == (0.5, "rgb")
    assert facts.resize.interpolation == "cubic"
    wanted = [
        by_hand((3, 2), sides[19].reshape(4, 8), 8, 0.5),
        by_hand((2, 1), sides[38].reshape(4, 8), 16, 0.5),
    ]
    np.testing.assert_allclose(seen.xyxy, wanted, atol=1e-3)
    np.testing.assert_allclose(seen.scores, [0.8, 0.6], atol=1e-6)


def test_gfl_of_another_size_is_named(tmp_path):
    scores, sides = gfl_predictions(np.random.default_rng(1))
    path = onnx_models.save(
        tmp_path / "m.onnx", {"output": one(np.hstack([scores, sides]))}, shape=(1, 3, "h", "w")
    )
    with pytest.raises(
        ModelError, match=r"prediction for each cell of 8, 16, 32 \(, 64\) px of 96x32"
    ):
        found(path, tmp_path, layout="gfl", classes="coco80", size="96x32")


# -- rows behind the boxes -------------------------------------------------------------------------


def test_masks_behind_final_rows_are_left_alone(tmp_path):
    """Ultralytics' segmentation with NMS inside: x1, y1, x2, y2, score, label, and 32 numbers of a mask."""
    rows = np.hstack([BOXES, SCORES[:, None], LABELS[:, None], np.ones((2, 32))]).astype(np.float32)
    path = onnx_models.save(
        tmp_path / "m.onnx",
        {"output0": one(rows), "output1": np.zeros((1, 32, 16, 16), np.float32)},
        shape=WIDE,
    )
    onnx = pytest.importorskip("onnx")
    model = onnx.load(path)
    for key, value in {
        "task": "segment",
        "imgsz": [32, 64],
        "names": {0: "ant", 1: "bee", 2: "cat"},
    }.items():
        model.metadata_props.add(key=key, value=str(value))
    onnx.save(model, path)
    seen, facts = found(path, tmp_path)
    is_right(seen)
    assert facts.ignored_rows == 32
    assert facts.output_bytes_per_image == 4 * 2 * 38


# -- inputs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("shape", [(1, 3, 32, 64), (1, 32, 64, 3), (3, 32, 64)])
def test_pictures_in_every_order_and_type(dtype, shape, tmp_path):
    """The model's scores are the mean of what it was shown."""
    path = onnx_models.save(
        tmp_path / "m.onnx",
        {"boxes": one(BOXES), "scores": one(np.float32([1, 1])), "labels": one(LABELS)},
        shape=shape,
        dtype=dtype,
        scored=("scores",),
    )
    scale = {} if dtype == "uint8" else {"scale": 0.5 / 255}
    output = str(tmp_path / "m.bundle")
    if dtype == "uint8":
        with pytest.raises(ModelError, match="scores must be within"):
            import_model(path, output, classes=NAMES)
        return
    facts = import_model(path, output, classes=NAMES, **scale)
    grey = np.full((1, 32, 64, 3), 100, np.uint8)
    ((_, scores, _),) = load(output, facts).infer(grey)
    np.testing.assert_allclose(scores, 100 * 0.5 / 255, atol=1e-3)
    assert facts.input.dtype == dtype


@pytest.mark.parametrize(
    ("extra", "mean"),
    [
        ({"pixel_mask": ("int64", (1, 8, 8))}, 1),
        ({"pixel_mask": ("int64", (1, "h", "w"))}, 1),
        ({"im_shape": ("float32", (1, 2)), "scale_factor": ("float32", (1, 2))}, 48),
    ],
)
def test_what_is_the_same_for_every_picture_is_fed_beside_it(extra, mean, tmp_path):
    path = onnx_models.save(
        tmp_path / "m.onnx",
        {"boxes": one(BOXES / mean), "scores": one(SCORES / mean), "labels": one(LABELS)},
        shape=WIDE,
        extra=extra,
    )
    is_right(found(path, tmp_path, classes=NAMES)[0])


def test_another_input_is_named(tmp_path):
    path = onnx_models.save(
        tmp_path / "m.onnx",
        {"boxes": one(BOXES), "scores": one(SCORES), "labels": one(LABELS)},
        shape=WIDE,
        extra={"threshold": ("float32", (1,))},
    )
    with pytest.raises(ModelError, match=r"the model has images: tensor\(float\), threshold"):
        found(
            path,
            tmp_path,
            classes=NAMES,
            size="64x32",
            layout="final",
            roles=["boxes", "scores", "labels"],
        )


def test_lists_of_classes():
    assert (len(COCO91), COCO91[1], COCO91[12], COCO91[13], COCO91[90]) == (
        91, "person", "N/A", "stop sign", "toothbrush",
    )  # fmt: skip
    assert [name for name in COCO91 if name not in ("background", "N/A")] == list(COCO80)


def test_every_family_says_how_it_sees_colours():
    assert all(family["color"] in ("rgb", "bgr") for family in FAMILIES.values())


# -- faces -----------------------------------------------------------------------------------------


def yunet_outputs(width, height):
    """One face in stride 16, column 1, row 1: two scores whose product's root is 0.6."""
    outputs = {}
    for part, columns in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            cells = (width // stride) * (height // stride)
            outputs[f"{part}_{stride}"] = np.zeros((1, cells, columns), np.float32)
    cell = width // 16 + 1
    outputs["cls_16"][0, cell] = 0.9
    outputs["obj_16"][0, cell] = 0.4
    outputs["bbox_16"][0, cell] = 0.5, 0.25, np.log(2), np.log(3)
    return outputs


def test_yunet_finds_faces(tmp_path):
    path = onnx_models.save(tmp_path / "m.onnx", yunet_outputs(64, 32), shape=WIDE)
    seen, facts = found(path, tmp_path)
    assert (facts.classes, facts.input.color, facts.resize.pad) == (("face",), "bgr", 0)
    np.testing.assert_allclose(seen.xyxy, [[24 - 16, 20 - 24, 24 + 16, 20 + 24]], atol=1e-3)
    np.testing.assert_allclose(seen.scores, [0.6], atol=1e-6)
    assert facts.output_bytes_per_image == 4 * 6 * (32 + 8 + 2)
    with pytest.raises(ModelError, match=r"for 8, 16 and 32 px \(n, 1\) twice and \(n, 4\)"):
        layouts.check([np.zeros((32, 1))], facts, "m")
