"""The stage: crowds of happenings, the truth beside, mistakes in places."""

import pytest
from walks import CLASSES, LEFT_HALF, MIDDLE, line, path, result, scene, walk, zone

from pipeline.errors import ConfigError
from pipeline.happenings import MAX_PER_RESULT
from stages.scene.stage import Scene, SceneConfig


def test_who_comes_in_and_goes_is_told_with_the_id_of_the_run():
    stage = scene(zones=[zone(LEFT_HALF)], run="5f3a")
    frames = path(1, (120, 60), (50, 60), (120, 60))
    told = [h for n, feet in enumerate(frames) for h in stage.process(result(n, feet)).happenings]
    assert [h.kind for h in told] == ["appeared", "entered", "left"]
    assert {h.run for h in told} == {"5f3a"}
    assert stage.runtime.counts["entered:door", "gate"] == 1


def test_the_boxes_stay_as_they_are():
    one = result(0, {1: (50, 60)})
    done = scene(zones=[zone(LEFT_HALF)]).process(one)
    assert done.detections is one.detections
    assert done.info is one.info


def test_what_one_message_has_no_room_for_comes_with_the_next():
    stage = scene(zones=[zone(LEFT_HALF, f"z{n}") for n in range(5)])
    feet = {k: (k % 90, 60) for k in range(100)}
    found = [stage.process(result(n, feet if n == 0 else {})).happenings for n in range(8)]
    assert [len(one) for one in found[:5]] == [MAX_PER_RESULT] * 4 + [600 - 4 * MAX_PER_RESULT]
    assert found[6:] == [(), ()]
    assert sum(h.kind == "entered" for one in found for h in one) == 500


def test_places_belong_to_their_camera():
    stage = scene(zones=[zone(LEFT_HALF)])
    stage.runtime.cameras = ("gate", "yard")
    for n in range(2):
        found = stage.process(result(n, {1: (50, 60)}, camera="yard")).happenings
        assert "entered" not in [h.kind for h in found]


def test_what_was_not_tracked_has_no_objects():
    one = result(0, {1: (50, 60)})
    one.detections = type(one.detections)(
        one.detections.xyxy, one.detections.scores, one.detections.labels
    )
    assert scene(zones=[zone(LEFT_HALF)]).process(one).happenings == ()


def test_true_crossings_are_counted_beside_the_found_ones():
    stage = scene(lines=[line(MIDDLE)])
    for n, feet in enumerate(walk(1, 80, 120)):  # nobody is found there
        stage.process(result(n, {}, truth=result(n, feet).detections))
    assert stage.runtime.counts["true_crossed:kerb:in:person", "gate"] == 1
    assert stage.runtime.counts["crossed:kerb:in:person", "gate"] == 0


def test_in_the_truth_nobody_is_taken_for_somebody_else():
    stage = scene(lines=[line(MIDDLE)])
    for n, feet in enumerate([*walk(1, 60, 92), *[{}] * 10, *walk(2, 105, 120)]):
        stage.process(result(n, feet, truth=result(n, feet).detections))
    assert stage.runtime.counts["true_crossed:kerb:in:person", "gate"] == 0
    assert stage.runtime.counts["crossed:kerb:in:person", "gate"] == 1


BOW = [[0.1, 0.1], [0.9, 0.9], [0.9, 0.1], [0.1, 0.9]]
BAD = {
    "two points": (zone([[0.1, 0.1], [0.5, 0.5]]), "polygon must have 3 points or more, got 2"),
    "crosses itself": (zone(BOW), "zone 'door': polygon crosses itself; list its corners in"),
    "flat": (zone([[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]]), "polygon crosses itself|area"),
    "tiny": (zone([[0.1, 0.1], [0.101, 0.1], [0.1, 0.101]]), "area of 0.0001 of the picture"),
    "outside": (
        zone([[0.1, 0.1], [1.5, 0.1], [0.5, 0.5]]),
        r"within 0..1, got \[1.5, 0.1\]; divide",
    ),
    "negative": (zone([[-0.1, 0.1], [0.5, 0.1], [0.5, 0.5]]), r"got \[-0.1, 0.1\]"),
    "class": (zone(LEFT_HALF, classes=("persn",)), "no class 'persn'; did you mean 'person'"),
    "another class": (zone(LEFT_HALF, classes=("dog",)), "it knows person, car"),
    "line of three": (line([[0, 0], [0.5, 0.5], [1, 1]]), "line 'kerb': points must be two, got 3"),
    "line of one place": (line([[0.5, 0.5], [0.5, 0.5]]), "0.01 of the picture apart"),
    "line outside": (line([[0, 0], [640, 360]]), r"got \[640, 360\]; divide px"),
    "one direction": (line(MIDDLE, to_left="in"), "must be different names, got 'in' twice"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_place_that_can_not_be_is_one_sentence(case):
    place, words = BAD[case]
    where = {"zones": (place,)} if "polygon" in place else {"lines": (place,)}
    with pytest.raises(ConfigError, match=words):
        Scene.check(SceneConfig(classes=CLASSES, **where))


def test_who_comes_after_with_other_places_knows_who_was_where():
    """Of a zone that stays: inside. Of a line that was moved: nothing, so nobody crosses it by that."""
    right = [[0.5, 0], [1, 0], [1, 1], [0.5, 1]]
    before = scene([zone(LEFT_HALF), zone(right, "old")], [line(MIDDLE), line(MIDDLE, "moves")])
    assert [h.kind for h in before.process(result(0, {1: (50, 60)})).happenings] == [
        "appeared",
        "entered",
    ]
    moved = [[0.1, 1], [0.1, 0]]  # now the object is on its other side
    lines = [line(moved, "moves"), line(MIDDLE)]
    after = scene([zone(right, "new"), zone(LEFT_HALF)], lines)
    after.restore("gate", before.save("gate"))
    assert after.process(result(1, {1: (50, 60)})).happenings == ()
    told = after.process(result(2, {1: (150, 60)})).happenings
    assert [(h.kind, h.place) for h in told] == [
        ("crossed", "kerb"),
        ("entered", "new"),
        ("left", "door"),
    ]
