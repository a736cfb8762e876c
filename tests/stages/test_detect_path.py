"""Preprocess, inference and postprocess, one after the other, in one process and plain memory."""

import dataclasses

import cv2
import numpy as np
import pytest
import tiny_models

from pipeline.detections import Detections, Fit
from pipeline.errors import ConfigError, DeviceLost, FrameError, ModelError
from pipeline.messages import Frame, FrameInfo, Output
from pipeline.runtime import LocalRuntime
from stages.detector.bundle import Facts, InputFacts, ResizeFacts, with_tiles
from stages.detector.decode import Options, by_frame, detections_of_all
from stages.detector.engines import OutOfMemory
from stages.detector.importing import import_model
from stages.inference import Inference, InferenceConfig
from stages.postprocess import Postprocess, PostprocessConfig
from stages.preprocess import Preprocess, PreprocessConfig

FACTS = Facts(
    name="stub",
    architecture="stub",
    classes=("cat", "dog"),
    input=InputFacts(width=160, height=160),
    layout="candidates",
    output_bytes_per_image=28,
)
STUB = InferenceConfig(facts=FACTS.to_json(), engine="stub", stub_alpha_ms=0, stub_beta_ms=0)
BOX = (40, 20, 120, 80)  # px, the bright part of the frame


def frame(pixel_format="bgr24", box=BOX, size_wh_px=(320, 180), truth=None, camera="gate"):
    width, height = size_wh_px
    picture = np.zeros((height, width, 3), np.uint8)
    x1, y1, x2, y2 = box
    picture[y1:y2, x1:x2] = 255
    if pixel_format == "i420":
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420)
    picture.flags.writeable = False
    info = FrameInfo(
        camera=camera,
        frame_id=7,
        t_capture_ns=1,
        t_wall_ns=2,
        width=width,
        height=height,
        truth=truth,
    )
    return Frame(info=info, format=pixel_format, pixels=picture)


def ready(stage):
    stage.check(stage.config)
    stage.runtime = Slots(stage.slot_bytes(stage.config, 0))
    stage.setup()
    return stage


class Slots(LocalRuntime):
    """Gives one array per item and, as the real runtime, no more bytes than the stage declared."""

    def __init__(self, slot_bytes):
        super().__init__()
        self.slot_bytes = slot_bytes
        self.given = []

    def empty(self, shape, dtype):
        array = super().empty(shape, dtype)
        self.given.append(array)
        if array.nbytes > self.slot_bytes:
            raise FrameError(f"{array.nbytes} bytes into a slot of {self.slot_bytes}")
        return array


@pytest.fixture
def preprocess():
    return ready(Preprocess(PreprocessConfig(facts=FACTS.to_json())))


@pytest.fixture
def inference():
    return ready(Inference(STUB))


def postprocess(**config):
    return ready(Postprocess(PostprocessConfig(facts=FACTS.to_json(), **config)))


@pytest.mark.parametrize("size", [(320, 180), (640, 360)])  # converted as a whole, or when small
@pytest.mark.parametrize("pixel_format", ["bgr24", "i420"])
def test_a_frame_goes_in_and_a_box_comes_out(preprocess, inference, pixel_format, size):
    scale = size[0] / 320
    item = frame(pixel_format, box=[int(value * scale) for value in BOX], size_wh_px=size)
    (output,) = inference.process_batch([preprocess.process(item)])
    result = postprocess().process(output)
    assert result.info == item.info
    assert result.model_id == "stub"
    assert np.abs(result.detections.xyxy - np.array(BOX) * scale).max() <= 2 * scale
    assert result.detections.scores.tolist() == pytest.approx([0.9])


def test_tensors_lie_in_the_slot(preprocess):
    tensor = preprocess.process(frame())
    assert (tensor.pixels.shape, tensor.pixels.dtype) == ((160, 160, 3), np.uint8)
    assert preprocess.slot_bytes(preprocess.config, 0) == tensor.pixels.nbytes
    assert tensor.pixels[0, 0].tolist() == [114, 114, 114]


@pytest.mark.parametrize("tiles", [(1, 1), (2, 2)])
def test_a_tensor_is_the_memory_that_was_given_and_no_view_of_it(tiles):
    """A view is looked for by its address, which costs each frame some microseconds, and new strings."""
    facts = dataclasses.replace(FACTS, resize=ResizeFacts(tiles=tiles), batch_sizes=(1, 2))
    stage = ready(Preprocess(PreprocessConfig(facts.to_json())))
    tensor = stage.process(frame())
    [given] = stage.runtime.given
    assert tensor.pixels is given


