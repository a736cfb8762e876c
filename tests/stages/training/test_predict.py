"""Predictors: the pipeline's own functions on pictures, detection files read back, videos drawn."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from pipeline.detections import Detections
from pipeline.errors import DataError, ModelError
from stages.detector import archive
from stages.detector.bundle import Facts, InputFacts
from stages.training.annotate import annotate
from stages.training.datasets import DataSet, Sample, load
from stages.training.detection_files import read_detections
from stages.training.evaluate import evaluate
from stages.training.figures import FIGURES, coco_results
from stages.training.labelling import label
from stages.training.labels import class_map, relabelled
from stages.training.predict import TAIL, Predictor, detect, found_by

WHITE = (20, 10, 60, 50)  # the white box in every picture of `dataset` but the last


class Bright(torch.nn.Module):
    """One candidate a picture: the box around its white pixels, score 0.75, label 1."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        white = (x > 200).all(1)  # (B, H, W)
        boxes = torch.zeros(x.shape[0], 1, 4)
        scores = torch.zeros(x.shape[0], 1)
        for i in range(x.shape[0]):
            rows = torch.nonzero(white[i].any(1)).flatten()
            columns = torch.nonzero(white[i].any(0)).flatten()
            if len(rows) > 0:
                boxes[i, 0, 0] = columns[0]
                boxes[i, 0, 1] = rows[0]
                boxes[i, 0, 2] = columns[-1] + 1
                boxes[i, 0, 3] = rows[-1] + 1
                scores[i, 0] = 0.75
        return boxes, scores, torch.ones(x.shape[0], 1, dtype=torch.int64)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    torch.jit.save(torch.jit.script(Bright()), str(folder / "bare"))
    facts = Facts(
        name="bright",
        architecture="test",
        classes=("nothing", "White"),
        input=InputFacts(width=50, height=50),
        layout="candidates",
        output_bytes_per_image=28,
    )
    archive.write_text(folder / "bare", folder / "bright.bundle", facts.to_json())
    return folder / "bright.bundle"


@pytest.fixture
def dataset(tmp_path: Path) -> DataSet:
    samples = []
    for i in range(5):
        path = tmp_path / "pictures" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        image = np.zeros((100, 100, 3), np.uint8)
        box = [WHITE] if i < 4 else []
        for x1, y1, x2, y2 in box:
            image[y1:y2, x1:x2] = 255
        cv2.imwrite(str(path), image)
        samples.append(
            Sample(
                path=path,
                width=100,
                height=100,
                xyxy=np.array(box, np.float32).reshape(-1, 4),
                labels=np.zeros(len(box), np.int32),
                crowd=np.zeros(len(box), bool),
                difficult=np.zeros(len(box), bool),
                image_id=10 * i + 7,
                group="",
            )
        )
    return DataSet(
        name="five", classes=("white", "dog"), samples=tuple(samples), problems=(), sha256="",
        category_ids=(4, 90),
    )  # fmt: skip


def same(one: list[Detections], other: list[Detections]) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.xyxy, b.xyxy)
        np.testing.assert_array_equal(a.scores, b.scores)
        np.testing.assert_array_equal(a.labels, b.labels)


def test_a_bundle_finds_boxes_in_pixels_of_the_source(bundle: Path, dataset: DataSet) -> None:
    steps: list[int] = []
    result = found_by(bundle, dataset, batch=2, progress=steps.append)
    found, speed = result.detections, result.speed_ms
    assert result.notes == (
        "the model knows no dog: all of them count as missed",
        "the data set knows no nothing: detections of them are left out",
    )
    assert [len(one) for one in found] == [1, 1, 1, 1, 0]
    np.testing.assert_allclose(found[0].xyxy, [WHITE], atol=2)
    assert found[0].labels.tolist() == [0]  # "White" of the model is "white" of the data set
    assert steps == [2, 4, 5]
    assert set(speed) == {"prepare", "infer", "decode"}
    judged = evaluate(found, dataset, score_threshold=0.5, speed=speed)
    assert judged.coco["AP50"] == pytest.approx(1)


def test_batches_of_any_size_find_the_same(bundle: Path, dataset: DataSet) -> None:
    predictors = [Predictor(bundle, options=TAIL, batch=batch) for batch in (1, 3, 16)]
    first, *rest = [detect(predictor, dataset) for predictor in predictors]
    for other in rest:
        same(first, other)
    assert predictors[0]([]) == []


