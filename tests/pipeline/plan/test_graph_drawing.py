"""The picture of a plan: everything is in it, nothing overlaps."""

import re
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import patterns
import pytest

from pipeline.plan import config as configuration
from pipeline.plan.drawing import FOLD_ABOVE, svg
from pipeline.plan.standard import make

SVG = "{http://www.w3.org/2000/svg}"


def drawn(plan=None, **options):
    """(plan, texts, boxes as (left, top, right, bottom), size); of a plan of patterns.py without one."""
    plan = plan or patterns.plan(Path("unused"), **options)
    root = ElementTree.fromstring(svg(plan))
    texts = [node.text for node in root.iter(f"{SVG}text")]
    numbers = [
        [node.get(key) for key in ("x", "y", "width", "height")] for node in root.iter(f"{SVG}rect")
    ]
    boxes = [
        (float(x), float(y), float(x) + float(w), float(y) + float(h))
        for x, y, w, h in (row for row in numbers if row[0])
    ]
    return plan, texts, boxes, (float(root.get("width")), float(root.get("height")))


@pytest.mark.parametrize("policy", ["newest", "every"])
@pytest.mark.parametrize("cameras", [1, 2, 4, 5, 16])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_process_is_a_box_in_the_picture_and_no_two_overlap(cameras, workers, policy):
    plan, texts, boxes, (width, height) = drawn(cameras=cameras, workers=workers, policy=policy)
    folded = cameras > FOLD_ABOVE
    for spec in plan.processes:
        assert (spec.name in texts) != (folded and spec.role == "source")
    assert (f"capture ×{cameras}" in texts) == folded
    assert len(boxes) == len(plan.processes) - (cameras - 1 if folded else 0)
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    for one, other in combinations(boxes, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart


def test_consumers_stand_to_the_right_of_their_producers():
    plan, texts, boxes, _ = drawn(cameras=2)
    names = [text for text in texts if text in plan.by_name]
    left = {name: box[0] for name, box in zip(names, boxes, strict=True)}
    for spec in plan.processes:
        for edge in spec.outputs:
            assert left[spec.name] < left[edge.consumer]


def test_every_one_of_many_cameras_counts_for_where_its_consumers_stand(tmp_path):
    """Eight cameras in one box feed three processes; the first of them feeds only one."""
    toml = tmp_path / "many.toml"
    camera = '[[camera]]\nname = "c{0}"\nsource = "synthetic://?seed={0}&size=64x64"\n'
    toml.write_text("[preprocess]\nworkers = 3\n" + "".join(map(camera.format, range(8))))
    plan, texts, boxes, (width, _) = drawn(make(configuration.load(toml)))
    names = [text for text in texts if text in plan.by_name or text == "capture ×8"]
    left = {name: box[0] for name, box in zip(names, boxes, strict=True)}
    assert {left[f"preprocess.{i}"] for i in range(3)} == {left["preprocess.0"]}
    assert 0 < left["capture ×8"] < left["preprocess.0"] < left["batcher"] < width


def test_edges_say_credits_and_what_happens_when_they_are_full():
    _, texts, _, _ = drawn(cameras=2)
    assert {"1 + 1, newest", "2 + 8, wait", "8 + 32, newest"} <= set(texts)
    _, texts, _, _ = drawn(cameras=2, policy="every")
    assert not any("newest" in text for text in texts)


def test_the_same_plan_gives_the_same_picture():
    plan = patterns.plan(Path("unused"), cameras=3)
    assert svg(plan) == svg(plan)
    assert re.match(r"<svg [^>]*viewBox=\"0 0 \d+ \d+\"", svg(plan))
