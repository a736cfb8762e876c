"""The plans of one run, one after the other: what was edited differs, and nothing else."""

import bundles
import pytest

from pipeline.errors import ConfigError
from pipeline.plan import config as configuration
from pipeline.plan.difference import (
    Difference,
    between,
    differs,
    joined,
    moved,
    moving,
    turns,
    without,
)
from pipeline.plan.model_path import demo_model
from pipeline.plan.planner import Planner

TOML = """
[model]
engine = "stub"
score_threshold = {score}
[preprocess]
workers = 2
[[sink]]
type = "events"
path = "events.jsonl"
[[sink]]
type = "snapshot"
path = "snapshots"
"""
CAMERA = '[[camera]]\nname = "{}"\nsource = "synthetic://?size=64x64"\n'


@pytest.fixture
def file(tmp_path):
    """Writes a file of these cameras; returns its path."""

    def write(*cameras, score=0.5, more=""):
        path = tmp_path / "street.toml"
        path.write_text(TOML.format(score=score) + "".join(map(CAMERA.format, cameras)) + more)
        return path

    return write


def planner(path):
    return Planner(configuration.load(path), configuration.load, path)


def test_cameras_come_and_go_and_everybody_else_stays_what_it_is(file):
    plans = planner(file("a", "b", "c"))
    first = plans.plan
    lanes = {n: first.by_name[n].cameras for n in ("preprocess.0", "preprocess.1")}
    assert lanes == {"preprocess.0": ("a", "c"), "preprocess.1": ("b",)}

    next_one = plans.from_file(file("b", "c", "d", "e"))
    difference = between(first, next_one.plan)
    assert difference == Difference(
        joins=("d", "e"), leaves=("a",), starts=("capture.d", "capture.e"), stops=("capture.a",)
    )
    lanes = {n: next_one.plan.by_name[n].cameras for n in ("preprocess.0", "preprocess.1")}
    assert lanes == {"preprocess.0": ("c", "d"), "preprocess.1": ("b", "e")}
    plans.accept(next_one)
    assert plans.plan is next_one.plan
    assert between(plans.plan, plans.without("d").plan).leaves == ("d",)
    table = [{"name": "f", "source": "synthetic://"}]
    assert between(plans.plan, plans.with_cameras(table, file().parent).plan).joins == ("f",)


def test_another_threshold_is_another_chain_that_starts_before_the_cameras_go_to_it(file):
    plans = planner(file("a"))
    target = plans.from_file(file("a", score=0.6)).plan
    difference = between(plans.plan, target)
    assert difference.moves == ("a",)
    chain = {*difference.starts}
    assert {name.split(".")[0] for name in chain} == {
        "preprocess", "batcher", "inference", "postprocess",
    }  # fmt: skip
    before = joined(plans.plan, target, set())
    assert chain <= before.by_name.keys()
    assert not any(before.by_name[name].cameras for name in chain)
    first = before.by_name["capture.a"]
    assert [edge.cameras for edge in first.outputs] == [("a",), ("a",), ()]  # the new one is last
    assert turns(before, target, "a") == {"capture.a"}
    both = moving(before, target, "a")
    assert all("a" in both.by_name[name].cameras for name in (*chain, *difference.stops))
    assert [edge.cameras for edge in both.by_name["capture.a"].outputs] == [(), ("a",), ("a",)]
    after = without(moved(both, target, "a"), processes=difference.stops)
    assert {spec.name: spec.cameras for spec in after.processes} == {
        spec.name: spec.cameras for spec in target.processes
    }
    assert not differs(after, target, "a")
    after.check()


def test_settings_of_stages_change_and_a_camera_takes_its_places_along(file):
    plans = planner(file("a", "b", more="[track]\n" + PLACES))
    changed = plans.from_file(file("a", "b", more="[track]\nlost_s = 9\n" + PLACES + RENDER)).plan
    assert between(plans.plan, changed).renews == ("track", "scene", "render")  # scene: who is gone
    left = plans.without("b")
    assert [zone.name for zone in left.config.zone] == ["kerb"]
    assert left.config.line == ()
    difference = between(plans.plan, left.plan)
    assert (difference.leaves, difference.renews) == (("b",), ("scene",))
    with pytest.raises(ConfigError, match=r"ctl remove: overlap 'street'.*no zone 'a/kerb'"):
        planner(file("a", "b", more="[track]\n" + PLACES + OVERLAP)).without("a")


RENDER = "[render]\nclock = false\n"
PLACES = """
[[zone]]
name = "kerb"
camera = "a"
polygon = [[0, 0], [1, 0], [1, 1]]
[[zone]]
name = "kerb"
camera = "b"
polygon = [[0, 0], [1, 0], [1, 1]]
[[line]]
name = "door"
camera = "b"
points = [[0, 0], [1, 0]]
"""
OVERLAP = '[[overlap]]\nname = "street"\nzones = ["a/kerb", "b/kerb"]\n'


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[run]\nseconds = 5\n", r"street.toml: \[run\] seconds can't change while a run goes on"),
        ('[outbox]\npath = "o.db"\n', r"\[outbox\] path can't change while a run goes on"),
    ],
)
def test_what_is_no_matter_of_cameras_is_refused_by_name(file, more, said):
    plans = planner(file("a"))
    with pytest.raises(ConfigError, match=said):
        between(plans.plan, plans.from_file(file("a", more=more)).plan)


# -- another model ---------------------------------------------------------------------------------

ZONE = (
    '[[zone]]\nname = "kerb"\ncamera = "a"\npolygon = [[0, 0], [1, 0], [1, 1]]\nclasses = ["car"]\n'
)