def test_coco_results_and_events_are_read_back(
    bundle: Path, dataset: DataSet, tmp_path: Path
) -> None:
    found = found_by(bundle, dataset).detections
    results = tmp_path / "results.json"
    results.write_text(json.dumps(coco_results(found, dataset)))
    assert json.loads(results.read_text())[0]["category_id"] == 4
    same(found, read_detections(results, dataset).detections)
    same(found, found_by(results, dataset).detections)

    counts = annotate(Predictor(bundle, options=TAIL), [tmp_path / "pictures"], tmp_path / "out")
    assert counts == {"White": 4}
    events = tmp_path / "out" / "detections.jsonl"
    same(found, read_detections(events, dataset, {"White": "white"}).detections)
    ours, theirs = (
        evaluate(
            found_by(file, dataset, rename=names).detections, dataset, score_threshold=0.5
        ).coco
        for file, names in ((events, {"White": "white"}), (results, None))
    )
    assert [ours[name] for name in FIGURES] == [theirs[name] for name in FIGURES]


def test_events_without_names_are_matched_by_frame(dataset: DataSet, tmp_path: Path) -> None:
    row = {"xyxy": [1, 2, 3, 4], "label": "dog", "class_id": 0, "score": 0.5, "track_id": None}
    other = {**row, "label": "cat"}
    event = {"camera": "a", "frame_id": 3, "width": 100, "height": 100, "detections": [row, other]}
    file = tmp_path / "events.jsonl"
    file.write_text(json.dumps(event) + "\n")
    result = read_detections(file, dataset)
    assert result.notes == ("the data set knows no cat: detections of them are left out",)
    found = result.detections
    assert [len(one) for one in found] == [0, 0, 0, 1, 0]
    assert found[3].labels.tolist() == [1]
    file.write_text("")
    assert sum(map(len, read_detections(file, dataset).detections)) == 0