def test_colour_order_of_the_model():
    blue = np.zeros((160, 160, 3), np.uint8)
    blue[..., 0] = 255
    info = FrameInfo(camera="a", frame_id=0, t_capture_ns=0, t_wall_ns=0, width=160, height=160)
    for color, wanted in (("bgr", [255, 0, 0]), ("rgb", [0, 0, 255])):
        facts = dataclasses.replace(FACTS, input=InputFacts(width=160, height=160, color=color))
        stage = ready(Preprocess(PreprocessConfig(facts=facts.to_json())))
        tensor = stage.process(Frame(info=info, format="bgr24", pixels=blue))
        assert tensor.pixels[80, 80].tolist() == wanted


def test_each_of_a_batch_gets_its_own(preprocess, inference):
    boxes = [(10 * i, 0, 10 * i + 40, 40) for i in range(11)]  # more than the largest batch
    tensors = [preprocess.process(frame(box=box, camera=f"c{i}")) for i, box in enumerate(boxes)]
    outputs = inference.process_batch(tensors)
    assert [output.info.camera for output in outputs] == [f"c{i}" for i in range(11)]
    stage = postprocess()
    for box, output in zip(boxes, outputs, strict=True):
        assert np.abs(stage.process(output).detections.xyxy - box).max() <= 2
    assert inference.process_batch([]) == []


def test_outputs_lie_aligned_in_one_slot(preprocess, inference):
    (output,) = inference.process_batch([preprocess.process(frame())])
    starts = [array.__array_interface__["data"][0] for array in output.arrays]
    assert [start - starts[0] for start in starts] == [0, 64, 128]
    assert [array.dtype for array in output.arrays] == [np.float32, np.float32, np.int64]


def test_the_turn_is_bounded_by_what_was_measured():
    assert ready(Inference(STUB)).turn_s >= 1.0  # more, where the cores were busy with others
    slow = dataclasses.replace(STUB, stub_alpha_ms=250, max_batch=1)
    assert ready(Inference(slow)).turn_s >= 1.25


def test_out_of_memory_halves_the_batch(preprocess, inference, caplog):
    tensors = [preprocess.process(frame(camera=f"c{i}")) for i in range(8)]
    run, seen = inference._engine.infer, []

    def infer(batch):
        seen.append(len(batch))
        if len(batch) > 3:
            raise OutOfMemory(f"batch of {len(batch)}")
        return run(batch)

    inference._engine.infer = infer
    assert [o.info.camera for o in inference.process_batch(tensors)] == [f"c{i}" for i in range(8)]
    assert seen == [8, 4, 2, 2, 2, 2]
    assert "at most 2 from now on" in caplog.text
    assert len(inference.process_batch(tensors)) == 8
    assert set(seen[6:]) == {2}


def test_no_memory_for_one_picture_is_the_end(preprocess, inference):
    def infer(batch):
        raise OutOfMemory("none")

    inference._engine.infer = infer
    with pytest.raises(DeviceLost, match="single picture"):
        inference.process_batch([preprocess.process(frame())])


@pytest.fixture
def bundle(tmp_path):
    path = tiny_models.save(tiny_models.Candidates(), tmp_path / "foreign.pt")
    output = str(tmp_path / "m.bundle")
    import_model(path, output, layout="candidates", classes="cat,dog", size=64, dtype="uint8")
    return output


def test_a_torchscript_bundle_runs(bundle):
    inference = ready(Inference(InferenceConfig(model=bundle)))
    facts = inference._facts.to_json()
    preprocess = ready(Preprocess(PreprocessConfig(facts=facts)))
    post = ready(Postprocess(PostprocessConfig(facts=facts, score_threshold=0.2)))
    (output,) = inference.process_batch([preprocess.process(frame(box=(0, 0, 320, 180)))])
    result = post.process(output)
    assert len(result.model_id) == 16
    assert result.detections.labels.tolist() == [1]
    # the quarter at the top left of the letterbox is the left half of the picture, to its middle
    assert result.detections.xyxy.tolist() == [[0, 0, 160, 90]]


