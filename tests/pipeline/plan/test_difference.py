"""What makes one plan of another while it runs, and what is refused."""

from dataclasses import replace

import patterns
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.plan.difference import (
    Difference,
    between,
    differs,
    joined,
    moved,
    moving,
    renewed,
    without,
)
from pipeline.plan.offers import lingering, offering

PLACE = patterns.HERE
CAMERAS = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True)


@pytest.fixture(autouse=True, scope="module")
def _parts_on_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PLACE))
        yield


def plan(*cameras, **options):
    return patterns.plan(PLACE, cameras=cameras, **options)


def with_process(made, name, **changes):
    specs = tuple(replace(s, **changes) if s.name == name else s for s in made.processes)
    return replace(made, processes=specs)


def facts(made):
    """A plan without the order in which its cameras came."""
    specs = {}
    for spec in made.processes:
        outputs = {e.consumer: replace(e, cameras=tuple(sorted(e.cameras))) for e in spec.outputs}
        cameras, reads = tuple(sorted(spec.cameras)), tuple(sorted(spec.reads))
        same = replace(spec, outputs=(), cameras=cameras, reads=reads)
        specs[spec.name] = same, outputs
    return {*made.cameras}, specs


@given(CAMERAS, CAMERAS)
def test_leaving_and_joining_make_one_plan_of_the_other(old, new):
    running, target = plan(*old), plan(*new)
    difference = between(running, target)
    assert {*difference.leaves} == {*old} - {*new}
    assert {*difference.joins} == {*new} - {*old}
    assert difference.changes == ()
    running = joined(running, target, {*difference.joins})
    for camera in difference.leaves:
        running = without(running, camera, [f"capture.{camera}"])
    assert facts(running) == facts(target)
    assert joined(running, target, set()) == running
    running.check()


def test_a_camera_that_is_read_in_another_way_leaves_and_joins():
    fast = plan("a", "b", rates_hz=[("b", 7.0)])
    assert between(plan("a", "b"), fast) == Difference(changes=("b",))
    assert not between(fast, fast)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("sink.results", {"paths": ()}, r"'sink.results'.*\(paths\)"),
        ("inference.0", {"config": {"new": 1}}, r"'inference.0'.*\(alpha_ms, new\)"),
        ("inference.0", {"counters": ("hits",)}, r"'inference.0'.*\(counters\)"),
        ("preprocess", {"outputs": ()}, r"'preprocess'.*\(edges\)"),
        ("preprocess", {"environment": {"OMP_NUM_THREADS": "2"}}, r"\(OMP_NUM_THREADS\)"),
    ],
)
def test_what_only_a_new_start_can_do_is_refused_by_name(name, changes, said):
    with pytest.raises(ConfigError, match=said + ".*start it again"):
        between(plan("a"), with_process(plan("a"), name, **changes))


def test_a_stage_or_sink_with_other_settings_is_started_anew_and_stays_where_it_is():
    running = plan("a", "b")
    target = with_process(plan("b", "c"), "render", config={"turn": 1}, options={"max_age_ms": 9})
    difference = between(running, target)
    assert (difference.renews, difference.starts) == (("render",), ("capture.c",))
    assert difference.lines()[-1] == "started anew, with other settings: render"
    after = renewed(running, target.by_name["render"])
    same = with_process(running, "render", config={"turn": 1}, options={"max_age_ms": 9})
    assert after == same
    assert not between(after, same)


def test_another_policy_is_refused():
    with pytest.raises(ConfigError, match="the policy would be 'every' and not 'newest'"):
        between(plan("a"), plan("a", policy="every"))


@given(CAMERAS, *2 * [st.tuples(st.sets(st.sampled_from([*patterns.MORE])), st.booleans())])
def test_sinks_and_stages_come_and_go_and_cameras_go_over_to_them(cameras, old, new):
    running, target = (plan(*cameras, more=more, between=between) for more, between in (old, new))
    difference = between(running, target)
    gone, come = running.by_name.keys() - target.by_name, target.by_name.keys() - running.by_name
    assert ({*difference.starts}, {*difference.stops}) == (come, gone)
    assert (difference.leaves, difference.joins, difference.changes) == ((), (), ())
    if not (gone or come):
        assert not difference
    running = joined(running, target, set())
    for camera in cameras:
        if differs(running, target, camera):
            running = moved(moving(running, target, camera), target, camera)
    running = offering(without(running, processes=gone), target)
    assert used(running) == used(target)
    running.check()


def used(made):
    """Its facts without edges and ways that nothing takes, and without what is counted of these."""
    cameras, specs = facts(made)
    return cameras, {
        name: (
            replace(spec, counters=(), slots=0, paths=tuple(sorted(spec.paths))),
            {c: replace(e, paths=tuple(sorted(e.paths))) for c, e in edges.items() if e.cameras},
        )
        for name, (spec, edges) in specs.items()
    }


def test_frames_are_offered_to_a_new_sink_by_who_ends_the_path_and_last():
    running, target = plan("a", between=True), plan("a", between=True, more={"sink.more"})
    after = joined(running, target, set())
    assert after.by_name["between"].paths == (patterns.RESULTS, patterns.MORE["sink.more"])
    assert after.by_name["postprocess"] == running.by_name["postprocess"]
    ends = offering(after, target).by_name["postprocess"]
    assert ends == target.by_name["postprocess"]
    # and a sink that goes stays until it has what was offered to it, if somebody is on the way to it
    assert lingering(target, running) == {"sink.more": patterns.MORE["sink.more"]}
    assert lingering(plan("a", more={"sink.more"}), plan("a")) == {}


def test_processes_that_work_for_a_new_camera_alone_start_with_it():
    """As the chain of another model does."""
    both = plan("a", "b")
    extra = replace(both.by_name["sink.results"], name="extra", role="stage", cameras=("b",))
    target = replace(both, processes=(*both.processes, extra))
    difference = between(plan("a"), target)
    assert difference.starts == ("capture.b", "extra")
    assert difference.lines() == ["camera 'b' joins", "started: capture.b, extra"]
    assert between(target, plan("a")).stops == ("capture.b", "extra")