GOOD = {"camera": "a", "frame_id": 0, "width": 100, "height": 100, "detections": []}
BOX = {"image_id": 7, "category_id": 4, "bbox": [1, 2, 3, 4], "score": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no", "wanted COCO results"),
        ("[1", "no JSON"),
        ("[1]", "result 0: wanted image_id"),
        (json.dumps([{**BOX, "image_id": 8}]), "image 8 is not in five"),
        (json.dumps([BOX, {**BOX, "category_id": 5}]), "result 1: category 5 is not in five"),
        (json.dumps([{**BOX, "bbox": [1, 2, -3, 4]}]), "x1 <= x2"),
        (json.dumps([{**BOX, "score": float("nan")}]), "finite"),
        ("{", "file:1: no JSON"),
        (json.dumps({**GOOD, "frame_id": 5}), "file:1: no event of a picture of five"),
        (json.dumps({**GOOD, "frame_id": -1}), "file:1: no event of a picture of five"),
        (json.dumps({**GOOD, "name": "gone.png"}), "no event of a picture"),
        (json.dumps(GOOD) + "\n" + json.dumps(GOOD), "file:2: a second event of 0.png"),
        (json.dumps({**GOOD, "width": 50}), r"50x100 px, but 0\.png has 100x100"),
        (json.dumps({**GOOD, "detections": [{"label": 1}]}), "no event of a picture"),
        (
            json.dumps(
                {**GOOD, "detections": [{"xyxy": [1, 2, 3, 4], "score": 1, "label": "cat"}]}
            ),
            r"no class of the model \(cat\)",
        ),
    ],
)
def test_rows_that_do_not_fit_are_named(
    dataset: DataSet, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(DataError, match=message):
        read_detections(tmp_path / "file", dataset)


def test_classes_are_mapped_by_name() -> None:
    mapping = class_map(("person", "Car", "car"), ("car", "dog"))
    assert mapping.tolist() == [-1, 0, 0]
    found = Detections(
        np.zeros((3, 4), np.float32), np.float32([0.1, 0.2, 0.3]), np.int32([0, 1, 2])
    )
    assert relabelled(found, mapping).scores.tolist() == pytest.approx([0.2, 0.3])
    assert len(relabelled(Detections.empty(), mapping)) == 0
    with pytest.raises(
        DataError, match=r"no class of the model \(a\) is one of the data set \(b\)"
    ):
        class_map(("a",), ("b",))
    with pytest.raises(DataError, match=r"rename: 'x' is no class of the data set \(b\)"):
        class_map(("a",), ("b",), {"a": "x"})
    with pytest.raises(DataError, match=r"rename: 'b' is no class of the model \(a\)"):
        class_map(("a",), ("b",), {"b": "a"})


def test_a_video_is_drawn_frame_by_frame(bundle: Path, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for i in range(12):
            image = np.zeros((96, 128, 3), np.uint8)
            image[20:60, 20 + i : 70 + i] = 255
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    counts = annotate(Predictor(bundle), [tmp_path / "clip.mp4"], tmp_path / "out")
    assert counts["White"] == 12
    with av.open(str(tmp_path / "out" / "clip.mp4")) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 5
    assert len(frames) == 12
    assert frames[0].shape == (96, 128, 3)
    colourful = np.ptp(frames[5].astype(int), axis=2) > 60  # the scene is black and white
    assert colourful.sum() > 50
    lines = (tmp_path / "out" / "detections.jsonl").read_text().splitlines()
    assert [json.loads(line)["frame_id"] for line in lines] == list(range(12))


def test_a_broken_picture_costs_itself_alone_and_no_drawing_overwrites_another(
    bundle: Path, tmp_path: Path
) -> None:
    white = np.full((60, 60, 3), 255, np.uint8)
    for name in ("x.jpg", "x.png", "a/b.jpg", "a_b.jpg", "X.bmp", "i10.png", "i2.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / name), white)
    (tmp_path / "in" / "c.jpg").write_bytes(b"no picture")
    notes: list[str] = []
    counts = annotate(Predictor(bundle), [tmp_path / "in"], tmp_path / "out", note=notes.append)
    assert counts == {"White": 7}
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 7
    lines = (tmp_path / "out" / "detections.jsonl").read_text().splitlines()
    names = [json.loads(line)["name"] for line in lines]
    assert names[:4] == ["a/b.jpg", "a_b.jpg", "i2.png", "i10.png"]  # as people sort, and `run`
    assert [note.partition(": ")[0] for note in notes] == [str(tmp_path / "in" / "c.jpg")]
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "c.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="no picture can be read; the last"):
        annotate(Predictor(bundle), [tmp_path / "bad"], tmp_path / "other")


@pytest.mark.parametrize("target", ["yolo", "coco", "voc"])
def test_what_is_found_becomes_a_data_set_to_correct(
    bundle: Path, dataset: DataSet, tmp_path: Path, target: str
) -> None:
    predictor = Predictor(bundle)
    counts = label(predictor, [tmp_path / "pictures"], tmp_path / "out", target)
    assert counts == {"White": 4}
    back = load(tmp_path / "out")
    assert {problem.kind for problem in back.problems} == {"identical"}  # as they were
    assert "White" in back.classes
    expected = detect(predictor, dataset)
    by_name = {sample.path.name: sample for sample in back.samples}
    for sample, found in zip(dataset.samples, expected, strict=True):
        np.testing.assert_allclose(by_name[sample.path.name].xyxy, found.xyxy, atol=1e-3)


def test_a_video_is_no_picture_to_label(bundle: Path, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        black = av.VideoFrame.from_ndarray(np.zeros((96, 128, 3), np.uint8), format="bgr24")
        for packet in [*stream.encode(black), *stream.encode(None)]:
            container.mux(packet)
    with pytest.raises(DataError, match=r"clip\.mp4: a video, wanted pictures"):
        label(Predictor(bundle), [tmp_path / "clip.mp4"], tmp_path / "out", "yolo")
    assert not (tmp_path / "out").exists()


def test_sources_that_are_none_leave_nothing_behind(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no video")
    predictor = Predictor(bundle)
    for name, message in (
        ("empty", "no picture in this folder"),
        ("text.mp4", "no readable picture or video"),
        ("none.mp4", "no such picture, folder or video"),
        ("none.png", "No such file"),
    ):
        with pytest.raises(DataError, match=message):
            annotate(predictor, [tmp_path / name], tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "text.mp4"]
    with pytest.raises(ModelError, match="no such file; wanted a bundle"):
        found_by(tmp_path / "none", None)