def batches(plan):
    """What each inference has, and who looks with it."""
    return {(s.config["model"], s.cameras) for s in plan.processes if s.role == "batch"}


def test_another_model_takes_the_place_of_the_first_or_of_one_camera_and_can_go_back(
    file, tmp_path
):
    plans = planner(file("a", "b"))
    demo = str(demo_model())
    other = bundles.with_classes(tmp_path / "other.bundle", "bicycle", "person", "car")
    swapped = plans.with_model(other, ())
    difference = between(plans.plan, swapped.plan)
    assert (difference.joins, difference.leaves, difference.moves) == ((), (), ("a", "b"))
    assert {camera for _, cameras in batches(swapped.plan) for camera in cameras} == {"a", "b"}
    assert {path for path, _ in batches(swapped.plan)} == {str(other)}
    assert swapped.plan.by_name["postprocess.other"].config["labels"] == [2, 0, 1]
    with pytest.raises(ConfigError, match="nothing has changed yet"):
        plans.rollback()

    first = plans.plan
    plans.accept(swapped)
    assert plans.rollback().plan is first
    assert not between(swapped.plan, plans.with_model(other, ()).plan)
    one = plans.with_model(demo_model(), ["b"])
    assert batches(one.plan) == {(str(other), ("a",)), (demo, ("b",))}
    plans.accept(one, is_whole=False)  # the swap had not come to run
    plans.withdraw()
    assert plans.plan is first


def test_a_model_with_other_classes_may_take_over_if_nobody_misses_one(file, tmp_path):
    trucks = bundles.with_classes(tmp_path / "trucks.bundle", "car", "truck", "person")
    plans = planner(file("a"))
    learnt = plans.with_model(trucks, ())
    assert learnt.classes == ("person", "car", "bicycle", "truck")  # numbers stay what they were
    assert between(plans.plan, learnt.plan).moves == ("a",)
    assert between(plans.plan, learnt.plan).renews == ("render", "sink.events")
    known = plans.with_model(trucks, (), known=True)
    assert between(plans.plan, known.plan).moves == ("a",)
    post = known.plan.by_name["postprocess.trucks"].config
    assert (post["classes"], post["labels"]) == (["car", "person"], [1, -1, 0])
    plans.accept(known)
    demo = plans.with_model(demo_model(), ()).plan  # it is not kept from finding bicycles
    assert demo.by_name["postprocess.demo"].config["classes"] is None

    (tmp_path / "b").mkdir()
    people = bundles.with_classes(tmp_path / "b" / "people.bundle", "person", "truck", "bicycle")
    plans = planner(file("a", more=ZONE))
    with pytest.raises(ConfigError, match=r"zone 'kerb'.*the model has no class 'car'"):
        plans.with_model(people, (), known=True)
    none = bundles.with_classes(tmp_path / "none.bundle", "x", "y", "z")
    with pytest.raises(ConfigError, match="none of the classes person, car, bicycle"):
        plans.with_model(none, (), known=True)
    with pytest.raises(ConfigError, match="leave out"):
        plans.with_model(trucks, ["a"], known=True)


def test_a_model_may_look_on_until_it_takes_over_or_is_withdrawn(file, tmp_path):
    trucks = bundles.with_classes(tmp_path / "trucks.bundle", "car", "truck", "person")
    plans = planner(file("a", "b"))
    shadow = plans.with_shadow(trucks, ["a"])
    difference = between(plans.plan, shadow.plan)
    assert (difference.moves, difference.changes, difference.stops) == (("a",), (), ())
    assert {name.partition(".shadow")[0] for name in difference.starts} == {
        "preprocess", "batcher", "inference", "postprocess", "compare",
    }  # fmt: skip
    by_name = shadow.plan.by_name
    new = [by_name[name] for name in difference.starts]
    assert {spec.cameras for spec in new} == {("a",)}
    assert not any(spec.paths or spec.delivers for spec in new)  # no account knows of it
    assert by_name["compare.shadow"].config["classes"] == ["person", "car", "bicycle", "truck"]
    assert by_name["postprocess.shadow"].config["labels"] == [1, 3, 0]
    assert turns(joined(plans.plan, shadow.plan, set()), shadow.plan, "a") == {
        "capture.a", "postprocess",
    }  # fmt: skip
    assert by_name["sink.events"] == plans.plan.by_name["sink.events"]  # and no sink of its classes

    first = plans.plan
    plans.accept(shadow)
    assert "compare.shadow" in plans.without("b").plan.by_name
    assert "compare.shadow" not in plans.without("a").plan.by_name
    with pytest.raises(ConfigError, match=r"'\w+' looks on already; .* withdraws it"):
        plans.with_shadow(trucks, [])
    assert plans.rollback().plan is first
    assert "compare.shadow" not in plans.with_model(trucks, (), known=True).plan.by_name


def test_a_stage_after_capture_sends_frames_to_the_next_model_in_the_place_of_the_source(
    file, tmp_path
):
    stage = '[[stage]]\nname = "mine"\nrun = "parts:Same"\nafter = "capture"\n'
    plans = planner(file("a", "b", more=stage))
    other = bundles.with_classes(tmp_path / "other.bundle", "bicycle", "person", "car")
    target = plans.with_model(other, ["a"]).plan
    assert between(plans.plan, target).moves == ("a",)
    running = joined(plans.plan, target, set())
    assert turns(running, target, "a") == {"mine"}
    to = {e.consumer: e.cameras for e in moving(running, target, "a").by_name["mine"].outputs}
    assert to["preprocess.other"] == ("a",)
    assert all("a" not in to[name] for name in to if name in ("preprocess.0", "preprocess.1"))
