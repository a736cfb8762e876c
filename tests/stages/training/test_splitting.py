"""Parts of a data set: complete, disjoint, seeded, grouped and balanced; `load` reads them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import DataError
from stages.training.alike import pairs, shared
from stages.training.convert import convert
from stages.training.datasets import DataSet, Sample, load
from stages.training.splitting import split, write


def data_set(root: Path, names: list[str], *, difficult: bool = False) -> DataSet:
    """Real pictures; the i-th shows class 0, each third class 1, each tenth class 2, each fourth none."""
    samples = []
    for i, name in enumerate(names):
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((30, 40, 3), i % 256, np.uint8))
        shown = [] if i % 4 == 3 else [0] + [1] * (i % 3 == 0) + [2] * (i % 10 == 0)
        boxes = [[1.25 + label, 2.1, 20.7, 21.3 + label] for label in shown]
        samples.append(
            Sample(
                path=path,
                width=40,
                height=30,
                xyxy=np.array(boxes, np.float32).reshape(-1, 4),
                labels=np.array(shown, np.int32),
                crowd=np.zeros(len(shown), bool),
                difficult=np.full(len(shown), difficult),
                image_id=i + 1,
                group=str(Path(name).parent),
            )
        )
    classes = ("car", "bus & co", "dog")
    return DataSet(name="made", classes=classes, samples=tuple(samples), problems=(), sha256="")


def test_parts_are_complete_disjoint_balanced_and_seeded(tmp_path: Path) -> None:
    data = data_set(tmp_path, [f"{i:03}.png" for i in range(100)])
    parts = split(data, seed=3)
    names = [s.path.name for part in parts.values() for s in part.samples]
    assert sorted(names) == [s.path.name for s in data.samples]
    assert {name: len(part.samples) for name, part in parts.items()} == pytest.approx(
        {"train": 70, "val": 15, "test": 15}, abs=2
    )
    total = Counter(label for s in data.samples for label in s.labels.tolist())
    for label, count in total.items():
        of_part = [sum((s.labels == label).sum() for s in p.samples) for p in parts.values()]
        np.testing.assert_allclose(of_part, np.array([0.7, 0.15, 0.15]) * count, atol=2)

    def chosen(seed: int) -> list[str]:
        return [s.path.name for s in split(data, seed=seed)["test"].samples]

    assert chosen(3) == chosen(3) != chosen(4)


@pytest.mark.parametrize("group_by", ["folder", "^(cam[0-9]+)_"])
def test_frames_of_a_camera_stay_together(tmp_path: Path, group_by: str) -> None:
    names = [f"cam{i % 12}/cam{i % 12}_{i:03}.png" for i in range(96)]
    parts = split(data_set(tmp_path, names), {"train": 0.5, "test": 0.5}, group_by=group_by)
    cameras = [{s.path.parent.name for s in part.samples} for part in parts.values()]
    assert not cameras[0] & cameras[1]
    assert [len(part.samples) for part in parts.values()] == pytest.approx([48, 48], abs=8)


def blots(path: Path, seed: int, quality: int = 95) -> None:
    """A picture of its own for each seed, with relief."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), np.uint8)
    image = cv2.resize(cells, (320, 240), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def test_pictures_that_are_equal_or_look_alike_do_not_part(tmp_path: Path) -> None:
    for i in range(40):
        blots(tmp_path / "images" / f"{i:02}.jpg", i // 2, 30 + 60 * (i % 2))  # twins, saved anew
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "00.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    notes: list[str] = []
    parts = split(load(tmp_path), {"train": 0.5, "test": 0.5}, note=notes.append)
    of = {s.path.stem: name for name, part in parts.items() for s in part.samples}
    assert all(of[f"{i:02}"] == of[f"{i + 1:02}"] for i in range(0, 40, 2))
    assert len(notes) == 1
    assert notes[0].startswith("40 pictures are equal or look alike")
    assert shared(parts["train"], parts["test"]) == (0, "")
    # ten groups of four, two of which hold each other's twins: eight do not fit into a tenth of forty
    fractions = {"a": 0.9, "b": 0.1}
    apart = split(load(tmp_path), fractions, group_by=r"\d(\d)", note=notes.append)
    assert "40 pictures look alike, too many to keep in one part" in notes[1]
    assert shared(apart["a"], apart["b"])[0] == 4


def test_plain_pictures_are_not_taken_for_each_other(tmp_path: Path) -> None:
    data = data_set(tmp_path, [f"{i:03}.png" for i in range(8)])
    assert not list(pairs(data.samples))


def test_no_part_is_empty(tmp_path: Path) -> None:
    data = data_set(tmp_path, ["a.png", "b.png", "c.png"])
    parts = split(data, {"train": 0.98, "val": 0.01, "test": 0.01})
    assert [len(part.samples) for part in parts.values()] == [1, 1, 1]


def test_what_cannot_be_split_is_refused(tmp_path: Path) -> None:
    data = data_set(tmp_path, ["cam1_1.png", "cam1_2.png", "other.png"])
    with pytest.raises(DataError, match=r"add up to 1, got \{'train': 0.9\}"):
        split(data, {"train": 0.9})
    with pytest.raises(DataError, match=r"1 group.* cannot fill 2 parts"):
        split(data, {"train": 0.5, "test": 0.5}, group_by="folder")
    with pytest.raises(DataError, match=r"other\.png: group_by '\^cam' does not match"):
        split(data, {"train": 0.5, "test": 0.5}, group_by="^cam")
    with pytest.raises(DataError, match="no regular expression"):
        split(data, {"train": 0.5, "test": 0.5}, group_by="(")


def same(one: DataSet, other: DataSet) -> None:
    """Equal boxes, labels, flags and pixels, picture by picture."""
    assert one.classes == other.classes
    assert other.problems == ()
    by_name = {s.path.name: s for s in other.samples}
    assert len(by_name) == len(one.samples)
    for sample in one.samples:
        twin = by_name[sample.path.name]
        assert (twin.width, twin.height) == (sample.width, sample.height)
        np.testing.assert_allclose(twin.xyxy, sample.xyxy, atol=1e-5)
        for field in ("labels", "crowd", "difficult"):
            np.testing.assert_array_equal(getattr(twin, field), getattr(sample, field))
        assert twin.path.read_bytes() == sample.path.read_bytes()


def test_written_parts_are_read_back(tmp_path: Path) -> None:
    data = data_set(tmp_path / "data", [f"x/{i}.png" for i in range(20)], difficult=True)
    parts = split(data, {"train": 0.5, "val": 0.5}, seed=1)
    write(parts, tmp_path / "split", seed=1)
    for name, part in parts.items():
        same(part, load(tmp_path / "split", split=name))
        listed = (tmp_path / "split" / f"{name}.txt").read_text().split()
        assert all((tmp_path / "split" / path).is_file() for path in listed)
    with pytest.raises(DataError, match="exists already"):
        write(parts, tmp_path / "split")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "split"]


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("target", ["coco", "yolo", "voc"])
def test_converted_data_sets_are_read_back(tmp_path: Path, target: str, link: bool) -> None:
    data = data_set(tmp_path / "data", ["a/1.png", "b/2.png", "3.png", "4.png"])
    assert convert(data, tmp_path / "out", target, link=link) == {}
    back = load(tmp_path / "out")
    # VOC has no list of classes: they are sorted.
    if target == "voc":
        assert back.classes == tuple(sorted(data.classes))
    else:
        same(data, back)
    assert load(tmp_path / "out", format=target).sha256 == back.sha256
    assert all(s.path.is_symlink() == link for s in back.samples)


def test_pictures_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    data = data_set(tmp_path / "data", ["../images/1.png", "images/1.png", "1.png"])
    convert(data, tmp_path / "out", "voc")
    assert len(load(tmp_path / "out").samples) == 3


def test_flags_without_a_word_in_the_format_are_told(tmp_path: Path) -> None:
    data = data_set(tmp_path / "data", ["a.png", "b.png"], difficult=True)
    assert convert(data, tmp_path / "yolo", "yolo") == {"difficult": 4}
    assert convert(data, tmp_path / "voc", "voc") == {}
    with pytest.raises(DataError, match="target 'csv': wanted one of coco, yolo, voc"):
        convert(data, tmp_path / "csv", "csv")