def test_check_refuses_without_loading(bundle, tmp_path):
    from stages.detector.bundle import read_facts

    good = InferenceConfig(model=bundle)
    alone = dataclasses.replace(read_facts(bundle), twin=None).to_json()
    Inference.check(good)
    for changes, says in (
        ({"model": str(tmp_path / "none.bundle")}, "no such model file"),
        ({"model": str(tmp_path / "foreign.pt")}, "manyeyes model import"),
        ({"sha256": "0" * 64}, "wanted the file with sha256 0000"),
        ({"engine": "onnx", "facts": alone}, "cannot run it, torchscript can"),
        ({"engine": "tensorrt"}, "engine must be one of auto"),
        ({"threads": -1}, "or more"),
    ):
        with pytest.raises(ConfigError, match=says):
            Inference.check(dataclasses.replace(good, **changes))


def test_setup_refuses_facts_that_lie(bundle):
    from stages.detector.bundle import read_facts

    facts = read_facts(bundle)
    for changes, says in (
        ({"layout": "yolox"}, "layout 'yolox' needs"),
        ({"classes": ("dog", "cat")}, "golden test"),
        ({"resize": dataclasses.replace(facts.resize, pad=0)}, "golden test"),
        ({"input": dataclasses.replace(facts.input, color="bgr")}, "golden test"),
        ({"output_bytes_per_image": 28}, "at most 28 bytes of output per picture, got 84"),
    ):
        lie = dataclasses.replace(facts, **changes)
        with pytest.raises(ModelError, match=says):
            Inference(InferenceConfig(model=bundle, facts=lie.to_json())).setup()


def detections(*rows):
    table = np.array(rows, np.float32).reshape(-1, 5)
    n = len(table)
    return Detections(table[:, :4].copy(), np.ones(n, np.float32), table[:, 4].astype(np.int32))


def test_counts_per_class_and_against_the_truth(preprocess, inference):
    stage = postprocess()
    truth = detections((*BOX, 0), (200, 100, 260, 160, 1))
    items = [frame(truth=truth), frame(truth=detections()), frame()]
    for output in inference.process_batch([preprocess.process(item) for item in items]):
        stage.process(output)
    assert dict(stage.runtime.counts) == {
        ("detections:cat", "gate"): 3,
        ("true_positive", "gate"): 1,
        ("false_positive", "gate"): 1,
        ("false_negative", "gate"): 1,
    }
    names = set(stage.counters(stage.config))
    assert {name for name, _ in stage.runtime.counts} <= names
    assert "detections:dog" in names


def test_one_that_only_looks_on_counts_no_detections(preprocess, inference):
    stage = postprocess(is_shadow=True)
    for output in inference.process_batch([preprocess.process(frame())]):
        stage.process(output)
    assert not stage.runtime.counts
    assert "detections:dog" not in stage.counters(stage.config)


def test_truth_of_other_classes_is_not_missed(preprocess, inference):
    stage = postprocess(classes=["dog"])
    item = frame(truth=detections((*BOX, 0)))
    (output,) = inference.process_batch([preprocess.process(item)])
    stage.process(output)
    assert dict(stage.runtime.counts) == {}


def test_class_filter_and_thresholds(preprocess, inference):
    (output,) = inference.process_batch([preprocess.process(frame())])
    for config, n in (
        ({}, 1),
        ({"classes": ["dog"]}, 0),
        ({"per_class": {"cat": 0.95}}, 0),
        ({"score_threshold": 0.95}, 0),
        ({"score_threshold": 0.95, "per_class": {"cat": 0.5}}, 1),
    ):
        assert len(postprocess(**config).process(output).detections) == n


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            {"score_threshold": 40},
            "score_threshold must be within 0..1, got 40; write 0.4 for 40 %",
        ),
        ({"iou_threshold": -1}, "iou_threshold must be within 0..1"),
        ({"per_class": {"cat": 2}}, "per_class 'cat' must be within 0..1"),
        ({"per_class": {"cart": 0.5}}, "no class 'cart'; did you mean 'cat'"),
        ({"classes": ["horse"]}, "no class 'horse'; it knows cat, dog"),
        ({"max_detections": 0}, "within 1..1000"),
    ],
)
def test_options_that_cannot_work(config, says):
    with pytest.raises(ConfigError, match=says):
        Postprocess.check(PostprocessConfig(facts=FACTS.to_json(), **config))


