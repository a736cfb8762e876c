"""The plans of one run, one after the other: what was edited differs, and nothing else."""

import pytest

from pipeline.errors import ConfigError
from pipeline.plan import config as configuration
from pipeline.plan.difference import Difference, between, joined, without
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
    assert difference.changes == ("a",)
    chain = {name for name in difference.starts if not name.startswith("capture")}
    assert {name.split(".")[0] for name in chain} == {
        "preprocess", "batcher", "inference", "postprocess",
    }  # fmt: skip
    before = joined(plans.plan, target, set())
    assert chain <= before.by_name.keys()
    assert not any(before.by_name[name].cameras for name in chain)
    assert before.by_name["capture.a"] == plans.plan.by_name["capture.a"]
    after = joined(without(before, "a", ["capture.a"]), target, {"a"})
    after = without(after, processes=difference.stops)
    assert after.by_name.keys() == target.by_name.keys()
    after.check()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[run]\nseconds = 5\n", r"street.toml: \[run\] seconds can't change while a run goes on"),
        ("[render]\nclock = false\n", r"'render' would be another one \(show_clock\)"),
        ('[[sink]]\ntype = "null"\n', r"'sink.null' would be new"),
        ("[track]\n", "'track' would be new"),
    ],
)
def test_what_is_no_matter_of_cameras_is_refused_by_name(file, more, said):
    plans = planner(file("a"))
    with pytest.raises(ConfigError, match=said):
        between(plans.plan, plans.from_file(file("a", more=more)).plan)