@pytest.mark.parametrize("pixel_format", ["bgr24", "i420"])
@pytest.mark.parametrize("size_wh_px", [(320, 180), (640, 360)])
def test_boxes_come_in_pixels_of_the_source_however_small_the_frame_is(pixel_format, size_wh_px):
    small = frame(pixel_format, box=BOX, size_wh_px=size_wh_px)
    info = small.info._replace(width=small.width * 3, height=small.height * 2)
    large = dataclasses.replace(small, info=info)
    preprocess, inference = (
        ready(Preprocess(PreprocessConfig(FACTS.to_json()))),
        ready(Inference(STUB)),
    )
    postprocess = ready(Postprocess(PostprocessConfig(FACTS.to_json())))

    def found(picture: Frame) -> Detections:
        (output,) = inference.process_batch([preprocess.process(picture)])
        return postprocess.process(output).detections

    wanted = found(small).xyxy * np.float32([3, 2, 3, 2])
    np.testing.assert_allclose(found(large).xyxy, wanted, rtol=1e-6)
    assert wanted[0, 2] > 200


TILED = dataclasses.replace(FACTS, resize=ResizeFacts(tiles=(2, 2)), batch_sizes=(1, 2))


def tiled_path():
    """The three stages, with a model that sees five pictures of a frame, two at a time."""
    facts = TILED.to_json()
    return (
        ready(Preprocess(PreprocessConfig(facts))),
        ready(Inference(dataclasses.replace(STUB, facts=facts))),
        ready(Postprocess(PostprocessConfig(facts))),
    )


@pytest.mark.parametrize("pixel_format", ["bgr24", "i420"])
@pytest.mark.parametrize("box", [(40, 20, 60, 40), (330, 170, 380, 200), (100, 60, 600, 330)])
@pytest.mark.parametrize("shrunk", [1, 2])
def test_tiles_find_what_is_small_and_what_is_large_once(pixel_format, box, shrunk):
    preprocess, inference, postprocess = tiled_path()
    item = frame(pixel_format, box=box, size_wh_px=(640, 360))
    info = item.info._replace(width=640 * shrunk, height=360 * shrunk)
    tensors = [preprocess.process(dataclasses.replace(item, info=info)) for _ in range(3)]
    assert tensors[0].pixels.shape == (5, 160, 160, 3)
    for output in inference.process_batch(tensors):
        found = postprocess.process(output).detections
        assert np.abs(found.xyxy - np.float32(box) * shrunk).max() <= 8 * shrunk
        assert len(found) == 1


def test_tiles_are_halved_when_memory_runs_out():
    preprocess, inference, postprocess = tiled_path()
    whole = inference._engine.infer_pictures

    def infer(pictures):
        if len(pictures) > 1:
            raise OutOfMemory("no room")
        return whole(pictures)

    inference._engine.infer_pictures = infer
    (output,) = inference.process_batch([preprocess.process(frame(size_wh_px=(640, 360)))])
    assert len(postprocess.process(output).detections) == 1


def test_results_that_differ_in_number_are_one_frame_s_all_the_same():
    boxes = np.float32([[10, 10, 20, 20], [30, 30, 50, 50]])
    scores, labels = np.float32([0.9, 0.8]), np.int64([0, 1])
    facts = with_tiles(dataclasses.replace(FACTS, layout="torchvision"), (2, 1))
    outputs = [(boxes[:n], scores[:n], labels[:n]) for n in (0, 2, 1)]  # whole, left, right
    fits = [Fit(scale_x=0.5, scale_y=0.5, offset_x_px=-x / 2) for x in (0, 0, 160)]
    (frame,) = by_frame(outputs, 3)
    found = detections_of_all(frame, facts, fits, (320, 320), Options(score_threshold=0.0))
    assert found.xyxy.tolist() == [[20, 20, 40, 40], [180, 20, 200, 40], [60, 60, 100, 100]]


def test_the_best_that_was_not_sure_enough_is_told_once_a_second():
    output = Output(
        info=frame().info, fit=Fit(scale_x=0.5, scale_y=0.5, offset_y_px=35), model_id="m",
        arrays=(
            np.float32([[10, 40, 50, 80], [60, 40, 90, 80], [100, 40, 120, 80]]),
            np.float32([0.9, 0.3, 0.2]), np.int64([0, 1, 0]),
        ),
    )  # fmt: skip
    later = dataclasses.replace(
        output, info=output.info._replace(t_capture_ns=output.info.t_capture_ns + 2 * 10**9)
    )
    telling = postprocess(score_threshold=0.5, tells_missed=True, labels=(4, 7))
    results = [telling.process(one) for one in (output, output, later)]
    assert [one.missed for one in results] == [
        (7, pytest.approx(0.3)),
        None,
        (7, pytest.approx(0.3)),
    ]
    assert [len(one.detections) for one in results] == [1, 1, 1]
    assert postprocess(score_threshold=0.5).process(output).missed is None
    assert postprocess(score_threshold=0.1, tells_missed=True).process(output).missed is None
